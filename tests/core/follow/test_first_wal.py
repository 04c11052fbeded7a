"""Tests of walsyncd.core.follow.first_wal: a WAL that appeared, as a look has seen it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from walsyncd.core.follow.decision import Again, DmsHolder, Observation, cursor_before
from walsyncd.core.follow.first_wal import (
    Accepted,
    FirstDecision,
    FirstFrames,
    FirstSeen,
    NeverUsed,
    NothingYet,
    PairHistory,
    ReadFirst,
    Repeat,
    Search,
    accept,
    decide_first,
    decide_searched,
    empty_file_matters,
    file_matters,
)
from walsyncd.core.follow.gap import Gap
from walsyncd.core.follow.restart import EMPTY_TALLY, CommitTally
from walsyncd.core.sqlite.wal import WalHeader
from walsyncd.core.sqlite.walindex import IndexHeader

SALTS = (10, 1)
HEADER = WalHeader(512, False, 0, *SALTS, (0, 0))
CURSOR = cursor_before(HEADER)
INDEX = IndexHeader(3, False, 512, 7, 9, (0, 0), SALTS, 0, (0, 0, 0, 0, 0))
EMPTY_INDEX = replace(INDEX, ichange=0, max_frame=0)

PAIR = PairHistory(
    announced=True,
    known_since=True,
    written=True,
    overwritten=False,
    uncounted=False,
    ended=False,
    orderly=False,
)
OVERWRITTEN = replace(PAIR, overwritten=True)
UNCOUNTED = replace(OVERWRITTEN, uncounted=True)
ENDED = replace(PAIR, ended=True, orderly=True)
DISORDERLY = replace(ENDED, orderly=False)


def observed(
    holder: DmsHolder = DmsHolder.LIVE, index: IndexHeader | None = INDEX, wal: WalHeader | None = HEADER
) -> Observation:
    return Observation(holder, index if holder is DmsHolder.LIVE else None, wal, 9999)


UNUSED = observed(DmsHolder.NONE)
TORN_INDEX = observed(index=None)
TORN_WAL = observed(wal=None)


def says(found: object, text: str) -> bool:
    return isinstance(found, Gap) and re.search(text, found.reason) is not None


@pytest.mark.parametrize(
    ("seen", "pair", "decision"),
    [
        (observed(), PAIR, ReadFirst(CURSOR, INDEX)),
        (observed(), ENDED, ReadFirst(CURSOR, INDEX)),
        (observed(), UNCOUNTED, ReadFirst(CURSOR, INDEX)),
        (UNUSED, PAIR, Search(CURSOR)),
        (UNUSED, ENDED, Search(CURSOR)),
        (observed(DmsHolder.NONE, wal=None), PAIR, Search(None)),
        (observed(index=EMPTY_INDEX), PAIR, NothingYet()),
        (observed(index=EMPTY_INDEX, wal=None), OVERWRITTEN, NothingYet()),
        (observed(index=EMPTY_INDEX), replace(PAIR, uncounted=True), NothingYet()),
        (observed(index=EMPTY_INDEX), ENDED, NeverUsed()),
        (observed(DmsHolder.NONE, wal=None), replace(DISORDERLY, written=False), NeverUsed()),
    ],
)
def test_what_a_look_has_to_do(seen: Observation, pair: PairHistory, decision: FirstDecision) -> None:
    """Frames are read if a wal-index shows them, and searched for if nobody uses it. Otherwise nothing is there yet."""
    assert decide_first(FirstSeen(seen, pair, pair.ended)) == decision


@pytest.mark.parametrize("holder", [DmsHolder.SETTING_UP, DmsHolder.LEAVING])
def test_states_that_pass(holder: DmsHolder) -> None:
    """States that pass are looked at again, whatever else is seen."""
    assert isinstance(decide_first(FirstSeen(observed(holder), UNCOUNTED, was_ended=False)), Again)


@pytest.mark.parametrize("seen", [TORN_INDEX, TORN_WAL, observed(wal=replace(HEADER, salt1=11))])
def test_headers_that_do_not_belong_together(seen: Observation) -> None:
    """Such headers are looked at again. In a deleted WAL the headers no longer change, so there they are a gap."""
    assert isinstance(decide_first(FirstSeen(seen, PAIR, was_ended=False)), Again)
    assert says(decide_first(FirstSeen(seen, ENDED, was_ended=True)), "^a WAL was deleted, and the")


@pytest.mark.parametrize("seen", [observed(), UNUSED, TORN_INDEX, observed(index=EMPTY_INDEX)])
def test_a_wal_that_is_deleted_during_the_look(seen: Observation) -> None:
    """What was read may be older than the last commit of the deleted WAL, so the look is repeated."""
    assert decide_first(FirstSeen(seen, ENDED, was_ended=False)) == Repeat()


@pytest.mark.parametrize("pair", [DISORDERLY, replace(DISORDERLY, announced=False, written=False)])
def test_a_wal_that_is_not_deleted_as_sqlite_does_it(pair: PairHistory) -> None:
    """Such a deletion is a gap whose text names the setting that helps, unless nothing was ever written."""
    decision = decide_first(FirstSeen(observed(), pair, was_ended=True, advice="keep it open"))
    assert says(decision, "created and deleted")
    assert isinstance(decision, Gap)
    assert decision.remedy == "keep it open"


@pytest.mark.parametrize(
    ("seen", "pair", "text"),
    [
        (UNUSED, OVERWRITTEN, "can't be counted"),
        (observed(DmsHolder.NONE, wal=None), OVERWRITTEN, "can't be counted"),
        (observed(index=replace(EMPTY_INDEX, ichange=1)), PAIR, "restarted already"),
        (observed(index=EMPTY_INDEX), UNCOUNTED, "restarted already"),
    ],
)
def test_commits_that_may_have_been_overwritten(seen: Observation, pair: PairHistory, text: str) -> None:
    """Nothing counts the commits, or the wal-index has counted commits that are missing."""
    assert says(decide_first(FirstSeen(seen, pair, was_ended=False)), text)


def test_what_a_search_has_found() -> None:
    """If a commit was found, frames are read. A WAL without a commit has ended only if it had ended before the look."""
    first = FirstSeen(UNUSED, PAIR, was_ended=False)
    assert decide_searched(first, 2) == ReadFirst(CURSOR, None)
    assert decide_searched(first, 0) == NothingYet()
    assert decide_searched(replace(first, seen=observed(DmsHolder.NONE, wal=None)), 0) == NothingYet()
    assert decide_searched(replace(first, pair=ENDED), 0) == Repeat()
    assert decide_searched(FirstSeen(UNUSED, ENDED, was_ended=True), 0) == NeverUsed()


def test_when_the_file_matters() -> None:
    """The file matters if the events do not show what happened before.

    Beside an empty WAL it matters only if they would.
    """
    unknown = replace(PAIR, known_since=False)
    assert file_matters("wal", unknown)
    assert not file_matters("wal", PAIR)
    assert not file_matters("rollback", unknown)
    assert empty_file_matters("wal", unknown, is_watched=True)
    assert not empty_file_matters("wal", unknown, is_watched=False)
    assert not empty_file_matters("wal", PAIR, is_watched=True)
    assert not empty_file_matters("rollback", unknown, is_watched=True)


def tally(*commits: int, doubtful: bool = False) -> CommitTally:
    return CommitTally(commits, None, doubtful)


READ = FirstFrames(
    mode="wal",
    cursor=CURSOR,
    index=INDEX,
    held=7,
    tally=tally(1, 4, 7),
    is_untouched=True,
    pair=PAIR,
    after=observed(),
    is_overwritten=False,
)
SCANNED = replace(READ, index=None, held=0, tally=EMPTY_TALLY, after=UNUSED)


@pytest.mark.parametrize(
    ("read", "accepted"),
    [
        (READ, Accepted(0, is_provisional=False)),
        (replace(READ, tally=tally(1, 4, 5, 7)), Accepted(2**32 - 1, is_provisional=False)),
        (replace(READ, tally=tally(1, 4, 7, doubtful=True)), Accepted(None, is_provisional=False)),
        (replace(READ, pair=OVERWRITTEN, is_overwritten=True), Accepted(0, is_provisional=True)),
        (replace(READ, is_overwritten=True), Accepted(0, is_provisional=True)),
        (replace(READ, pair=replace(PAIR, uncounted=True)), Accepted(0, is_provisional=False)),
        (replace(READ, cursor=cursor_before(replace(HEADER, sequence=1))), Accepted(0, is_provisional=False)),
        (SCANNED, Accepted(None, is_provisional=False)),
        (replace(SCANNED, is_overwritten=True), Accepted(None, is_provisional=False)),
    ],
)
def test_a_wal_that_holds_all_that_happened(read: FirstFrames, accepted: Accepted) -> None:
    """The WAL is accepted with the count before its first frame, if that is known. Pad frames can't be counted."""
    assert accept(read) == accepted


