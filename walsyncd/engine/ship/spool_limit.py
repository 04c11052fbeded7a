"""The spool is bounded.

While storage answers, a full spool makes the follower wait: what it has not read yet stands in the WALs. While storage
is away, the oldest promise wins, which is the application's disk: the database that has the most in the spool loses
all of that, loudly; its generation ends, and another begins when storage is back. Nothing is ever dropped one by
one: what is in storage stays whole up to its last position.

A disk that is short (``adapters.journal.state_disk``) bounds the spool more narrowly than the configuration does, to
``SHORT_SPOOL_BYTES``: enough for following to go on with what storage takes, and no more of the application's disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from walsyncd.adapters.journal.journal import Journal
from walsyncd.config import format_size
from walsyncd.core.follow.gap import Gap, GapKind

SHORT_SPOOL_BYTES = 1 << 20  # a second of a busy database
CHECK_SHARE = 50  # summing up the spool may take one part in so many of the time


class SpoolLimit:
    """Holds the spool to ``bytes_max``, the configuration's ``spool_bytes_max``."""

    def __init__(self, journal: Journal, bytes_max: int, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._journal = journal
        self.bytes_max = bytes_max
        self._monotonic_s = monotonic_s
        self._next_s = 0.0
        self._held = 0
        self._missing = 0

    def is_full(self) -> bool:
        """Whether nothing more should be spooled for now."""
        now_s = self._monotonic_s()
        if now_s >= self._next_s:
            self._held = self._journal.spool_bytes()
            self._missing = self._journal.disk.missing_bytes()
            self._next_s = now_s + CHECK_SHARE * (self._monotonic_s() - now_s)
        return self._held >= self._limit(self._missing)

    def _limit(self, missing: int) -> int:
        return min(self.bytes_max, SHORT_SPOOL_BYTES) if missing else self.bytes_max

    def giving_way(self, is_stuck: Callable[[int], bool] = lambda _database_id: True) -> dict[int, Gap]:
        """The row ids of databases whose spool has to go to come below the limit, and the reason to be given.

        Only those that ``is_stuck``: the storage of the others takes what they have.
        """
        disk = self._journal.disk
        held, missing = self._journal.spool_bytes(), disk.missing_bytes()
        disk.give_reserve()  # to drop something takes room in the journal
        why = "the disk under the state directory is full"
        if not missing:
            why = f"the spool reached its limit of {format_size(self.bytes_max)}"
        dropped: dict[int, Gap] = {}
        for row in sorted(self._journal.databases(), key=lambda row: row.spooled_bytes, reverse=True):
            if held < self._limit(missing) or not row.spooled_bytes:
                break
            if not is_stuck(row.id):
                continue
            held -= row.spooled_bytes
            missing = max(0, missing - row.spooled_bytes)
            text = "{why}; {bytes} bytes that waited for storage were dropped"
            dropped[row.id] = Gap.of(GapKind.SPOOL, text, why=why, bytes=row.spooled_bytes)
        self._next_s = 0.0
        return dropped
