"""Tests of the position of a copy that follows, as it is noted beside the copy."""

from __future__ import annotations

import pytest

from walsyncd.core.restore.follow_point import FollowPoint, format_follow_point, parse_follow_point
from walsyncd.core.stored.position import Position
from walsyncd.errors import CorruptError

POINT = FollowPoint(
    "s3://bucket/app.db",
    Position("20261122T105600Z-3f9c1a2b", 1, 7),
    Position("20261122T105600Z-3f9c1a2b", 2, 9),
    1_795_344_960_007,
)


def test_parse_is_the_inverse_of_format() -> None:
    """A formatted position is parsed back."""
    assert parse_follow_point(format_follow_point(POINT)) == POINT


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b'{"format": 2}'])
def test_what_is_none_is_refused(data: bytes) -> None:
    """If the text is not a position, the error says what to do."""
    with pytest.raises(CorruptError, match="how far the copy has come") as caught:
        parse_follow_point(data)
    assert "--force" in caught.value.hint


def test_each_field_is_needed() -> None:
    """If a file was cut short or edited, nothing is guessed."""
    text = format_follow_point(POINT).decode()
    for field in ("replica", "applied", "intended", "time_ms"):
        with pytest.raises(CorruptError):
            parse_follow_point(text.replace(field, "x").encode())
