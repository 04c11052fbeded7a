"""Tests of the wait before a request is sent again: it grows, is capped, and is spread over the whole span."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from walsyncd.core.send.backoff import BASE_S, CAP_S, delay_s


def test_the_span_doubles_up_to_the_cap() -> None:
    """The span is half a second, one, two … up to a minute, and stays there."""
    spans = [delay_s(attempt, fraction=1.0) for attempt in (1, 2, 3, 8, 9, 10_000)]
    assert spans == [BASE_S, 1.0, 2.0, 60.0, CAP_S, CAP_S]


@given(st.integers(1, 10**9), st.floats(0, 1))
def test_the_wait_lies_within_the_span(attempt: int, fraction: float) -> None:
    """The wait is full jitter: from nothing to the whole span, in proportion to the random number."""
    wait = delay_s(attempt, fraction=fraction)
    assert 0 <= wait <= CAP_S
    assert wait == fraction * delay_s(attempt, fraction=1.0)
