"""Limits the size of the spool.

While storage answers, a full spool makes the follower wait: what it has not read yet stays in the WALs. During an
outage the first aim is to spare the application's disk: the database that has spooled the most loses what it has
spooled, with an error in the log. When storage is back, the gap is bridged, or another generation begins
(``engine.daemon.full_spool``). What is in storage stays complete up to its last position.

One database must not take the whole spool from the others. The last part of the spool is for databases that have less
than their equal share. A database with more than its share waits while its storage answers. During an outage such a
database does not wait, but it is the first to lose its spool.

When the disk is nearly full (``adapters.journal.state_disk``), the limit is ``SHORT_SPOOL_BYTES`` instead of the
configured one: enough to continue following while storage takes the objects, without using more of the disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from walsyncd.adapters.journal.journal import Journal
from walsyncd.config import format_size
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.limits import DEFAULT_LIMITS

SHORT_SPOOL_BYTES = 1 << 20  # a second of a busy database
RESERVED_PART = 4  # the last quarter is enough for many quiet databases; a busy one may fill the other three
CHECK_S = 0.1  # a disk that other programs fill is noticed this late; it counts as short long before it is full


class SpoolLimit:
    """Limits the spool to ``bytes_max``, the configuration's ``spool_bytes_max``."""

    def __init__(
        self,
        journal: Journal,
        bytes_max: int,
        monotonic_s: Callable[[], float] = time.monotonic,
        *,
        check_share: int = DEFAULT_LIMITS.spool_check_share,
    ) -> None:
        self._journal = journal
        self.bytes_max = bytes_max
        self._monotonic_s, self._check_share = monotonic_s, check_share
        self._next_s = self._calm_until_s = 0.0
        self._spooled = self._held = self._reserved_from = 0
        self._missing = 0
        self._over_share: frozenset[int] = frozenset()

    def is_full(self) -> bool:
        """Whether nothing more should be spooled for now."""
        now_s = self._monotonic_s()
        added = self._journal.bytes_spooled - self._spooled
        if now_s >= self._next_s and (now_s >= self._calm_until_s or self._held + added >= self._reserved_from):
            self._check(now_s)
            self._next_s = now_s + self._check_share * (self._monotonic_s() - now_s)
        return self._held >= self._limit(self._missing)

    def _check(self, now_s: float) -> None:
        """Find out how full the spool is. Far below the limit, only the disk is checked again, after ``CHECK_S``."""
        self._spooled = self._journal.bytes_spooled
        self._missing = self._journal.disk.missing_bytes()
        bytes_max = self._limit(self._missing)
        self._reserved_from = bytes_max - bytes_max // RESERVED_PART
        self._held = self._journal.spool_bytes_at_most()
        if self._held >= self._reserved_from:
            self._held = self._journal.spool_bytes()
        self._over_share = self._find_over_share()
        self._calm_until_s = now_s + (CHECK_S if self._check_share else 0.0)

    def has_too_much(self, database_id: int) -> bool:
        """Whether this database has more than its share while the spool is nearly full, as the last `is_full` found."""
        return database_id in self._over_share

    def _find_over_share(self) -> frozenset[int]:
        bytes_max = self._limit(self._missing)
        if self._held < self._reserved_from:
            return frozenset()
        rows = self._journal.databases()
        spooled = [row for row in rows if row.spooled_bytes]
        sharers = min(len(rows), len(spooled) + 1)  # another database may be the next to have something in the spool
        return frozenset(row.id for row in spooled if row.spooled_bytes * sharers > bytes_max)

    def _limit(self, missing: int) -> int:
        return min(self.bytes_max, SHORT_SPOOL_BYTES) if missing else self.bytes_max

    def giving_way(self, is_stuck: Callable[[int], bool] = lambda _database_id: True) -> dict[int, Gap]:
        """Return the row ids of the databases whose spool must be dropped to get below the limit, with the reason.

        Only databases for which ``is_stuck`` holds are chosen: the storage of the others takes their objects.
        """
        disk = self._journal.disk
        held, missing = self._journal.spool_bytes(), disk.missing_bytes()
        disk.give_reserve()  # dropping rows takes room in the journal
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
        self._next_s = self._calm_until_s = 0.0
        return dropped
