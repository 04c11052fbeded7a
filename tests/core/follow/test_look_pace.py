"""Tests of walsyncd.core.follow.look_pace: how soon a database is looked at again."""

from __future__ import annotations

from walsyncd.core.follow.look_pace import (
    BUSY_FRAMES,
    BUSY_STREAK_MAX,
    BUSY_STREAK_S,
    FAILURE_DELAY_MAX_S,
    RELOOKS_MAX,
    LookPace,
)


def test_looking_again_doubles_its_pause_and_ends() -> None:
    """The pause is 1, 2, 4 … ms, up to the pause of a slow look. After an event it starts again at the shortest."""
    pace, pauses = LookPace(), []
    while (pause := pace.relook_s(0.0)) is not None:
        pauses.append(pause)
        pace = pace.relooked()
    assert pauses == [0.001 * 2**number for number in range(RELOOKS_MAX)]
    assert pace.woken().relook_s(0.0) == pauses[0]


def test_a_look_waits_for_the_rest_of_a_busy_database() -> None:
    """What was written meanwhile does not shorten the pause after news."""
    assert LookPace(rest_until_s=5.5).relook_s(5.0) == 0.5


def test_a_busy_database_is_looked_at_less_eagerly() -> None:
    """The first news cost no pause, a streak of them some milliseconds; a look without news ends it."""
    pace = LookPace().found(1, 10.0)
    assert pace.rest_until_s == 10.0
    for _ in range(2 * BUSY_STREAK_MAX):
        pace = pace.found(1, 10.0)
    assert pace.rest_until_s == 10.0 + BUSY_STREAK_S * (BUSY_STREAK_MAX - 1)
    assert pace.found(0, 11.0).found(1, 12.0).rest_until_s == 12.0


def test_much_at_once_shortens_the_pauses() -> None:
    """If one look finds much, the pauses become shorter, since the WAL would restart between two looks."""
    busy = LookPace(streak=10)
    assert busy.found(BUSY_FRAMES + 1, 0.0).rest_until_s < busy.found(1, 0.0).rest_until_s


def test_failures_are_tried_again_later_each_time() -> None:
    """The pause grows up to a minute. A success starts again at the shortest."""
    pace, delays = LookPace(), []
    for _ in range(12):
        delays.append(pace.failure_delay_s())
        pace = pace.failed()
    assert delays[:3] == [0.5, 1.0, 2.0]
    assert delays[-1] == FAILURE_DELAY_MAX_S
    assert pace.well().failure_delay_s() == delays[0]
