"""Takes a shared lock on one read mark of a wal-index (sqlite.org/walformat.html, 2.3), and never waits for it.

The lock belongs to the open file description of a read-only descriptor. Closing that descriptor releases the lock, and
so does a kill of the process. ``core.follow.backpressure_decision`` says which mark may be locked, and when.
"""

from __future__ import annotations

import fcntl

from walsyncd.adapters.files.file_lock import lock_bytes
from walsyncd.adapters.files.source import OpenFile
from walsyncd.errors import TransientError

_READ0 = 123


def lock_mark(shm: OpenFile, mark: int) -> bool:
    """Lock a read mark. Returns False if another process holds it exclusively. Raises TransientError."""
    return _set(shm, fcntl.F_RDLCK, mark)


def unlock_mark(shm: OpenFile, mark: int) -> None:
    """Release the lock. Raises TransientError."""
    _set(shm, fcntl.F_UNLCK, mark)


def _set(shm: OpenFile, kind: int, mark: int) -> bool:
    assert mark in {2, 3, 4}, mark  # SQLite needs marks 0 and 1 for itself
    try:
        return lock_bytes(shm.fileno(), kind, _READ0 + mark, 1)
    except OSError as error:
        raise TransientError(f"lock a read mark of {shm.path}: {error.strerror}") from error
