"""Tests of walsyncd.core.content.cleared_doubt: what a scan must have seen before a doubt is cleared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from walsyncd.core.content.bridge_passes import BridgePasses, LastVersions
from walsyncd.core.content.cleared_doubt import DOUBTS, ScannedFile, clears_doubt
from walsyncd.core.follow.decision import Cursor
from walsyncd.core.follow.gap import GapKind

PAGE_SIZE = 4096
AT = Cursor((7, 8), None, 3, (9, 10))
SAME = ScannedFile(PAGE_SIZE, 10, np.empty(0, np.uint32), 10, map_has_more=False)


def found(*pages: int, is_whole: bool = True) -> LastVersions:
    numbers = np.array(pages, np.uint32)
    return LastVersions(np.arange(len(pages)), numbers, 10 if pages else None, is_whole)


@pytest.mark.parametrize("now", [None, Cursor((1, 2), None, 0, (0, 0))])
@pytest.mark.parametrize("old", [None, AT])
def test_without_frames_the_file_alone_says_it(old: Cursor | None, now: Cursor | None) -> None:
    """If no WAL holds a commit now, the file alone clears the doubt, whatever the WAL held at the position."""
    assert clears_doubt(old, now, found(), SAME)


def test_frames_that_were_shipped_are_no_others() -> None:
    """A WAL that holds exactly what it held at the position has no other frames."""
    assert clears_doubt(AT, AT, found(2, 5), SAME)


@pytest.mark.parametrize(
    "now", [replace(AT, frames=4), replace(AT, frames=2), replace(AT, salts=(8, 8)), replace(AT, chain=(9, 11))]
)
def test_other_frames_are_bridged_though_no_page_differs(now: Cursor) -> None:
    """Nobody compared what the first of these frames did to a page that the last one wrote."""
    assert not clears_doubt(AT, now, found(2, 5), SAME)
    assert not clears_doubt(None, now, found(2, 5), SAME)


def test_a_page_that_differs_is_shipped_unless_it_is_past_the_size() -> None:
    """A file may be longer than its database."""
    assert not clears_doubt(AT, None, found(), replace(SAME, differing=np.array([10], np.uint32)))
    assert clears_doubt(AT, None, found(), replace(SAME, pages=12, differing=np.array([11, 12], np.uint32)))


def test_a_page_that_is_not_there_is_no_page_that_is_the_same() -> None:
    """A page that is not in the file is not counted as equal.

    If a file was cut, all its pages may be equal, and the doubt stays unless frames hold the rest.
    """
    assert not clears_doubt(AT, None, found(), replace(SAME, pages=8))
    assert not clears_doubt(AT, AT, found(2, 9), replace(SAME, pages=8))
    assert clears_doubt(AT, AT, found(2, 9, 10), replace(SAME, pages=8))


def test_the_lock_page_is_never_there() -> None:
    """The lock page is never in the map. If the file ends before the lock page, nothing is missing."""
    lock = 0x40000000 // PAGE_SIZE + 1
    assert clears_doubt(AT, None, found(), replace(SAME, pages=lock - 1, size=lock))


def test_a_map_of_a_larger_database_is_no_map_of_this_one() -> None:
    """The map still has pages past the new size. The replica has them, and the database does not."""
    assert not clears_doubt(AT, None, found(), replace(SAME, map_has_more=True))


def test_a_pass_over_some_pages_is_not_enough() -> None:
    """The other pages may have changed since they were read."""
    assert not clears_doubt(AT, None, found(is_whole=False), SAME)


def test_a_pass_is_whole_only_if_no_other_frames_came() -> None:
    """Frames of an incarnation that ended in the pass make another pass, which reads only their pages."""
    passes = BridgePasses(PAGE_SIZE)
    passes.saw_frames(1, np.array([1, 2], np.uint32))
    passes.saw_commit(2)
    passes.begin_pass()
    passes.saw_restart()
    assert passes.end_pass(2, 0) is None
    passes.begin_pass()
    last = passes.end_pass(2, 0)
    assert last is not None
    assert not last.is_whole


def test_a_pass_over_all_pages_is_whole() -> None:
    """Skipped pages are in frames that are still in the WAL."""
    passes = BridgePasses(PAGE_SIZE)
    passes.saw_frames(1, np.array([1, 2, 1], np.uint32))
    passes.saw_commit(2)
    passes.begin_pass()
    last = passes.end_pass(2, 3)
    assert last is not None
    assert last.is_whole
    assert last.pages.tolist() == [1, 2]


def test_what_was_missed_for_certain_is_no_doubt() -> None:
    """Commits that were certainly missed (overwritten frames, pages that a scrub found) are bridged in any case."""
    assert not {GapKind.OVERWRITTEN, GapKind.DIFFERS, GapKind.CHANGED, GapKind.SPOOL} & DOUBTS
