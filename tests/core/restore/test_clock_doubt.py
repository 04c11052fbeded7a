"""Tests of times that were taken while a clock was ahead. They are found by when the store received the objects."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from walsyncd.core.restore.clock_doubt import DoubtfulSpan, TimedObject, doubtful_spans
from walsyncd.core.stored.moment import CLOCK_OFF_MS

NOON_MS = 1_795_953_600_000
DAY_MS = 86_400_000


def at(number: int, time_ms: int, *, stored_ms: int | None = None) -> TimedObject:
    """Return an object that the store received a second after its commit, unless another time is given."""
    return TimedObject((1, number), time_ms, time_ms + 1000 if stored_ms is None else stored_ms)


def test_times_of_a_right_clock_are_trusted() -> None:
    """Times are trusted even if an outage delayed the upload, or if the clocks differ by some minutes."""
    objects = [at(1, NOON_MS), at(2, NOON_MS + 1, stored_ms=NOON_MS + DAY_MS), at(3, NOON_MS + 2, stored_ms=NOON_MS)]
    assert doubtful_spans(objects) == []
    assert doubtful_spans([at(1, NOON_MS + CLOCK_OFF_MS, stored_ms=NOON_MS)]) == []
    assert doubtful_spans([]) == []


def test_a_clock_that_was_ahead_makes_a_span() -> None:
    """The span goes from the last trusted time to the next one. A restore may ask for its ends."""
    objects = [
        at(1, NOON_MS),
        at(2, NOON_MS + DAY_MS, stored_ms=NOON_MS + 5000),
        at(3, NOON_MS + DAY_MS, stored_ms=NOON_MS + 9000),
        at(4, NOON_MS + DAY_MS + 7, stored_ms=NOON_MS + DAY_MS + 8),
    ]
    (span,) = doubtful_spans(reversed(objects))
    assert span == DoubtfulSpan(NOON_MS, NOON_MS + DAY_MS + 7, DAY_MS - 5000, objects[2])
    assert [span.holds(ms) for ms in (NOON_MS, NOON_MS + 1, NOON_MS + DAY_MS + 6, NOON_MS + DAY_MS + 7)] == [
        False,
        True,
        True,
        False,
    ]


def test_a_span_at_an_end_is_open() -> None:
    """The time after an open end may be anything, and so may the time before an open beginning."""
    late = at(1, NOON_MS + DAY_MS, stored_ms=NOON_MS)
    (span,) = doubtful_spans([late])
    assert (span.first_ms, span.last_ms) == (None, None)
    assert span.holds(0)
    assert span.holds(NOON_MS + 9 * DAY_MS)


@given(
    st.lists(st.tuples(st.integers(0, 5_000_000), st.integers(0, 900_000)), max_size=30),
    st.integers(0, 30),
    st.integers(CLOCK_OFF_MS * 2 + 900_000, DAY_MS),
)
def test_no_moment_of_a_clock_that_was_ahead_is_believed(
    commits: list[tuple[int, int]], wrong: int, ahead_ms: int
) -> None:
    """From one commit on the clock is ahead for two of them. The times that are shown never go back."""
    objects, shown_ms = [], 0
    truth = sorted(NOON_MS + each for each, _ in commits)
    for number, true_ms in enumerate(truth):
        is_wrong = wrong <= number < wrong + 2
        shown_ms = max(shown_ms, true_ms + (ahead_ms if is_wrong else 0))
        objects.append(TimedObject((1, number + 1), shown_ms, true_ms + commits[number][1]))
    spans = doubtful_spans(objects)
    for number, true_ms in enumerate(truth):
        found = [each for each, shown in enumerate(objects) if shown.time_ms <= true_ms]
        is_right = bool(found) and truth[found[-1]] == true_ms
        assert is_right or any(span.holds(true_ms) for span in spans), number


def test_times_that_fall_tell_of_a_clock_that_was_ahead() -> None:
    """Falling times show it even if the store's times reveal nothing.

    Times later than the one to which they fall are doubtful.
    """
    objects = [
        at(1, NOON_MS),
        at(2, NOON_MS + 7, stored_ms=0),
        at(3, NOON_MS + 5_000, stored_ms=0),
        at(4, NOON_MS + DAY_MS, stored_ms=0),
        at(5, NOON_MS + 4_000, stored_ms=0),
        at(6, NOON_MS + 9_000, stored_ms=0),
    ]
    (span,) = doubtful_spans(objects)
    assert span == DoubtfulSpan(NOON_MS + 7, NOON_MS + 4_000, DAY_MS - 4_000, objects[3])
    assert doubtful_spans(objects[:4]) == []


def test_times_that_fall_by_less_than_clocks_may_differ_tell_nothing() -> None:
    """The clocks of two machines that wrote one after the other may differ by seconds."""
    assert doubtful_spans([at(1, NOON_MS), at(2, NOON_MS - CLOCK_OFF_MS)]) == []


def test_a_commit_with_a_time_of_its_own_after_a_span_can_be_asked_for() -> None:
    """The commit is in the object after the span.

    A commit that repeats the doubtful time was seen at an unknown time.
    """
    wrong, right = at(2, NOON_MS + DAY_MS, stored_ms=NOON_MS), at(5, NOON_MS + DAY_MS + 9)
    (span,) = doubtful_spans([at(1, NOON_MS), wrong, right])
    assert span.ends_before((1, 4), NOON_MS + DAY_MS + 3)
    assert not span.ends_before((1, 3), NOON_MS + DAY_MS)
    assert not span.ends_before((1, 2), NOON_MS + DAY_MS)
