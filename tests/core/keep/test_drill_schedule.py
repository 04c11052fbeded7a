"""Drills: one in each span of a database's own, spread over the interval, whatever restarts there are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from walsyncd.core.keep.drill_schedule import LATE_SPREAD_MS, next_drill_ms

DAY_MS = 86_400_000
NOW_MS = 1_795_344_960_000

NAMES = st.text(min_size=1, max_size=20)


@given(name=NAMES, interval_ms=st.integers(1, 10 * DAY_MS), last_ms=st.integers(0, NOW_MS))
def test_next_one_comes_within_an_interval(name: str, interval_ms: int, last_ms: int) -> None:
    """After the last one, and not later than an interval after it."""
    due_ms = next_drill_ms(name, interval_ms=interval_ms, last_ms=last_ms, started_ms=0)
    assert last_ms < due_ms <= last_ms + interval_ms


@given(name=NAMES, late_ms=st.integers(0, 100 * DAY_MS))
def test_moments_are_the_databases_own(name: str, late_ms: int) -> None:
    """A drill that began late does not move the ones after it."""
    first_ms = next_drill_ms(name, interval_ms=DAY_MS, last_ms=NOW_MS, started_ms=0)
    later_ms = next_drill_ms(name, interval_ms=DAY_MS, last_ms=NOW_MS + late_ms, started_ms=0)
    assert (later_ms - first_ms) % DAY_MS == 0


def test_many_databases_spread_over_the_interval() -> None:
    """Of a hundred no hour of the day has more than a fifth."""
    dues = [next_drill_ms(f"app-{n}", interval_ms=DAY_MS, last_ms=NOW_MS, started_ms=0) for n in range(100)]
    hours = [(due_ms - NOW_MS) * 24 // DAY_MS for due_ms in dues]
    assert max(hours.count(hour) for hour in set(hours)) < 20


def test_overdue_ones_do_not_begin_together() -> None:
    """After a month without a daemon they spread over its first hour."""
    started_ms = NOW_MS + 30 * DAY_MS
    dues = {next_drill_ms(f"app-{n}", interval_ms=DAY_MS, last_ms=NOW_MS, started_ms=started_ms) for n in range(50)}
    assert all(started_ms <= due_ms <= started_ms + LATE_SPREAD_MS for due_ms in dues)
    assert max(dues) - min(dues) > LATE_SPREAD_MS // 2
