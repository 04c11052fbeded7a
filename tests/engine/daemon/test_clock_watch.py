"""Whether this machine's clock agrees with the store's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from walsyncd.engine.daemon.clock_watch import ClockWatch

NOW_MS = 1_800_000_000_000


def watch(store_ms: list[int | None]) -> ClockWatch:
    """A clock beside a store whose last answer had this time."""
    storage = SimpleNamespace(clock_ms=lambda: store_ms[0])
    return ClockWatch(lambda: cast("Any", [storage]), lambda: NOW_MS)


@pytest.mark.parametrize("off_ms", [-300_000, 0, 1_000, 300_000])
def test_clocks_that_differ_by_minutes_agree(off_ms: int) -> None:
    """As far as deletions go."""
    clock = watch([NOW_MS + off_ms])
    assert clock.words() == ""
    assert clock.ahead_s() == -off_ms / 1000


def test_a_store_without_a_clock_agrees_with_every_clock() -> None:
    """A folder has none but ours."""
    clock = watch([None])
    assert (clock.ahead_s(), clock.words()) == (0.0, "")


def test_of_several_stores_the_one_that_differs_most_counts() -> None:
    """In either direction."""
    stores = [SimpleNamespace(clock_ms=lambda off=off: NOW_MS + off) for off in (1_000, 500_000, -400_000)]
    assert ClockWatch(lambda: cast("Any", stores), lambda: NOW_MS).ahead_s() == -500


def test_a_clock_that_is_off_is_said_once_with_its_direction() -> None:
    """For as long as it is off; when it is off again it is said again."""
    store_ms: list[int | None] = [NOW_MS - 86_400_000]
    clock = watch(store_ms)
    with capture_logs() as lines:
        clock.compare()
        clock.compare()
        assert "86400 s ahead of the store's" in clock.words()
        store_ms[0] = NOW_MS + 86_400_000
        assert "86400 s behind the store's" in clock.words()
        store_ms[0] = NOW_MS
        clock.compare()
        assert clock.words() == ""
        store_ms[0] = NOW_MS + 86_400_000
        clock.compare()
    said = [line["ahead_s"] for line in lines if line["event"] == "clock_differed"]
    assert said == [86_400, -86_400]
