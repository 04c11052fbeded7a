"""When a database's restore is rehearsed next.

Time is divided into spans of ``interval_ms``, which begin at a moment of the database's own (a hash of its name). So
the drills of many databases spread over the whole interval, and a restart of the daemon does not move them. Each span
has one drill. If a drill's moment passed while no daemon ran, the drill is due after the start, up to an hour later by
the same hash, so that overdue drills do not all run at once. A last drill that lies ahead was noted while the clock
was wrong. It says nothing, so the drill is due after the start, too: otherwise there would be none until that date.
"""

from __future__ import annotations

import hashlib

from walsyncd.core.stored.moment import CLOCK_OFF_MS

LATE_SPREAD_MS = 3_600_000  # overdue drills spread over that time after a start


def next_drill_ms(name: str, *, interval_ms: int, last_ms: int, running_ms: int, now_ms: int) -> int:
    """Return the next moment after the last drill (or the database's beginning) at ``last_ms``.

    All times are in ms since 1970, but ``running_ms`` is for how long the daemon has run. That counts by a clock that
    nobody sets, so when it started is as true as ``now_ms``. No moment is later than in one interval.
    """
    started_ms = now_ms - running_ms
    fraction = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64
    offset_ms = int(fraction * interval_ms)
    due_ms = ((last_ms - offset_ms) // interval_ms + 1) * interval_ms + offset_ms
    is_ahead = last_ms > now_ms + CLOCK_OFF_MS
    if due_ms > started_ms and not is_ahead:
        return min(due_ms, now_ms + interval_ms)
    return started_ms + int(fraction * min(interval_ms, LATE_SPREAD_MS))
