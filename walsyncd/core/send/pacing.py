"""The token bucket that batches a busy database's uploads and sends a quiet database's uploads at once.

One token is one object. One token is added per ``interval_ms``, up to ``BURST``, so that

    objects sent within any span of time  ≤  BURST + span / interval_ms

The mean is one object per interval, and a month's bill follows the mean. Commits that are more than an interval apart
never wait. The level is kept in the journal, so a restart does not allow a new burst.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

BURST = 10.0  # DESIGN section 7: commits of one user's click are sent one by one, commits of a bulk load are not


@dataclass(frozen=True, slots=True)
class Bucket:
    """``level`` tokens (0 to ``BURST``) at the moment ``at_ms`` of some clock."""

    level: float
    at_ms: float


def refill(bucket: Bucket, *, now_ms: float, interval_ms: float) -> Bucket:
    """Return the bucket at ``now_ms``. A clock that went back adds no tokens and removes none."""
    if interval_ms <= 0:
        return Bucket(BURST, now_ms)
    gained = max(0.0, now_ms - bucket.at_ms) / interval_ms
    return Bucket(min(BURST, bucket.level + gained), now_ms)


def take(bucket: Bucket, *, now_ms: float, interval_ms: float) -> Bucket | None:
    """Return the bucket with one token less, or None if it has no whole token yet."""
    filled = refill(bucket, now_ms=now_ms, interval_ms=interval_ms)
    return Bucket(filled.level - 1.0, now_ms) if filled.level >= 1.0 else None


def due_ms(bucket: Bucket, *, interval_ms: float) -> float:
    """Return the moment from which ``take`` succeeds. The moment may be in the past."""
    if bucket.level >= 1.0 or interval_ms <= 0:
        return bucket.at_ms
    moment = bucket.at_ms + (1.0 - bucket.level) * interval_ms
    # Rounding must not wake the waiter slightly too early, again and again.
    while take(bucket, now_ms=moment, interval_ms=interval_ms) is None:
        moment = math.nextafter(moment, math.inf) + 0.001
    return moment
