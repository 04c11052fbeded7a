"""Keeps the daemon's threads, a fixed number with names. A bug in one ends the process, since all state is on disk."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog

from walsyncd.file_calls import FILE_CALLS, ThreadAbandonedError

_log = structlog.get_logger()


class Supervisor:
    """Starts threads and waits for the first reason to stop: a request, or a crash."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._targets: dict[threading.Thread, Callable[[], None]] = {}
        self._calls: list[str] = []
        self.crash: BaseException | None = None

    def start(self, name: str, target: Callable[[], None]) -> threading.Thread:
        """Run ``target`` in a thread of its own, and return that thread."""
        thread = threading.Thread(target=self._guarded, args=(name, target), name=name, daemon=True)
        self._threads.append(thread)
        self._targets[thread] = target
        thread.start()
        return thread

    def owns(self, ident: int) -> bool:
        """Whether this thread is one of those that were started here."""
        return any(thread.ident == ident for thread in self._threads)

    def replace(self, ident: int) -> None:
        """Start another thread in the place of one that was abandoned (``walsyncd.file_calls``)."""
        lost = next(thread for thread in self._threads if thread.ident == ident)
        self._threads.remove(lost)
        self.start(lost.name, self._targets.pop(lost))

    def crashed(self, error: BaseException) -> None:
        """Report that the calling thread met a bug, or damage to our own state, after which the process must end."""
        if error is self.crash:  # the error was reported where it was found, and ends the thread now
            return
        _log.critical("thread_crashed", thread=threading.current_thread().name, exc_info=error)
        with self._condition:
            if self.crash is None:
                self.crash = error
            self._condition.notify_all()

    def call(self, what: str) -> None:
        """Make ``wait`` return ``what``. This is safe in every thread, that of a signal handler included."""
        with self._condition:
            self._calls.append(what)
            self._condition.notify_all()

    def wait(self, timeout_s: float | None = None) -> str | None:
        """Return the next call, "crash" after a crash, or None after ``timeout_s``."""
        with self._condition:
            self._condition.wait_for(lambda: self._calls or self.crash is not None, timeout_s)
            if self.crash is not None:
                return "crash"
            return self._calls.pop(0) if self._calls else None

    def join(self, timeout_s: float, *, only: str = "") -> list[str]:
        """Wait for all threads to end, or for those with one name, up to ``timeout_s`` for each.

        Returns the names of all that still run.
        """
        for thread in self._threads:
            if only in {"", thread.name}:
                thread.join(timeout_s)
        return [thread.name for thread in self._threads if thread.is_alive()]

    def _guarded(self, name: str, target: Callable[[], None]) -> None:
        name_thread(name)
        try:
            target()
        except ThreadAbandonedError:  # its call has returned after all, and another thread is in its place
            FILE_CALLS.ended(threading.get_ident())
        except BaseException as error:  # noqa: BLE001 - the only such place: any exception here ends the process
            self.crashed(error)


def name_thread(name: str) -> None:
    """Show the calling thread in ``ps -L`` and ``top -H`` under this name, cut to the kernel's 15 bytes."""
    with suppress(OSError):  # /proc may be hidden, and the name is only for people
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(name[:15], encoding="ascii")
