"""Tests of drills: each span of a database has one drill, and databases are spread over the interval, whatever restarts
there are.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from walsyncd.core.keep.drill_schedule import LATE_SPREAD_MS, next_drill_ms
from walsyncd.core.stored.moment import CLOCK_OFF_MS

DAY_MS = 86_400_000
NOW_MS = 1_795_344_960_000


def due_ms(name: str, *, last_ms: int = NOW_MS, running_ms: int = NOW_MS, now_ms: int = NOW_MS) -> int:
    """Return when the next of daily drills is due."""
    return next_drill_ms(name, interval_ms=DAY_MS, last_ms=last_ms, running_ms=running_ms, now_ms=now_ms)


NAMES = st.text(min_size=1, max_size=20)


@given(name=NAMES, interval_ms=st.integers(1, 10 * DAY_MS), last_ms=st.integers(0, NOW_MS))
def test_next_one_comes_within_an_interval(name: str, interval_ms: int, last_ms: int) -> None:
    """The next drill comes after the last one, and at most an interval later."""
    next_ms = next_drill_ms(name, interval_ms=interval_ms, last_ms=last_ms, running_ms=NOW_MS, now_ms=NOW_MS)
    assert last_ms < next_ms <= last_ms + interval_ms


@given(name=NAMES, late_ms=st.integers(0, 100 * DAY_MS))
def test_moments_are_the_databases_own(name: str, late_ms: int) -> None:
    """A drill that began late does not move the ones after it."""
    first_ms = next_drill_ms(name, interval_ms=DAY_MS, last_ms=NOW_MS, running_ms=NOW_MS, now_ms=NOW_MS)
    later_ms = next_drill_ms(
        name, interval_ms=DAY_MS, last_ms=NOW_MS + late_ms, running_ms=NOW_MS, now_ms=NOW_MS + late_ms
    )
    assert (later_ms - first_ms) % DAY_MS == 0


def test_many_databases_spread_over_the_interval() -> None:
    """No hour of the day has more than a fifth of a hundred databases."""
    dues = [
        next_drill_ms(f"app-{n}", interval_ms=DAY_MS, last_ms=NOW_MS, running_ms=NOW_MS, now_ms=NOW_MS)
        for n in range(100)
    ]
    hours = [(due_ms - NOW_MS) * 24 // DAY_MS for due_ms in dues]
    assert max(hours.count(hour) for hour in set(hours)) < 20


def test_overdue_ones_do_not_begin_together() -> None:
    """After a month without a daemon the drills spread over its first hour."""
    started_ms = NOW_MS + 30 * DAY_MS
    dues = {
        next_drill_ms(f"app-{n}", interval_ms=DAY_MS, last_ms=NOW_MS, running_ms=0, now_ms=started_ms)
        for n in range(50)
    }
    assert all(started_ms <= each <= started_ms + LATE_SPREAD_MS for each in dues)
    assert max(dues) - min(dues) > LATE_SPREAD_MS // 2


@given(name=NAMES, ahead_ms=st.integers(CLOCK_OFF_MS + 8, 400 * DAY_MS), hours=st.integers(0, 48))
def test_a_drill_that_was_noted_ahead_delays_none(name: str, ahead_ms: int, hours: int) -> None:
    """The clock was wrong, so the next drill is due within an hour of the daemon's start."""
    running_ms = hours * LATE_SPREAD_MS
    found_ms = due_ms(name, last_ms=NOW_MS + ahead_ms, running_ms=running_ms)
    assert NOW_MS - running_ms <= found_ms <= NOW_MS - running_ms + LATE_SPREAD_MS
    assert due_ms(name, last_ms=NOW_MS + ahead_ms, running_ms=running_ms + 7, now_ms=NOW_MS + 7) == found_ms


@given(name=NAMES, behind_ms=st.integers(0, 400 * DAY_MS))
def test_no_moment_is_later_than_in_an_interval(name: str, behind_ms: int) -> None:
    """The next drill is at most an interval away, whatever the clock said at the last drill, and says now."""
    now_ms = NOW_MS - behind_ms
    assert due_ms(name, now_ms=now_ms) <= now_ms + DAY_MS
