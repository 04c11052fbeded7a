"""Positions and generation ids."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walsyncd.core.stored.position import Position, generation_time, is_generation, new_generation, parse_position
from walsyncd.errors import UsageError

NOW = datetime(2026, 11, 22, 10, 56, 0, 123456, tzinfo=UTC)
u32 = st.integers(0, 2**32 - 1)
moments = st.datetimes(datetime(1971, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - timezones=


@given(moment=moments, entropy=u32, epoch=u32, frame=u32)
def test_a_position_comes_back_from_its_text(moment: datetime, entropy: int, epoch: int, frame: int) -> None:
    """``str`` and ``parse_position`` are inverse."""
    position = Position(new_generation(moment, entropy), epoch, frame)
    assert parse_position(str(position)) == position


@given(st.lists(st.builds(Position, st.just("20261122T105600Z-3f9c1a2b"), u32, u32)))
def test_positions_sort_as_text_as_they_sort_as_values(positions: list[Position]) -> None:
    """So does every listing of keys."""
    assert sorted(map(str, positions)) == [str(position) for position in sorted(positions)]


@given(now=moments, then=moments, one=u32, other=u32)
def test_a_new_id_is_greater_than_every_known_one_whatever_the_clock_says(
    now: datetime, then: datetime, one: int, other: int
) -> None:
    """Also when the clock went back, or stands still."""
    known = new_generation(then, one)
    fresh = new_generation(now, other, known=known)
    assert fresh > known
    assert is_generation(fresh)


def test_an_id_shows_its_beginning_in_utc() -> None:
    """Whatever zone the clock was read in."""
    local = NOW.astimezone(timezone(timedelta(hours=5)))
    assert new_generation(local, 0x3F9C1A2B) == "20261122T105600Z-3f9c1a2b"
    assert generation_time("20261122T105600Z-3f9c1a2b") == NOW.replace(microsecond=0)


@pytest.mark.parametrize(
    "text",
    ["", "20261122T105600Z-3f9c1a2b", "20261122T105600Z-3f9c1a2b/1/2", "20261122T105600Z-3f9c1a2b/00000001/0000002A"],
)
def test_what_is_no_position_is_refused_with_an_example(text: str) -> None:
    """The message names the text, the hint the form."""
    with pytest.raises(UsageError, match="is not GENERATION/EPOCH/FRAME") as refused:
        parse_position(text)
    assert repr(text) in refused.value.message
    assert "0000002a" in refused.value.hint
