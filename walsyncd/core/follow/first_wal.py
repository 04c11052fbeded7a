"""A WAL that appeared: what a look has seen of it, and whether it holds all that happened since the previous WAL.

It holds all that happened since the previous WAL was deleted, if all of this is true:

- Nothing else can have changed the database in between. The events show that, or the file's size and times do if the
  database was not watched.
- By its events, the WAL was not written after the database was written. Then it holds all that was ever committed into
  it. Otherwise it must be the first incarnation of its file (checkpoint sequence 0), and the wal-index, which must not
  have been rebuilt meanwhile, must count as many commits as the WAL holds. That count is believed provisionally
  (``ProvisionalProof``).
- The database was followed in WAL mode before, because no WAL holds the change out of rollback mode.

A look has up to three stages. ``decide_first`` decides on the headers (``FirstSeen``). If nobody uses the WAL, its last
commit is searched for (``decide_searched``). A WAL with commits is read (``FirstFrames``) and judged (``accept``). The
database file is read only where it matters (``file_matters``).
``engine.follow.new_wal`` does the reading.
"""

from __future__ import annotations

from dataclasses import dataclass

from walsyncd.core.follow.decision import (
    Again,
    Cursor,
    DmsHolder,
    Observation,
    broken_chain,
    cursor_before,
    passing_holder,
    salts_now,
)
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.follow.restart import CommitTally
from walsyncd.core.sqlite.walindex import IndexHeader

TOUCHED = "the database may have been changed while it had no WAL"
RESTARTED = "the first WAL that was seen after a time without one had restarted already"


@dataclass(frozen=True, slots=True)
class PairHistory:
    """What the events had told of a WAL and its wal-index by some moment.

    ``announced``: the CREATE of the -wal was seen. ``known_since``: nothing but a WAL changed the database since its
    content was known. ``written``: the -wal was written since its CREATE. ``overwritten``: the -wal was written after
    the database was written. ``uncounted``: iChange may lack what was overwritten. ``ended``: the -wal was deleted.
    ``orderly``: it was deleted as SQLite deletes it.
    """

    announced: bool
    known_since: bool
    written: bool
    overwritten: bool
    uncounted: bool
    ended: bool
    orderly: bool


@dataclass(frozen=True, slots=True)
class FirstSeen:
    """The headers of a WAL where there was none, and ``pair``, what its events had shown after the headers were read.

    ``was_ended``: the WAL was deleted before anything was read. ``advice`` is the setting that helps where WALs exist
    too shortly to be seen.
    """

    seen: Observation
    pair: PairHistory
    was_ended: bool
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Repeat:
    """Something happened during the look, so it shows nothing."""


@dataclass(frozen=True, slots=True)
class NeverUsed:
    """The WAL was deleted, and nothing was ever committed into it."""


@dataclass(frozen=True, slots=True)
class NothingYet:
    """Nothing is in the WAL yet. If nobody saw a WAL before this one, its frames show in the database file."""


@dataclass(frozen=True, slots=True)
class Search:
    """Search for the last commit after ``cursor``, because nobody is seen to use the WAL.

    The next process that opens the database will recover what the chain commits. ``cursor`` is None if the WAL has no
    header, and so no commit. The caller checks after the search whether the WAL has ended.
    """

    cursor: Cursor | None


@dataclass(frozen=True, slots=True)
class ReadFirst:
    """Read the frames after ``cursor`` that ``index`` shows. ``index`` is None if nobody uses the WAL."""

    cursor: Cursor
    index: IndexHeader | None


FirstDecision = Repeat | Again | Gap | NeverUsed | NothingYet | Search | ReadFirst


def decide_first(first: FirstSeen) -> FirstDecision:
    """Return what a look at a WAL where there was none has to do after it has read the headers."""
    seen, pair = first.seen, first.pair
    if pair.ended != first.was_ended:
        return Repeat()
    if first.was_ended and not pair.orderly:
        if pair.announced and not pair.written:
            return NeverUsed()
        fault = "a WAL was created and deleted, and no wal-index was seen to tell its commits from failed ones"
        return Gap(GapKind.UNCERTAIN, fault, remedy=first.advice)
    if passing := passing_holder(seen.holder):
        return passing
    return _decide_by_index(first) if seen.holder is DmsHolder.LIVE else _decide_by_chain(first)


