"""When a database's restore is rehearsed next.

Time is cut into spans of ``interval_ms`` that begin at a moment of the database's own (a hash of its name): so many
databases spread over the whole interval, and no restart moves them. In each span there is one drill. One whose moment
passed while nobody was there is due as soon as somebody is, but not all of them at once: up to an hour later, by the
same hash.
"""

from __future__ import annotations

import hashlib

LATE_SPREAD_MS = 3_600_000  # of overdue drills after a start


def next_drill_ms(name: str, *, interval_ms: int, last_ms: int, started_ms: int) -> int:
    """The next moment after the drill (or the database's beginning) at ``last_ms``; all in ms since 1970."""
    fraction = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64
    offset_ms = int(fraction * interval_ms)
    due_ms = ((last_ms - offset_ms) // interval_ms + 1) * interval_ms + offset_ms
    if due_ms > started_ms:
        return due_ms
    return started_ms + int(fraction * min(interval_ms, LATE_SPREAD_MS))
