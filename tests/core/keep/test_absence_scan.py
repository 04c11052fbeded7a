"""Tests of walsyncd.core.keep.absence_scan: small files at once, the others within the hour."""

from __future__ import annotations

from walsyncd.core.keep.absence_scan import AT_ONCE_BYTES, WITHIN_S, scan_delay_s


def test_a_small_file_is_compared_at_once() -> None:
    """A comparison of a small file costs less than deciding about it."""
    assert scan_delay_s("app", AT_ONCE_BYTES) == 0


def test_larger_ones_spread_over_the_hour() -> None:
    """Each larger file has a moment of its own in the hour, which is always the same."""
    delays = [scan_delay_s(f"tenant {number}", AT_ONCE_BYTES + 1) for number in range(1000)]
    assert all(0 <= delay < WITHIN_S for delay in delays)
    quarters = [sum(at <= delay < at + 900 for delay in delays) for at in (0, 900, 1800, 2700)]
    assert min(quarters) > 150
    assert scan_delay_s("app", 1 << 30) == scan_delay_s("app", 1 << 31)
