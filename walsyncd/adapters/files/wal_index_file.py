"""The wal-index of a database that we write to: its header, hash tables and locks (sqlite.org/walformat.html).

Locks, by byte of the -shm:

====  ========  ============================================================================
byte  name      held exclusively by
====  ========  ============================================================================
120   WRITER    a process that appends to the WAL, restarts it, or recovers the index
121   CKPT      a process that copies the WAL back, or recovers the index
122   RECOVER   a process that recovers the index
123   READ0     a process that copies back; shared by readers that use no frames of the WAL
124   READ1     to 127, READ4: a process that restarts the WAL; readers share their mark's lock
128   DMS       a process that sets the index up; shared by every process that uses it
====  ========  ============================================================================

They are taken as locks of the open file description (``file_lock``). The file is read and written with pread and
pwrite, which are coherent with the mappings of others. A truncated file then causes a short read, and not a SIGBUS.
Each pwrite takes and releases the inode's lock, so others see two writes in their order.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from walsyncd.adapters.files.file_lock import lock_bytes, lock_in_the_way
from walsyncd.core.sqlite.walindex import (
    MARK_UNUSED,
    WALINDEX_READ_SIZE,
    IndexHeader,
    format_index_header,
    parse_index_header,
)
from walsyncd.core.sqlite.walindex_hash import BLOCK_BYTES, add_to_block, pieces_of

WRITER, CKPT, RECOVER, READ0, READ1 = 120, 121, 122, 123, 124
MARKS = 5
_DMS = 128
_COPY_SIZE = 48
_BACKFILLED, _MARKS, _ATTEMPTED = 96, 100, 128
_POLL_S = 0.002


class WalIndexFile:
    """An open -shm, for one thread alone. Methods raise OSError."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def close(self) -> None:
        """Close the file, which releases all locks."""
        os.close(self.descriptor)

    def attach(self, wait_s: float) -> bool:
        """Hold DMS, shared, as every connection does.

        An index that nobody uses is emptied first, since it may be stale. Returns False if another process was setting
        the index up all the time.
        """
        return _until(self._attach, wait_s)

    def _attach(self) -> bool:
        held, _ = lock_in_the_way(self.descriptor, fcntl.F_WRLCK, _DMS, 1)
        if held == fcntl.F_UNLCK and lock_bytes(self.descriptor, fcntl.F_WRLCK, _DMS, 1):
            os.ftruncate(self.descriptor, 0)
        return held != fcntl.F_WRLCK and lock_bytes(self.descriptor, fcntl.F_RDLCK, _DMS, 1)

    @contextmanager
    def alone(self, first: int, count: int = 1, *, wait_s: float = 0.0) -> Iterator[bool]:
        """Hold ``count`` lock bytes from ``first`` on exclusively. Yields False if others held them all the time."""
        held = _until(lambda: lock_bytes(self.descriptor, fcntl.F_WRLCK, first, count), wait_s)
        try:
            yield held
        finally:
            if held:
                lock_bytes(self.descriptor, fcntl.F_UNLCK, first, count)

    def header(self) -> IndexHeader | None:
        """Return the header.

        Returns None if the header can't be trusted: it was never written, or a process died while writing it.
        """
        return parse_index_header(os.pread(self.descriptor, WALINDEX_READ_SIZE, 0))

    def publish(self, header: IndexHeader) -> None:
        """Write both copies of the header. Others read the first one first, and trust it only if both are equal."""
        copy = format_index_header(header)
        os.pwrite(self.descriptor, copy, _COPY_SIZE)
        os.pwrite(self.descriptor, copy, 0)

    def enter(self, first: int, page_numbers: list[int]) -> None:
        """Enter frames into the hash tables. Nobody looks at entries past the header's last frame."""
        at = 0
        for block, start, count in pieces_of(first, len(page_numbers)):
            content = bytearray(os.pread(self.descriptor, BLOCK_BYTES, block * BLOCK_BYTES).ljust(BLOCK_BYTES, b"\0"))
            add_to_block(memoryview(content), block, start, page_numbers[at : at + count])
            skipped = WALINDEX_READ_SIZE if block == 0 else 0  # the header may change meanwhile
            self.reserve(block + 1)
            os.pwrite(self.descriptor, memoryview(content)[skipped:], block * BLOCK_BYTES + skipped)
            at += count

    def reserve(self, blocks: int) -> None:
        """Extend the file to at least this many blocks, with room on the disk: readers map it and write their marks."""
        if os.fstat(self.descriptor).st_size < blocks * BLOCK_BYTES:
            os.posix_fallocate(self.descriptor, 0, blocks * BLOCK_BYTES)

    def set_backfilled(self, frame: int, *, attempted: int) -> None:
        """Note how many frames were copied back, and up to which frame copying was ``attempted``."""
        os.pwrite(self.descriptor, struct.pack("=I", attempted), _ATTEMPTED)
        os.pwrite(self.descriptor, struct.pack("=I", frame), _BACKFILLED)

    def set_mark(self, number: int, frame: int) -> None:
        """Set the last frame that the readers look at who share this READ lock.

        Call it only while we hold that lock exclusively.
        """
        os.pwrite(self.descriptor, struct.pack("=I", frame), _MARKS + 4 * number)

    def reset_marks(self, frame: int) -> None:
        """Reset the marks after a recovery: READ1 reads up to ``frame``, the others are unused. Marks in use stay."""
        os.pwrite(self.descriptor, struct.pack("=I", 0), _MARKS)
        for number in range(1, MARKS):
            with self.alone(READ0 + number) as held:
                if held:
                    self.set_mark(number, frame if number == 1 and frame else MARK_UNUSED)

    def safe_frame(self, header: IndexHeader) -> int:
        """Return the last frame that can be copied back.

        Readers whose mark is an earlier frame still need the database without later frames.
        """
        safe = header.max_frame
        for number in range(1, MARKS):
            if header.read_marks[number] >= safe:
                continue
            with self.alone(READ0 + number) as held:
                if held:
                    self.set_mark(number, safe if number == 1 else MARK_UNUSED)
                else:
                    safe = header.read_marks[number]
        return safe


def _until(attempt: Callable[[], bool], wait_s: float) -> bool:
    deadline_s = time.monotonic() + wait_s
    while not attempt():
        if time.monotonic() >= deadline_s:
            return False
        time.sleep(_POLL_S)
    return True
