"""Tests of walsyncd.engine.read_ahead.ahead_look, on values alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from walsyncd.core.follow.decision import Cursor, DmsHolder, Observation
from walsyncd.core.sqlite.walindex import IndexHeader
from walsyncd.engine.read_ahead.ahead_look import AheadLook, NotReadError, joined

OLD, NEW = (1, 10), (2, 20)
FRAME = 40  # bytes: a frame's header, and a very small page


def index(salts: tuple[int, int], max_frame: int) -> IndexHeader:
    """Return a wal-index header with so many frames."""
    marks = (0, 0, 0, 0, 0)
    return IndexHeader(5, False, 512, max_frame, 3, (0, 0), salts, 0, marks)


def look(after: Cursor, seen: IndexHeader, *extents: tuple[int, bytes]) -> AheadLook:
    """Return a look after a cursor that saw ``seen``."""
    observation = Observation(DmsHolder.LIVE, seen, None, 0)
    return AheadLook(
        after.salts, after.frames, observation, None, observation, extents, 7, 1, 0, 0, ((after.frames, 7),)
    )


def cursor(salts: tuple[int, int], frames: int) -> Cursor:
    return Cursor(salts, None, frames, (0, 0))


def test_where_a_look_continues() -> None:
    """A look continues where it was read, within what it read, and in an incarnation that it saw begin, and nowhere
    else.
    """
    same = look(cursor(OLD, 3), index(OLD, 6))
    assert [frames for frames in range(9) if same.continues(cursor(OLD, frames))] == [3, 4, 5]
    assert not same.continues(cursor(NEW, 3))
    restart = look(cursor(OLD, 3), index(NEW, 2))
    assert [frames for frames in range(9) if restart.continues(cursor(OLD, frames))] == [3]
    assert [frames for frames in range(9) if restart.continues(cursor(NEW, frames))] == [0, 1]


def test_only_what_was_read_is_returned() -> None:
    """The end of what was read counts as the end of the file. A request for anything else is refused."""
    read = look(cursor(OLD, 3), index(OLD, 6), (100, b"abcdef"), (200, b""))
    assert read.pread(102, 3) == b"cde"
    assert read.pread(104, 10) == b"ef"
    assert read.pread(106, 10) == b""
    assert read.pread(200, 24) == b""
    for offset in (99, 107, 201):
        with pytest.raises(NotReadError):
            read.pread(offset, 1)


def test_looks_are_joined_without_a_seam() -> None:
    """Each look begins with the last frame of the one before. The header after it is not repeated."""
    one, two, three, four = (bytes([number]) * FRAME for number in range(1, 5))
    first = look(cursor(OLD, 1), index(OLD, 2), (0, one + two + b"h"))
    second = look(cursor(OLD, 2), index(OLD, 4), (FRAME, two + three + four + b"h"))
    assert second.goes_on(first)
    both = joined([first, replace(second, began_ms=9)])
    assert both.extents == ((0, one + two + three + four + b"h"),)
    assert (both.frames, both.index.max_frame, both.began_ms) == (1, 4, 9)
    assert joined([first]) is first


def test_frames_that_were_written_over_are_joined_with_nothing() -> None:
    """The second look begins with the last frame of the first one, which has changed by then."""
    first = look(cursor(OLD, 1), index(OLD, 2), (0, b"a" * FRAME + b"b" * FRAME))
    hole = look(cursor(OLD, 2), index(OLD, 3), (FRAME, bytes(FRAME) + b"c" * FRAME))
    assert not hole.goes_on(first)


def test_a_restart_is_joined_with_nothing() -> None:
    """The proof of a restart needs the headers of exactly that moment."""
    before, restart = look(cursor(OLD, 1), index(OLD, 2)), look(cursor(OLD, 2), index(NEW, 2))
    after = look(cursor(NEW, 2), index(NEW, 3))
    assert not restart.goes_on(before)
    assert not after.goes_on(restart)
