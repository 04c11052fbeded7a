"""Tests of timelines, which show what is covered and every gap."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from walsyncd.core.restore.timeline import FULL, NONE, SOME, Span, gaps, merged, picture

spans_of = st.lists(st.builds(lambda a, b: Span(min(a, b), max(a, b)), *[st.integers(0, 10_000)] * 2), max_size=8)


def test_gap_in_the_middle() -> None:
    """A long gap is drawn as dots, and a short one is still visible."""
    spans = [Span(0, 400), Span(600, 790), Span(791, 1000)]
    line, bases = picture(spans, [0, 600], 10)
    assert line == "████▒·▒▒██"
    assert bases == "|     |"
    assert gaps(spans) == [Span(400, 600), Span(790, 791)]


def test_single_moment_and_nothing() -> None:
    """A single commit is drawn as a line. If there is no span, all is dots."""
    assert picture([Span(5, 5)], [5], 4)[0][0] == FULL
    assert picture([], [], 4) == (NONE * 4, "")


@given(spans_of, st.integers(1, 60))
def test_every_gap_is_seen(spans: list[Span], width: int) -> None:
    """The line is as wide as asked for, and never all full if there is a gap."""
    found = merged(spans)
    line, bases = picture(found, [span.first_ms for span in found], width)
    assert len(line) == width
    assert len(bases) <= width
    assert bool(gaps(found)) == bool(found and (SOME in line or NONE in line.rstrip(NONE) or len(found) > 1))
    for gap in gaps(found):
        at = min(width - 1, (gap.first_ms - found[0].first_ms) * width // max(1, found[-1].last_ms - found[0].first_ms))
        assert line[at] == SOME


@given(spans_of)
def test_merging_keeps_every_moment(spans: list[Span]) -> None:
    """A moment in any span is in one of the merged spans, which ascend without touching."""
    found = merged(spans)
    for span in spans:
        assert any(each.first_ms <= span.first_ms and span.last_ms <= each.last_ms for each in found)
    assert all(one.last_ms < other.first_ms for one, other in pairwise(found))
