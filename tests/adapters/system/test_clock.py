"""Tests of the clocks."""

from __future__ import annotations

import time

from walsyncd.adapters.system.clock import boot_ms, monotonic_ms, wall_ms


def test_both_are_milliseconds() -> None:
    """Each clock lies between two readings of the kernel's own."""
    before, monotonic_before = time.time(), time.monotonic()
    wall, monotonic = wall_ms(), monotonic_ms()
    assert before * 1000 - 1 <= wall <= time.time() * 1000
    assert monotonic_before * 1000 - 1 <= monotonic <= time.monotonic() * 1000


def test_the_boots_clock_goes_on_with_the_monotonic_one() -> None:
    """The boot clock counts suspended time, too, so it is never behind."""
    before = boot_ms()
    assert monotonic_ms() <= boot_ms()
    assert before <= boot_ms()
