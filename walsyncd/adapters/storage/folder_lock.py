"""The lock of a storage folder: a file that is locked (flock) while one small object is written.

Everybody who may open the file can lock it. So only the daemon's user may open it, and every wait has an end.
"""

from __future__ import annotations

import fcntl
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from walsyncd.errors import TransientError

LOCK_S_MAX = 30.0  # the longest wait: other threads and daemons hold the lock for a moment each
_MODE = 0o600
POLL_S = 0.01


class FolderLock:
    """The lock at ``path``. Threads of this process first wait for each other, so that only one of them polls."""

    def __init__(self, path: Path, *, wait_s_max: float = LOCK_S_MAX, poll_s: float = POLL_S) -> None:
        self._path = path
        self._wait_s_max, self._poll_s = wait_s_max, poll_s
        self._threads = threading.Lock()

    @contextmanager
    def held(self, open_file: Callable[[], int]) -> Iterator[None]:
        """Exclude other threads and processes. A crash releases the lock. ``open_file`` opens the lock's file.

        Raises TransientError if the lock is not released in time.
        """
        until_s = time.monotonic() + self._wait_s_max
        if not self._threads.acquire(timeout=self._wait_s_max):
            raise self._error()
        try:
            descriptor = open_file()
            try:
                self._take(descriptor, until_s)
                yield
            finally:
                os.close(descriptor)
        finally:
            self._threads.release()

    def _take(self, descriptor: int, until_s: float) -> None:
        """Lock an open file, until it is closed.

        First remove the right of others to open the file, which an older version may have given them.
        """
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != _MODE:
            with suppress(PermissionError):  # the file of another daemon's user
                os.fchmod(descriptor, _MODE)
        while not _try_lock(descriptor):
            if time.monotonic() > until_s:
                raise self._error()
            time.sleep(self._poll_s)

    def _error(self) -> TransientError:
        return TransientError(
            f"lock {self._path}: another process has held it for {self._wait_s_max:.0f} s",
            hint=f"`fuser {self._path}` shows which process holds it",
        )


def _try_lock(descriptor: int) -> bool:
    """Take the lock unless another one is in the way."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
