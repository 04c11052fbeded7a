"""Tests of the rate limit that segments and bases share."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from walsyncd.core.send.bandwidth import RateLimit

RATE = 1000.0  # in bytes a second, so a byte takes a millisecond


def test_a_segment_does_not_wait_for_a_part() -> None:
    """A large part delays other parts for a long time, but no segment."""
    line = RateLimit(RATE).part_sent(60_000, now_ms=0.0)
    assert (line.segments_until_ms, line.all_until_ms) == (0.0, 60_000.0)


def test_a_part_waits_for_segments() -> None:
    """Parts of bases get the bandwidth that segments leave."""
    line = RateLimit(RATE).segment_sent(500, now_ms=10.0)
    assert (line.segments_until_ms, line.all_until_ms) == (510.0, 510.0)


def test_a_line_that_was_idle_saves_nothing_up() -> None:
    """After an hour of silence an hour's bytes may not be sent at once."""
    line = RateLimit(RATE).segment_sent(100, now_ms=3_600_000.0)
    assert line.segments_until_ms == 3_600_100.0


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 5000), st.integers(0, 3000)), min_size=1, max_size=50))
def test_all_together_are_never_faster_than_the_limit(bodies: list[tuple[bool, int, int]]) -> None:
    """The limit holds for segments alone, too. The largest part that was under way is at most sent in addition."""
    line, now_ms, sent = RateLimit(RATE), 0.0, 0
    began_ms = None
    for is_segment, size, pause_ms in bodies:
        now_ms = max(now_ms + pause_ms, line.segments_until_ms if is_segment else line.all_until_ms)
        began_ms = now_ms if began_ms is None else began_ms
        line = line.segment_sent(size, now_ms=now_ms) if is_segment else line.part_sent(size, now_ms=now_ms)
        sent += size
        assert line.all_until_ms - began_ms >= sent - 1e-6
        assert line.segments_until_ms <= line.all_until_ms
