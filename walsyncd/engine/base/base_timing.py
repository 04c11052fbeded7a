"""Decides when the next base of a database is due, by what was stored since the last base, and by the clock."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from walsyncd.adapters.journal.journal import DatabaseRow, ObjectKind, ObjectRow
from walsyncd.core.keep.base_schedule import age_s, is_due_by_work, spread_s
from walsyncd.core.limits import DEFAULT_LIMITS, Limits
from walsyncd.core.stored.layout import ManifestKey, parse_key
from walsyncd.core.stored.position import Position
from walsyncd.engine.follow.followed_database import FollowedDatabase


@dataclass(slots=True)
class _Work:
    """The work of a restore after the newest base, measured by the bytes that were stored since that base.

    What was stored again for a base (``content.epoch_start``) counts as part of that base.
    """

    tracked: FollowedDatabase
    base_bytes: int
    wal_bytes: int


class BaseTiming:
    """Keeps the last base of each database, and counts what was stored since. Any thread may call."""

    def __init__(self, now_ms: Callable[[], int], limits: Limits = DEFAULT_LIMITS) -> None:
        self._now_ms = now_ms
        self._limits = limits
        self._lock = threading.Lock()
        self._taken: dict[int, tuple[Position, int]] = {}
        self._work: dict[int, _Work] = {}

    def adopt(self, tracked: FollowedDatabase, row: DatabaseRow) -> None:
        """Load what an earlier run left: the time of the last base, and what was stored since."""
        key = parse_key(row.base_key) if row.base_key else None
        with self._lock:
            self._work[tracked.row_id] = _Work(tracked, row.base_bytes, row.wal_bytes)
            if isinstance(key, ManifestKey):
                self._work[tracked.row_id].base_bytes += tracked.base.begun_for_base(key.base.epoch, key.base.frame)
            if isinstance(key, ManifestKey) and row.base_ms is not None:
                self._taken[tracked.row_id] = Position(key.generation, key.epoch, key.frame), row.base_ms

    def forget(self, tracked: FollowedDatabase) -> None:
        """Drop a database that is not followed any more."""
        with self._lock:
            self._taken.pop(tracked.row_id, None)
            self._work.pop(tracked.row_id, None)

    def last(self, tracked: FollowedDatabase) -> tuple[Position, int] | None:
        """Return the position from which the last base is consistent, and when it was taken, or None if there is none.

        The time is in milliseconds since 1970.
        """
        with self._lock:
            return self._taken.get(tracked.row_id)

    def taken(self, tracked: FollowedDatabase, position: Position) -> None:
        """Note that a base was taken just now, and that it is consistent from ``position`` on."""
        with self._lock:
            self._taken[tracked.row_id] = position, self._now_ms()

    def begin_work(self, tracked: FollowedDatabase, base_bytes: int) -> None:
        """Begin to count what is stored after a base of so many stored bytes."""
        with self._lock:
            self._work[tracked.row_id] = _Work(tracked, base_bytes, 0)

    def stored(self, row: ObjectRow) -> tuple[FollowedDatabase, float] | None:
        """Note that an object became visible.

        If a restore would now apply so much that a base is worth it, returns the database and in how many seconds its
        next base is due.
        """
        with self._lock:
            work, taken = self._work.get(row.database_id), self._taken.get(row.database_id)
            if work is None or taken is None or row.kind is not ObjectKind.SEGMENT:
                return None
            work.wal_bytes += row.size - work.tracked.base.begun_for_base(row.epoch, row.first - 1)
            wait_s = self._limits.base_work_pause_s - age_s(taken[1], self._now_ms())
            return (work.tracked, max(0.0, wait_s)) if self._is_worth_it(work) else None

    def left_s(self, tracked: FollowedDatabase, interval_s: float | None = None) -> float | None:
        """Return in how many seconds the next base is due by the clock. Returns None if there was none yet.

        The result is negative if the base is late. ``interval_s`` takes the place of the configured interval.
        """
        taken = self.last(tracked)
        if taken is None:
            return None
        interval_s = tracked.spec.snapshot_interval_s if interval_s is None else interval_s
        return spread_s(interval_s, tracked.row_id) - age_s(taken[1], self._now_ms())

    def is_due(self, tracked: FollowedDatabase) -> bool:
        """Whether the next base is due. The first one always is."""
        left_s = self.left_s(tracked)
        with self._lock:
            work = self._work.get(tracked.row_id)
            return left_s is None or left_s <= 0 or (work is not None and self._is_worth_it(work))

    def _is_worth_it(self, work: _Work) -> bool:
        return is_due_by_work(
            wal_bytes=work.wal_bytes,
            base_bytes=work.base_bytes,
            ratio=work.tracked.spec.snapshot_wal_ratio,
            bytes_min=self._limits.base_work_bytes,
        )
