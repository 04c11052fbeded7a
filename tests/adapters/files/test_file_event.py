"""Tests of which events of counted writes are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from walsyncd.adapters.files.file_event import COUNTED_MAX, CountedFile, Event, Kind, add_counted
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
    """Of more than two counted writes in a row two are kept. No other event is left out."""
    found: list[Event] = []
    for letter in events:
        if letter == "+":
            add_counted(found, EVENTS["+"])
        else:
            found.append(EVENTS[letter])
    assert found == [EVENTS[letter] for letter in kept]


def test_the_last_write_that_is_counted_says_so() -> None:
    """Writes that were queued before the counting ended have been counted, too."""
    found: list[Event] = []
    file = CountedFile(EVENTS["+"])
    assert [file.take(found) for _ in range(COUNTED_MAX + 2)] == [False] * (COUNTED_MAX - 1) + [True] + [False] * 2
    assert [event.kind for event in found[-4:]] == [Kind.COUNTED, Kind.UNCOUNTED, Kind.COUNTED, Kind.COUNTED]
