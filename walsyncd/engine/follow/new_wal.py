"""A WAL that appeared: whether it holds all that happened since the last one was deleted.

A WAL that its last user truncated and then left by dying is treated like one that appears, if no commit is missing.

A WAL that appears holds all that happened since the last one was deleted if all of this is true:

- Nothing else can have changed the database in between. The events show that, or the file's size and times do if it
  was not watched.
- By its events, the WAL was not written after the database was written. Then it holds all that was ever committed into
  it. Otherwise it must be the first incarnation of its file (checkpoint sequence 0), and the wal-index, which must not
  have been rebuilt meanwhile, must count as many commits as the WAL holds. That count is believed provisionally
  (``wal_restart``).
- The database was followed in WAL mode before, because no WAL holds the change out of rollback mode.
"""

from __future__ import annotations

from dataclasses import replace

from walsyncd.core.follow.decision import Cursor, DmsHolder, Observation, broken_chain, cursor_before, salts_now
from walsyncd.core.follow.follow_state import FollowState
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.follow.restart import Counter, prove_emptied
from walsyncd.core.sqlite.walindex import IndexHeader
from walsyncd.engine.follow.copy_frames import why_not_appendable
from walsyncd.engine.follow.file_facts import database_identity, file_facts
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.source_reader import SourceReader
from walsyncd.engine.follow.step import AT_ONCE, SHORTLY, Step, gap_step
from walsyncd.engine.follow.stuck_state import again

TOUCHED = "the database may have been changed while it had no WAL"
RESTARTED = "the first WAL that was seen after a time without one had restarted already"


def presence_advice(tracked: FollowedDatabase) -> str:
    """Return the setting that helps where WALs exist too shortly to be seen. Empty if it is in use."""
    advice = "presence = true, for an application that opens and closes the database for every request"
    return "" if tracked.spec.presence else advice


def first_frames(reader: SourceReader, state: FollowState) -> Step:
    """Look at a WAL where there was none: wait for its first frames, then accept it or not."""
    wal_pair, ended = reader.wal_pair, reader.ended
    seen = reader.observe()
    if wal_pair.ended != ended:
        return AT_ONCE
    if ended and not wal_pair.orderly:
        if wal_pair.announced and not wal_pair.written:
            return Step(life_ended=True, again_s=0)  # nothing was ever in it
        fault = "a WAL was created and deleted, and no wal-index was seen to tell its commits from failed ones"
        return gap_step(GapKind.UNCERTAIN, fault, remedy=presence_advice(reader.tracked))
    if seen.holder is DmsHolder.SETTING_UP:
        return again(reader, seen, "the wal-index is being set up")
    if seen.holder is DmsHolder.LEAVING:
        return again(reader, seen, "the wal-index is deleted and the WAL is not")
    if seen.holder is not DmsHolder.LIVE:
        return _first_scan(reader, state, seen)
    if seen.index is None:
        return _torn(reader, seen, "the wal-index header can't be read", ended=ended)
    if seen.index.max_frame == 0:
        if seen.index.ichange or (wal_pair.overwritten and wal_pair.uncounted):
            return gap_step(GapKind.OVERWRITTEN, RESTARTED)
        if ended:
            return Step(life_ended=True, again_s=0)
        return _nothing_yet(reader, state)
    if seen.wal is None or seen.wal.salts != seen.index.salts:
        return _torn(reader, seen, "the WAL's header is not the one of the wal-index", ended=ended)
    return _accept(reader, state, cursor_before(seen.wal), seen.index)


def _torn(reader: SourceReader, seen: Observation, reason: str, *, ended: bool) -> Step:
    """Look again at an intermediate state. It is a gap in a deleted WAL, which does not change any more."""
    if not ended:
        return again(reader, seen, reason)
    return gap_step(GapKind.UNCERTAIN, "a WAL was deleted, and {reason}", reason=reason)


