"""The lock of a folder as storage: a file that is held (flock) for one small object at a time.

Whoever may open the file can hold it, so nobody but the daemon's user may, and a wait for it ends.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from contextlib import suppress
from pathlib import Path

from walsyncd.errors import TransientError

LOCK_S_MAX = 30.0  # the longest wait: other threads and daemons hold the lock for some milliseconds each
_MODE = 0o600
_PAUSE_S = 0.01


def take_lock(descriptor: int, path: Path, *, wait_s_max: float) -> None:
    """Take the lock of an open file, until it is closed. Raises TransientError if another process does not release it.

    Others lose the right to open the file, which an older version may have given them.
    """
    if stat.S_IMODE(os.fstat(descriptor).st_mode) != _MODE:
        with suppress(PermissionError):  # the file of another daemon's user
            os.fchmod(descriptor, _MODE)
    until_s = time.monotonic() + wait_s_max
    while not _try_lock(descriptor):
        if time.monotonic() > until_s:
            raise TransientError(
                f"lock {path}: another process has held it for {wait_s_max:.0f} s",
                hint=f"`fuser {path}` shows which process holds it",
            )
        time.sleep(_PAUSE_S)


def _try_lock(descriptor: int) -> bool:
    """Take the lock unless another one is in the way."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
