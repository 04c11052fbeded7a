"""The headers of a -wal and its -shm at one moment, read in an order that lets them prove something.

1. Who uses the wal-index, by its DMS lock.
2. Whether the path still names that -shm. The lock of a file that was replaced says nothing about the new file.
3. The header of the wal-index. If a process held the lock before, this header is not one that a crash has left.
4. The header of the WAL, then its size. If the WAL was emptied in between, the header is read again.

All this is one call for the thread that looks for calls that hang (``file_calls``).
"""

from __future__ import annotations

import fcntl
import os
from typing import NamedTuple

from walsyncd.adapters.files.file_lock import lock_in_the_way
from walsyncd.adapters.files.source import DMS_BYTE, LIVENESS_BY_LOCK, Liveness, OpenFile, file_access
from walsyncd.core.sqlite.wal import WAL_HEADER_SIZE
from walsyncd.core.sqlite.walindex import WALINDEX_READ_SIZE


class WalHeaders(NamedTuple):
    """What was read. A header is short if its file is short. Without a -shm the header of the wal-index is empty.

    ``is_named`` is False if the path no longer named the -shm after the lock was queried.
    """

    liveness: Liveness
    is_named: bool
    index_header: bytes
    wal_header: bytes
    wal_bytes: int


def read_wal_headers(wal: OpenFile, shm: OpenFile | None) -> WalHeaders:
    """Read the headers. Raises TransientError or RefusedError."""
    liveness, is_named, index = Liveness.NONE, False, b""
    with file_access("read the headers of", wal.path):
        if shm is not None:
            descriptor = shm.fileno()
            liveness = LIVENESS_BY_LOCK[lock_in_the_way(descriptor, fcntl.F_WRLCK, DMS_BYTE, 1)[0]]
            is_named = shm.is_at_its_path()
            index = os.pread(descriptor, WALINDEX_READ_SIZE, 0)
        descriptor = wal.fileno()
        head = os.pread(descriptor, WAL_HEADER_SIZE, 0)
        size = os.fstat(descriptor).st_size
        if size < len(head):  # the WAL was emptied in between
            head = os.pread(descriptor, size, 0)
    return WalHeaders(liveness, is_named, index, head, size)
