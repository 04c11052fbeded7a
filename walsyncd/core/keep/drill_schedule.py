"""When a database's restore is rehearsed next.

Time is divided into spans of ``interval_ms``. A hash of the database's name decides at which moment its spans begin. So
the drills of many databases spread over the whole interval, and a restart of the daemon does not move them. Each span
has one drill. If a drill's moment passed while no daemon ran, the drill is due within an hour after the start. The same
hash decides when, so that overdue drills do not all run at once. If the last drill has a time in the future, the clock
was wrong when that time was noted. The time is ignored, and the next drill is due within an hour after the start, too.
"""

from __future__ import annotations

import hashlib

from walsyncd.core.stored.moment import CLOCK_OFF_MS

LATE_SPREAD_MS = 3_600_000  # overdue drills are spread over this time after a start


def next_drill_ms(name: str, *, interval_ms: int, last_ms: int, running_ms: int, now_ms: int) -> int:
    """Return when the next drill is due, given when the last drill ran. The drill is due within one interval.

    ``last_ms`` is when the last drill ran, or when the database began if none has run yet. ``running_ms`` is for how
    long the daemon has run, by a clock that nobody sets. The other times are in ms since 1970. The daemon's start is
    computed from ``now_ms`` and ``running_ms``, so a clock that was set meanwhile does no harm.
    """
    started_ms = now_ms - running_ms
    fraction = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64
    offset_ms = int(fraction * interval_ms)
    due_ms = ((last_ms - offset_ms) // interval_ms + 1) * interval_ms + offset_ms
    is_ahead = last_ms > now_ms + CLOCK_OFF_MS
    if due_ms > started_ms and not is_ahead:
        return min(due_ms, now_ms + interval_ms)
    return started_ms + int(fraction * min(interval_ms, LATE_SPREAD_MS))
