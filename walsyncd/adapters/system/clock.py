"""This machine's clocks, in milliseconds.

Code whose clock a test sets takes these functions as values named ``wall_ms`` and ``monotonic_ms``.

The wall clock is for times that are stored or shown. It can be set, forward and back. The monotonic clock is for
durations and deadlines.
"""

from __future__ import annotations

import time


def wall_ms() -> int:
    """Return the milliseconds since 1970 by the wall clock."""
    return time.time_ns() // 1_000_000


def boot_ms() -> int:
    """Return the milliseconds since this boot began, including the time in which the machine was suspended."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def monotonic_ms() -> int:
    """Return the milliseconds since some moment of this boot."""
    return time.monotonic_ns() // 1_000_000