@pytest.mark.parametrize(
    "read",
    [
        replace(READ, after=observed(index=replace(INDEX, salts=(11, 2)))),
        replace(READ, after=UNUSED),
        replace(SCANNED, after=observed()),
        replace(SCANNED, after=observed(DmsHolder.NONE, wal=None)),
        replace(READ, held=6, is_untouched=False, after=UNUSED),
    ],
)
def test_a_wal_that_does_not_stay_the_same(read: FirstFrames) -> None:
    """If the incarnation changes, or somebody begins or ceases to use the wal-index, nothing that was read counts."""
    assert isinstance(accept(read), Again)


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (replace(READ, held=6, is_untouched=False), "frame 7 of 7 was published"),
        (replace(READ, mode="rollback"), "went into WAL mode"),
        (replace(READ, is_untouched=False), "may have been changed while it had no WAL"),
        (replace(SCANNED, is_untouched=False), "may have been changed while it had no WAL"),
        (replace(READ, pair=UNCOUNTED), "restarted already"),
        (replace(READ, pair=OVERWRITTEN, cursor=cursor_before(replace(HEADER, sequence=1))), "restarted already"),
        (replace(READ, tally=tally(1, 7)), "counts 3 commits, the WAL holds 2"),
        (replace(READ, tally=tally(1, 4, 5, 7), pair=OVERWRITTEN), "counts 3 commits, the WAL holds 4"),
    ],
)
def test_a_wal_that_may_lack_something(read: FirstFrames, text: str) -> None:
    """A WAL that may lack something is a gap, and the gap's text has the reason."""
    assert says(accept(read), text)
