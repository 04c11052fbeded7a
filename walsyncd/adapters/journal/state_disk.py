"""The disk of the state directory. Measures how short of space it is, and keeps a reserve for when it is full.

Making room takes room: a row that names a spooled body is removed before the body, and SQLite writes pages to do so. So
a file of ``RESERVE_BYTES`` is kept beside the journal. It is deleted when the disk is full.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

RESERVE_BYTES = 1 << 20  # a few hundred pages: what dropping one database's spool writes
SHORT_SHARE = 20  # a disk is short of space when less than one part in this many is free …
SHORT_BYTES_MAX = 64 << 20  # … and at most this: what a busy application writes in a second

LEFT_SHARE = 10  # temporary work leaves one part in this many free …
LEFT_BYTES_MAX = 1 << 30  # … but no more than this: the spool of an outage of some minutes


class StateDisk:
    """The file system of ``state_dir``. Any thread may call its methods. None fails because the disk is full."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._reserve = state_dir / "reserve"

    def missing_bytes(self) -> int:
        """Return how many bytes to free until the disk is not short of space.

        Returns 0 if it is not short of space now.
        """
        try:
            found = os.statvfs(self._state_dir)
        except OSError:  # an answer would be a guess
            return 0
        wanted = min(SHORT_BYTES_MAX, found.f_blocks * found.f_frsize // SHORT_SHARE)
        return max(0, wanted - found.f_bavail * found.f_frsize)

    def room_bytes(self) -> int:
        """Return the bytes that temporary work may use: free space minus 10 % of the disk (at most 1 GiB)."""
        try:
            found = os.statvfs(self._state_dir)
        except OSError:
            return 0
        left = min(LEFT_BYTES_MAX, found.f_blocks * found.f_frsize // LEFT_SHARE)
        return max(0, found.f_bavail * found.f_frsize - left)

    def keep_reserve(self) -> None:
        """Create the reserve if there is room."""
        if self._reserve.exists():
            return
        try:
            descriptor = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        try:
            os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
        except OSError:  # a smaller reserve is of no use
            self.give_reserve()
        finally:
            os.close(descriptor)

    def give_reserve(self) -> None:
        """Delete the reserve: the disk is full."""
        with suppress(OSError):
            self._reserve.unlink(missing_ok=True)
