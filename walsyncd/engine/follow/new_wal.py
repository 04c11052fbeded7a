"""Reads a WAL that appeared, so that ``core.follow.first_wal`` can say whether it holds all that happened.

A WAL whose last user truncated it and then died is treated like a WAL that appears, if no commit is missing.

The headers are read first, then all frames that they show, then the database file where that matters, then the headers
again: the WAL must still be the same.
"""

from __future__ import annotations

from dataclasses import replace

from walsyncd.core.follow.decision import Again, Cursor, DmsHolder
from walsyncd.core.follow.first_wal import (
    TOUCHED,
    FirstFrames,
    FirstSeen,
    NeverUsed,
    NothingYet,
    ReadFirst,
    Repeat,
    Search,
    accept,
    decide_first,
    decide_searched,
    empty_file_matters,
    file_matters,
)
from walsyncd.core.follow.follow_state import FollowState
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.follow.restart import Counter, prove_emptied
from walsyncd.engine.follow.copy_frames import why_not_appendable
from walsyncd.engine.follow.file_facts import database_identity, file_facts
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.source_reader import SourceReader
from walsyncd.engine.follow.step import AT_ONCE, SHORTLY, Step, gap_step
from walsyncd.engine.follow.stuck_state import again


def presence_advice(tracked: FollowedDatabase) -> str:
    """Return the setting that helps where WALs exist too shortly to be seen. Empty if the setting is in use."""
    advice = "presence = true, for an application that opens and closes the database for every request"
    return "" if tracked.spec.presence else advice


def first_frames(reader: SourceReader, state: FollowState) -> Step:
    """Look at a WAL where there was none. Wait for its first frames, then accept the WAL or report a gap."""
    seen, advice = reader.observe(), presence_advice(reader.tracked)
    first = FirstSeen(seen, reader.wal_pair.history(), reader.ended, advice)
    decision = decide_first(first)
    if isinstance(decision, Search):
        decision = _search(reader, first, decision)
    match decision:
        case Repeat():
            return AT_ONCE
        case Again(reason):
            return again(reader, seen, reason)
        case Gap() as gap:
            return Step(gap=gap)
        case NeverUsed():
            return Step(life_ended=True, again_s=0)
        case NothingYet():
            return _nothing_yet(reader, state)
        case ReadFirst() as wanted:
            return _accept(reader, state, wanted)


def _search(reader: SourceReader, first: FirstSeen, search: Search) -> Repeat | NeverUsed | NothingYet | ReadFirst:
    last = reader.last_commit(search.cursor) if search.cursor is not None else 0
    return decide_searched(replace(first, pair=reader.wal_pair.history()), last)


def _nothing_yet(reader: SourceReader, state: FollowState) -> Step:
    is_watched = reader.tracked.wal_pairs.watched
    matters = empty_file_matters(state.mode, reader.wal_pair.history(), is_watched=is_watched)
    if matters and not _is_untouched(reader, state):
        return Step(gap=Gap.of(GapKind.UNCERTAIN, TOUCHED))
    return Step(caught_up=True, moving=reader.is_moving(None))


def _accept(reader: SourceReader, state: FollowState, wanted: ReadFirst) -> Step:
    """Read the frames of the WAL, and follow it if it is accepted."""
    read = _read(reader, state, wanted)
    accepted = accept(read)
    if isinstance(accepted, Again):
        return SHORTLY
    if isinstance(accepted, Gap):
        return Step(gap=accepted)
    header = wanted.cursor.header
    if fault := why_not_appendable(state.stream, header.page_size) if header is not None else None:
        return Step(gap=fault)
    if accepted.is_provisional:
        reader.accept_provisionally()
    entered = replace(state.entered(wanted.cursor), file=reader.facts())
    mark = reader.new_mark(accepted.ichange) if accepted.ichange is not None else None
    reader.note(verified=True, mark=mark)
    return Step(state=entered, again_s=0)


def _read(reader: SourceReader, state: FollowState, wanted: ReadFirst) -> FirstFrames:
    counter, held, cursor, index = Counter(), 0, wanted.cursor, wanted.index
    if index is not None:
        for frames in reader.run(cursor, index.max_frame):
            counter.feed(frames)
            held = frames.last
    is_untouched = not file_matters(state.mode, reader.wal_pair.history()) or _is_untouched(reader, state)
    pair = reader.wal_pair.history()
    after = reader.observe()
    return FirstFrames(
        mode=state.mode,
        cursor=cursor,
        index=index,
        held=held,
        tally=counter.tally(),
        is_untouched=is_untouched,
        pair=pair,
        after=after,
        is_overwritten=reader.wal_pair.overwritten,
    )


def _is_untouched(reader: SourceReader, state: FollowState) -> bool:
    """Whether the file shows that nothing wrote to it since it was last seen without a WAL."""
    now = file_facts(database_identity(reader.tracked), reader.environment.boot_id, None)
    return now.looks_like(state.file) and now.boot_id == state.file.boot_id


def leave_emptied(reader: SourceReader, state: FollowState, cursor: Cursor) -> Step:
    """Leave a WAL that is empty and unused. If nothing came after the cursor, the WAL counts as one that appears."""
    wal_pair, mark = reader.wal_pair, reader.evidence.mark
    text = "the WAL was emptied after frame {frame} while nobody was seen to use it"
    lost = gap_step(GapKind.UNCERTAIN, text, frame=cursor.frames)
    if (
        mark is None
        or mark.shm_serial != wal_pair.serial
        or mark.index_rebuilds != wal_pair.index_rebuilds
        or wal_pair.ended
    ):
        return lost
    if not prove_emptied(cursor, mark, reader.left_index()):
        return lost
    after = reader.observe()
    if after.holder is not DmsHolder.NONE or after.wal_bytes:
        return SHORTLY
    if wal_pair.closed == mark.closed:
        return again(reader, after, f"nobody has used the WAL, which was emptied behind frame {cursor.frames}")
    if mark.index_rebuilds != wal_pair.index_rebuilds or not reader.tracked.wal_pairs.begin_anew(wal_pair, mark):
        return lost
    reader.note(mark=None)
    return Step(state=replace(state.entered(None), file=reader.facts()), again_s=0)
