"""The disk under the state directory: how short it is, and a reserve for the moment when it is full.

Making room takes room: a row that names a spooled body is removed before the body, and SQLite writes a page to remove
a row. So a file of ``RESERVE_BYTES`` is kept beside the journal, which is given up when the disk is full.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

RESERVE_BYTES = 1 << 20  # a few hundred pages: what dropping one database's spool writes
SHORT_SHARE = 20  # a disk is short when less than one part in so many is free …
SHORT_BYTES_MAX = 64 << 20  # … and no more than this: what a busy application writes in a second

LEFT_SHARE = 10  # what has time leaves one part in so many …
LEFT_BYTES_MAX = 1 << 30  # … and at most this: the spool of an outage of some minutes


class StateDisk:
    """The file system of ``state_dir``. Any thread may call; nothing here raises for a disk that is full."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._reserve = state_dir / "reserve"

    def missing_bytes(self) -> int:
        """How much has to be freed until the disk is no longer short; 0: it is not."""
        try:
            found = os.statvfs(self._state_dir)
        except OSError:  # an answer would be a guess
            return 0
        wanted = min(SHORT_BYTES_MAX, found.f_blocks * found.f_frsize // SHORT_SHARE)
        return max(0, wanted - found.f_bavail * found.f_frsize)

    def room_bytes(self) -> int:
        """How much may be taken for a while: what is free beyond a tenth of the disk, or beyond a gigabyte of it."""
        try:
            found = os.statvfs(self._state_dir)
        except OSError:
            return 0
        left = min(LEFT_BYTES_MAX, found.f_blocks * found.f_frsize // LEFT_SHARE)
        return max(0, found.f_bavail * found.f_frsize - left)

    def keep_reserve(self) -> None:
        """Set the reserve aside, if there is room."""
        if self._reserve.exists():
            return
        try:
            descriptor = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        try:
            os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
        except OSError:  # less than that is no help
            self.give_reserve()
        finally:
            os.close(descriptor)

    def give_reserve(self) -> None:
        """Free the reserve: the disk is full."""
        with suppress(OSError):
            self._reserve.unlink(missing_ok=True)
