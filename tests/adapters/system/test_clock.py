"""The clocks."""

from __future__ import annotations

import time

from walsyncd.adapters.system.clock import monotonic_ms, wall_ms


def test_both_are_milliseconds() -> None:
    """Between two readings of the kernel's own."""
    before, monotonic_before = time.time(), time.monotonic()
    wall, monotonic = wall_ms(), monotonic_ms()
    assert before * 1000 - 1 <= wall <= time.time() * 1000
    assert monotonic_before * 1000 - 1 <= monotonic <= time.monotonic() * 1000
