"""Keeps the daemon's threads: a fixed number, named; a bug in one ends the process, state being on disk."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog

_log = structlog.get_logger()


class Supervisor:
    """Starts threads and waits for the first reason to stop: a request, or a crash."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._calls: list[str] = []
        self.crash: BaseException | None = None

    def start(self, name: str, target: Callable[[], None]) -> threading.Thread:
        """Run ``target`` in a thread of its own, which is returned."""
        thread = threading.Thread(target=self._guarded, args=(name, target), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def crashed(self, error: BaseException) -> None:
        """The calling thread met a bug: say so, the process must end."""
        _log.critical("thread_crashed", thread=threading.current_thread().name, exc_info=error)
        with self._condition:
            if self.crash is None:
                self.crash = error
            self._condition.notify_all()

    def call(self, what: str) -> None:
        """Have ``wait`` return ``what``; safe in a signal handler's thread and in any other."""
        with self._condition:
            self._calls.append(what)
            self._condition.notify_all()

    def wait(self, timeout_s: float | None = None) -> str | None:
        """The next call, "crash", or None after ``timeout_s``."""
        with self._condition:
            self._condition.wait_for(lambda: self._calls or self.crash is not None, timeout_s)
            if self.crash is not None:
                return "crash"
            return self._calls.pop(0) if self._calls else None

    def join(self, timeout_s: float) -> list[str]:
        """Wait for all threads to end; the names of those that did not in time."""
        for thread in self._threads:
            thread.join(timeout_s)
        return [thread.name for thread in self._threads if thread.is_alive()]

    def _guarded(self, name: str, target: Callable[[], None]) -> None:
        name_thread(name)
        try:
            target()
        except BaseException as error:  # noqa: BLE001 - the one place: whatever it is, the process ends by it
            self.crashed(error)


def name_thread(name: str) -> None:
    """Show the calling thread in ``ps -L`` and ``top -H`` under this name, cut to the kernel's 15 bytes."""
    with suppress(OSError):  # /proc may be hidden: it is a courtesy
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(name[:15], encoding="ascii")
