"""Tests of walsyncd.core.follow.overwritten: when the version of the file counts, and when that of the frames."""

from __future__ import annotations

import pytest

from walsyncd.core.follow.decision import Cursor, DmsHolder, Observation
from walsyncd.core.follow.overwritten import Overwritten, copied_back, frames_count_again
from walsyncd.core.sqlite.walindex import IndexHeader

SALTS, OTHER = (1, 2), (2, 7)
CURSOR = Cursor(SALTS, None, 9, (0, 0))


def index(backfilled: int, *, last: int = 9, salts: tuple[int, int] = SALTS) -> IndexHeader:
    return IndexHeader(1, False, 4096, last, 5, (0, 0), salts, backfilled, (0, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("header", "cursor", "frames"),
    [
        (index(4), CURSOR, 4),
        (index(12, last=12), CURSOR, 9),
        (index(4, salts=OTHER), CURSOR, 0),
        (None, CURSOR, 0),
        (index(4), None, 0),
    ],
)
def test_what_is_certainly_in_the_file(header: IndexHeader | None, cursor: Cursor | None, frames: int) -> None:
    """Frames of the same incarnation are in the file if the follower has read them and nBackfill covers them."""
    assert copied_back(header, cursor) == frames


@pytest.mark.parametrize(
    ("holder", "header", "again"),
    [
        (DmsHolder.LIVE, index(9), False),
        (DmsHolder.LIVE, index(9, last=20), False),
        (DmsHolder.LIVE, index(8), True),
        (DmsHolder.LIVE, index(0), True),
        (DmsHolder.LIVE, None, False),
        (DmsHolder.LIVE, index(0, salts=OTHER), False),
        (DmsHolder.NONE, None, True),
        (DmsHolder.SETTING_UP, None, False),
        (DmsHolder.LEAVING, None, False),
    ],
)
def test_when_the_frames_count_again(holder: DmsHolder, header: IndexHeader | None, again: bool) -> None:
    """The frames count after a recovery, or if the next opener will recover the WAL.

    More commits and restarts change nothing.
    """
    assert frames_count_again(Overwritten(SALTS, 9), Observation(holder, header, None, 0)) is again


def test_no_frames_of_this_incarnation_were_written_over() -> None:
    """If no frames of this incarnation were written over, nothing changes before the WAL has ended, even if nobody has
    the database open.
    """
    assert not frames_count_again(Overwritten(SALTS, 0), Observation(DmsHolder.NONE, None, None, 0))
