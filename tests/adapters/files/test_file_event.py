"""Which events of counted writes are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from walsyncd.adapters.files.file_event import Event, Kind, add_counted
from walsyncd.adapters.files.source import Role

EVENTS = {
    "J": Event(Path("/a"), Role.JOURNAL, Kind.MODIFY),
    "+": Event(Path("/a"), Role.JOURNAL, Kind.COUNTED),
    "D": Event(Path("/a"), Role.DATABASE, Kind.MODIFY),
    "j": Event(Path("/b"), Role.JOURNAL, Kind.MODIFY),
}


@pytest.mark.parametrize(
    ("events", "kept"),
    [
        ("J+", "J+"),
        ("J+J+", "J+J+"),
        ("J+J+J+", "J+J+"),
        ("J+J+J+J+", "J+J+"),
        ("J+J+J+D", "J+J+D"),
        ("J+J+DJ+J+J+DJ+", "J+J+DJ+J+DJ+"),
        ("J+J+j+", "J+J+j+"),
        ("DJDJ+", "DJDJ+"),
    ],
)
def test_more_than_two_counted_writes_in_a_row_are_two(events: str, kept: str) -> None:
    """Nothing else is left out."""
    found: list[Event] = []
    for letter in events:
        if letter == "+":
            add_counted(found, EVENTS["+"])
        else:
            found.append(EVENTS[letter])
    assert found == [EVENTS[letter] for letter in kept]
