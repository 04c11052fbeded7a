"""Tests of positions and generation ids."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walsyncd.core.stored.position import Position, generation_time, is_generation, new_generation, parse_position
from walsyncd.errors import RefusedError, UsageError

NOW = datetime(2026, 11, 22, 10, 56, 0, 123456, tzinfo=UTC)
u32 = st.integers(0, 2**32 - 1)
moments = st.datetimes(datetime(1971, 1, 1), datetime(2285, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001 - timezones=


@given(moment=moments, entropy=u32, epoch=u32, frame=u32)
def test_a_position_comes_back_from_its_text(moment: datetime, entropy: int, epoch: int, frame: int) -> None:
    """``str`` and ``parse_position`` are inverse."""
    position = Position(new_generation(moment, entropy), epoch, frame)
    assert parse_position(str(position)) == position


@given(st.lists(st.builds(Position, st.just("20261122T105600Z-3f9c1a2b"), u32, u32)))
def test_positions_sort_as_text_as_they_sort_as_values(positions: list[Position]) -> None:
    """Positions sort as text as they sort as values, so listings of keys are in order, too."""
    assert sorted(map(str, positions)) == [str(position) for position in sorted(positions)]


@given(now=moments, then=moments, one=u32, other=u32)
def test_a_new_id_is_greater_than_every_known_one_whatever_the_clock_says(
    now: datetime, then: datetime, one: int, other: int
) -> None:
    """The new id is greater even if the clock went back, or does not move."""
    known = new_generation(then, one)
    fresh = new_generation(now, other, known=known)
    assert fresh > known
    assert is_generation(fresh)


def test_an_id_shows_its_beginning_in_utc() -> None:
    """The id shows UTC, whatever time zone the clock was read in."""
    local = NOW.astimezone(timezone(timedelta(hours=5)))
    assert new_generation(local, 0x3F9C1A2B) == "20261122T105600Z-3f9c1a2b"
    assert generation_time("20261122T105600Z-3f9c1a2b") == NOW.replace(microsecond=0)


@pytest.mark.parametrize(
    "text",
    ["", "20261122T105600Z-3f9c1a2b", "20261122T105600Z-3f9c1a2b/1/2", "20261122T105600Z-3f9c1a2b/00000001/0000002A"],
)
def test_what_is_no_position_is_refused_with_an_example(text: str) -> None:
    """The message names the text, and the hint shows the form."""
    with pytest.raises(UsageError, match="is not GENERATION/EPOCH/FRAME") as refused:
        parse_position(text)
    assert repr(text) in refused.value.message
    assert "0000002a" in refused.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "20261322T105600Z-3f9c1a2b",
        "20260230T105600Z-3f9c1a2b",
        "20261122T256100Z-3f9c1a2b",
        "00000000T000000Z-3f9c1a2b",
        "99991231T235959Z-ffffffff",
        "\u0662\u0660261122T105600Z-3f9c1a2b",
        "20261122T105600Z-3F9C1A2B",
        "20261122T105600Z-3f9c1a2b\n",
    ],
)
def test_what_has_no_date_of_ours_is_no_generation(text: str) -> None:
    """Any bucket can contain such a name. The name is foreign, and asking for its time raises nothing."""
    assert not is_generation(text)
    assert generation_time(text).tzinfo is UTC
    with pytest.raises(UsageError):
        parse_position(f"{text}/00000001/0000002a")


def test_no_id_follows_the_last_one() -> None:
    """Nothing can follow the greatest possible id. Only the database whose replica has it reports that."""
    with pytest.raises(RefusedError, match="no later id can be made"):
        new_generation(NOW, 1, known="22851231T000000Z-00000000")
    assert is_generation(new_generation(NOW, 1, known="22851230T235959Z-ffffffff"))
    for year in (1, 1969, 2286, 9999):
        assert is_generation(new_generation(NOW.replace(year=year), 1))
