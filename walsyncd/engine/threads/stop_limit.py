"""Ends the process if a stop takes too long, because a file system does not answer.

Python runs a signal's handler in the main thread alone, between two of its steps. If that thread waits in a system call
on our own state directory, as it can on a dead NFS mount or a disk that is stuck, no handler ever runs. So the number
of each signal is also written to a pipe, by the interpreter and at once (``signal.set_wakeup_fd``). A thread that uses
no file reads the pipe.

Nothing is lost when the process ends like this. As after a kill, the next start continues with what is on disk.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Collection
from typing import Self

import structlog

from walsyncd import log

MARGIN_S = 60.0  # added to the configured time for shipping, for requests in flight and a busy machine
FLUSH_S = 1.0
_READ_SIZE = 64

_log = structlog.get_logger()


class StopLimit:
    """Watches for ``signals`` while its context lasts, in the main thread. ``limit_s`` is called when one arrives."""

    def __init__(self, signals: Collection[int], limit_s: Callable[[], float], *, exit_code: int) -> None:
        self._signals = frozenset(signals)
        self._limit_s = limit_s
        self._exit_code = exit_code
        self._ended = threading.Event()
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)

    def __enter__(self) -> Self:
        self._before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._run, name="stop limit", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._ended.set()
        signal.set_wakeup_fd(self._before)
        os.close(self._writing)  # ends the thread's read
        self._thread.join()
        os.close(self._reading)

    def _run(self) -> None:
        while numbers := os.read(self._reading, _READ_SIZE):
            if not self._signals.isdisjoint(numbers):
                break
        else:
            return
        limit_s = self._limit_s()
        if self._ended.wait(limit_s):
            return
        _log.critical(
            "stop_abandoned",
            seconds=limit_s,
            remedy="a file system does not answer, probably the state directory's; the next start continues from it",
        )
        log.flush(FLUSH_S)
        os._exit(self._exit_code)
