"""When a base is due: by work, or by the clock; never for a database that did not change.

A restore applies all that was stored since a base, so a base is worth taking once that is as much as the base
itself: ``snapshot_wal_ratio``. Many databases that were first copied together come due together; each takes a
little off its interval, by a number of its own, so that they drift apart.
"""

from __future__ import annotations

WORK_BYTES_MIN = 8 << 20  # stored WAL of that size is applied in a second; a tiny database needs no base for less
WORK_PAUSE_S = 300.0  # between two bases by work: each reads the whole file
_SPREAD = 0.1
_GOLDEN = 0.6180339887498949  # its multiples fill the circle evenly, however many there are


def is_due_by_work(*, wal_bytes: int, base_bytes: int, ratio: float) -> bool:
    """Whether so much was stored since a base of ``base_bytes`` (both as stored) that another one is worth it."""
    return wal_bytes > max(WORK_BYTES_MIN, ratio * base_bytes)


def spread_s(interval_s: float, number: int) -> float:
    """The interval of the database with that number: up to a tenth shorter."""
    return interval_s * (1.0 - _SPREAD * (number * _GOLDEN % 1.0))