def _decide_by_index(first: FirstSeen) -> FirstDecision:
    index, wal, pair = first.seen.index, first.seen.wal, first.pair
    if index is None:
        return _torn(first, "the wal-index header can't be read")
    if index.max_frame == 0:
        if index.ichange or (pair.overwritten and pair.uncounted):
            return Gap.of(GapKind.OVERWRITTEN, RESTARTED)
        return NeverUsed() if first.was_ended else NothingYet()
    if wal is None or wal.salts != index.salts:
        return _torn(first, "the WAL's header is not the one of the wal-index")
    return ReadFirst(cursor_before(wal), index)


def _torn(first: FirstSeen, reason: str) -> Again | Gap:
    """Look again at an intermediate state. In a deleted WAL the state is a gap, because it does not change any more."""
    if not first.was_ended:
        return Again(reason)
    return Gap.of(GapKind.UNCERTAIN, "a WAL was deleted, and {reason}", reason=reason)


def _decide_by_chain(first: FirstSeen) -> FirstDecision:
    if first.pair.overwritten:
        text = "a WAL appeared whose wal-index is not in use, so its commits can't be counted"
        return Gap.of(GapKind.UNCERTAIN, text)
    return Search(cursor_before(first.seen.wal) if first.seen.wal is not None else None)


def decide_searched(first: FirstSeen, last: int) -> Repeat | NeverUsed | NothingYet | ReadFirst:
    """Return what to do after the search, which found commits up to frame ``last``, or no commit if ``last`` is 0.

    ``first.pair`` was taken after the search.
    """
    if last and first.seen.wal is not None:
        return ReadFirst(cursor_before(first.seen.wal), None)
    if first.pair.ended:
        return NeverUsed() if first.was_ended else Repeat()
    return NothingYet()


def empty_file_matters(mode: str, pair: PairHistory, *, is_watched: bool) -> bool:
    """Whether the file has to show that nothing was missed before a WAL that is still empty.

    Unless the database is watched, nothing is ever known.
    """
    return is_watched and file_matters(mode, pair)


def file_matters(mode: str, pair: PairHistory) -> bool:
    """Whether the file has to show that nothing was missed before a WAL that holds commits."""
    return mode == "wal" and not pair.known_since


@dataclass(frozen=True, slots=True)
class FirstFrames:
    """All that a look has read of a WAL where there was none. The fields are in the order in which they were read.

    ``mode`` is the journal mode that was followed before. ``cursor`` and ``index`` are those of ``ReadFirst``, and
    ``tally`` are the commits up to frame ``held``. ``is_untouched``: nothing wrote to the database file since it was
    last seen without a WAL, or that does not matter (``file_matters``). ``pair`` was taken after that. ``after`` was
    observed last, and ``is_overwritten`` is ``pair.overwritten`` by the events up to then.
    """

    mode: str
    cursor: Cursor
    index: IndexHeader | None
    held: int
    tally: CommitTally
    is_untouched: bool
    pair: PairHistory
    after: Observation
    is_overwritten: bool


@dataclass(frozen=True, slots=True)
class Accepted:
    """The WAL holds all that happened. It is followed from its first frame on.

    ``ichange`` is the counter's value before that frame, or None if it is not known. ``is_provisional``: see
    ``RestartProof``.
    """

    ichange: int | None
    is_provisional: bool


def accept(read: FirstFrames) -> Again | Gap | Accepted:
    """Return whether the WAL stayed the same while it was read, and holds all that happened."""
    index, after, commits = read.index, read.after, len(read.tally.commits)
    if salts_now(after) != read.cursor.salts or (after.index is None) != (index is None):
        return Again("the WAL changed while it was read for the first time")
    if index is not None and read.held != index.max_frame:
        return broken_chain(read.held + 1, index.max_frame, read.tally.next_salts, read.cursor.salts)
    if fault := _doubt(read):
        return fault
    is_counted = index is not None and not read.tally.doubtful
    ichange = (index.ichange - commits) % 2**32 if index is not None and is_counted else None
    return Accepted(ichange, is_provisional=index is not None and read.is_overwritten)


def _doubt(read: FirstFrames) -> Gap | None:
    header, pair, index, commits = read.cursor.header, read.pair, read.index, len(read.tally.commits)
    assert header is not None
    if read.mode != "wal":
        return Gap.of(GapKind.CHANGED, "the database went into WAL mode")
    if not read.is_untouched:
        return Gap.of(GapKind.UNCERTAIN, TOUCHED)
    if pair.overwritten and (header.sequence != 0 or pair.uncounted):
        return Gap.of(GapKind.OVERWRITTEN, RESTARTED)
    if index is not None and (commits < index.ichange or (pair.overwritten and commits != index.ichange)):
        text = "the wal-index counts {counted} commits, the WAL holds {held}"
        return Gap.of(GapKind.UNCERTAIN, text, counted=index.ichange, held=commits)
    return None