def _first_scan(reader: SourceReader, state: FollowState, seen: Observation) -> Step:
    """Look at a WAL that nobody is seen to use: the next opener will recover what its chain commits."""
    wal = seen.wal
    if reader.wal_pair.overwritten:
        text = "a WAL appeared whose wal-index is not in use, so its commits can't be counted"
        return gap_step(GapKind.UNCERTAIN, text)
    if wal is None or reader.last_commit(cursor_before(wal)) == 0:
        if reader.wal_pair.ended:
            return Step(life_ended=True, again_s=0) if reader.ended else AT_ONCE
        return _nothing_yet(reader, state)
    return _accept(reader, state, cursor_before(wal), None)


def _nothing_yet(reader: SourceReader, state: FollowState) -> Step:
    """Nothing is in the WAL yet. A WAL before it, which nobody saw, shows in the file that it was copied into."""
    is_watched = reader.tracked.wal_pairs.watched  # otherwise nothing is ever known
    if is_watched and state.mode == "wal" and not reader.wal_pair.known_since and not _untouched(reader, state):
        return Step(gap=Gap.of(GapKind.UNCERTAIN, TOUCHED))
    return Step(caught_up=True, moving=reader.is_moving(None))


def _accept(reader: SourceReader, state: FollowState, cursor: Cursor, index: IndexHeader | None) -> Step:
    """Judge the WAL, and check that it stayed the same meanwhile. ``index`` is None if nobody uses the WAL."""
    counter, held = Counter(), 0
    if index is not None:
        for frames in reader.run(cursor, index.max_frame):
            counter.feed(frames)
            held = frames.last
    tally = counter.tally()
    fault = _doubt(reader, state, cursor, index, len(tally.commits))
    after = reader.observe()
    if salts_now(after) != cursor.salts or (after.index is None) != (index is None):
        return SHORTLY
    if index is not None and held != index.max_frame:
        return Step(gap=broken_chain(held + 1, index.max_frame, tally.next_salts, cursor.salts))
    if fault:
        return Step(gap=fault)
    if index is not None and reader.wal_pair.overwritten:
        reader.accept_provisionally()
    entered = replace(state.entered(cursor), file=reader.facts())
    counted = index is not None and not tally.doubtful
    mark = reader.new_mark((index.ichange - len(tally.commits)) % 2**32) if index is not None and counted else None
    reader.note(verified=True, mark=mark)
    return Step(state=entered, again_s=0)


def _doubt(
    reader: SourceReader, state: FollowState, cursor: Cursor, index: IndexHeader | None, commits: int
) -> Gap | None:
    """Return why the first WAL after a time without one may not hold all that happened, or None if it does."""
    header, wal_pair = cursor.header, reader.wal_pair
    assert header is not None
    if state.mode != "wal":
        return Gap.of(GapKind.CHANGED, "the database went into WAL mode")
    if not wal_pair.known_since and not _untouched(reader, state):
        return Gap.of(GapKind.UNCERTAIN, TOUCHED)
    if wal_pair.overwritten and (header.sequence != 0 or wal_pair.uncounted):
        return Gap.of(GapKind.OVERWRITTEN, RESTARTED)
    if index is not None and (commits < index.ichange or (wal_pair.overwritten and commits != index.ichange)):
        text = "the wal-index counts {counted} commits, the WAL holds {held}"
        return Gap.of(GapKind.UNCERTAIN, text, counted=index.ichange, held=commits)
    return why_not_appendable(state.stream, header.page_size)


def _untouched(reader: SourceReader, state: FollowState) -> bool:
    """Whether the file shows that nothing wrote to it since it was last seen without a WAL."""
    now = file_facts(database_identity(reader.tracked), reader.environment.boot_id, None)
    return now.looks_like(state.file) and now.boot_id == state.file.boot_id


def leave_emptied(reader: SourceReader, state: FollowState, cursor: Cursor) -> Step:
    """Leave a WAL that is empty and unused: if nothing came after the cursor, it is as if it had just appeared."""
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
