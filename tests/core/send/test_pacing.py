"""Tests of the token bucket: its mean, its burst, and that a sparse commit never waits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from walsyncd.core.send.pacing import BURST, Bucket, due_ms, refill, take

FULL = Bucket(BURST, 0.0)
intervals = st.floats(1.0, 100_000.0)
gaps = st.lists(st.floats(0.0, 50_000.0), max_size=200)


@given(gaps, intervals)
def test_no_span_has_more_than_the_burst_and_its_share(waits: list[float], interval_ms: float) -> None:
    """The number of objects sent within any span is at most burst + span / interval."""
    bucket, now_ms, sent = FULL, 0.0, []
    for wait_ms in waits:
        now_ms += wait_ms
        taken = take(bucket, now_ms=now_ms, interval_ms=interval_ms)
        if taken is not None:
            bucket = taken
            sent.append(now_ms)
    for index, first in enumerate(sent):
        span_ms = sent[-1] - first
        assert len(sent) - index <= BURST + span_ms / interval_ms + 1e-6


@given(st.lists(st.floats(1.0, 3.0), max_size=50), intervals)
def test_sparse_commits_never_wait(factors: list[float], interval_ms: float) -> None:
    """Commits that come at most once per interval always find a token, even in a bucket that was empty at first."""
    bucket, now_ms = Bucket(1.0, 0.0), 0.0
    for factor in [0.0, *factors]:
        now_ms += factor * interval_ms * (1 + 1e-9)
        taken = take(bucket, now_ms=now_ms, interval_ms=interval_ms)
        assert taken is not None
        bucket = taken


@given(st.floats(0.0, BURST), st.floats(0, 1e12), intervals)
def test_at_the_due_moment_there_is_a_token(level: float, at_ms: float, interval_ms: float) -> None:
    """A sender that waits until then need not wait again, and does not wait an interval longer than needed."""
    bucket = Bucket(level, at_ms)
    due = due_ms(bucket, interval_ms=interval_ms)
    assert take(bucket, now_ms=due, interval_ms=interval_ms) is not None
    assert due - at_ms <= max(0.0, 1.0 - level) * interval_ms + 1.0


@given(st.floats(0.0, BURST), st.floats(0, 1e12), st.floats(0, 1e12), intervals)
def test_a_clock_that_goes_back_neither_gives_nor_takes(
    level: float, at_ms: float, back_ms: float, interval_ms: float
) -> None:
    """The level stays, and the bucket fills from there."""
    filled = refill(Bucket(level, at_ms), now_ms=at_ms - back_ms, interval_ms=interval_ms)
    assert filled == Bucket(level, at_ms - back_ms)


def test_without_an_interval_the_bucket_is_always_full() -> None:
    """An interval of 0 means no pacing."""
    assert take(Bucket(0.0, 5.0), now_ms=5.0, interval_ms=0.0) == Bucket(BURST - 1, 5.0)
    assert due_ms(Bucket(0.0, 5.0), interval_ms=0.0) == 5.0
