"""One look at one database: observe, decide, read, settle.

A look takes one or several steps. Each step reads one bounded batch or crosses one WAL restart, so that no database
waits for another's gigabyte. ``decision``, ``restart_seen``, ``first_wal`` and ``resumption`` decide. ``resume``,
``copy_frames``, ``wal_restart``, ``new_wal`` and ``no_wal`` read what the decisions ask for. Nothing is made durable
here.

A step beside a WAL reads the following, in this order. Each reading becomes one frozen value, which the decision gets:

1. The event queue.
2. The headers of the -wal and the -shm (``WalHeaders``, which become an ``Observation``). ``decide`` needs no more.
3. What the decision asks for: frames, or what is left of an incarnation that is over. After that, or if there are no
   frames, the header of the cursor's frame, which has changed if somebody has written over the -wal.
4. The headers again (``FramesSeen``). The proof needs this second reading: what was read is good only if the WAL has
   not restarted meanwhile (``settle``). At a restart the headers are read after the old tail, and again after all
   frames (``RestartRead``). What shows whether the counter may be used is taken after that (``RestartSeen``).
5. If there are no frames, the next frame's header and then the wal-index, to see whether a commit is being written. If
   there are frames, they show that themselves.
6. The database file, and before that how far the WAL was copied back (``DatabaseLook``). Both are read after the
   frames, because SQLite may overwrite frames while the database file is read.

The event queue is read after each reading of the headers, before they are believed.

Events that come while a step is taken count as much as those that came before. If another file came to the database's
place, or a WAL may have been missed, the step is void.
"""

from __future__ import annotations

from dataclasses import replace

from walsyncd.core.follow.decision import (
    Again,
    Copy,
    Cursor,
    Emptied,
    Idle,
    Observation,
    Restarted,
    decide,
    salts_now,
    written_over,
)
from walsyncd.core.follow.evidence import Lag
from walsyncd.core.follow.follow_state import FollowState
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.follow.overwritten import frames_count_again
from walsyncd.engine.follow.copy_frames import copy_frames, step_if_over
from walsyncd.engine.follow.environment import Environment
from walsyncd.engine.follow.file_facts import FileBesideWal, database_identity, file_facts
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.new_wal import first_frames, leave_emptied, presence_advice
from walsyncd.engine.follow.no_wal import ENTERED_WAL, look_without_wal
from walsyncd.engine.follow.resume import resume_following
from walsyncd.engine.follow.segment_builder import TooLargeError
from walsyncd.engine.follow.source_reader import AheadReader, SourceReader
from walsyncd.engine.follow.step import AT_ONCE, NOTHING_YET, Batch, Step, gap_step
from walsyncd.engine.follow.stuck_state import again
from walsyncd.engine.follow.wal_pair import WalPair
from walsyncd.engine.follow.wal_pairs import REPLACED
from walsyncd.engine.follow.wal_restart import cross_restart
from walsyncd.engine.read_ahead.ahead_look import NotReadError
from walsyncd.errors import WalsyncdError

REVOKED = (
    "the wal-index was closed right after the WAL restarted: if a writer was killed before, the commits were miscounted"
)
RECOVERED = "the WAL was recovered, or will be, so pages that somebody had written over count as they are in the WAL"
ENDED = "the WAL has ended, and the database file, which somebody had written over, may be longer than the WAL said"
LAG_MS = 290_000  # about the time between two slow looks: a wal-index that lags for so long does not catch up


def take_step(tracked: FollowedDatabase, environment: Environment) -> Step:
    """Take one step of a look at a database that has a generation."""
    state, wal_pairs = tracked.state, tracked.wal_pairs
    assert state is not None
    tracked.end_deferral()
    environment.drain()
    if wal_pairs.error is not None and wal_pairs.current is None:
        wal_pairs.look_around()
        if wal_pairs.error is not None:
            raise wal_pairs.error
    if fault := _elsewhere(tracked, environment, state):
        return _gone(tracked, fault)
    wal_pair = wal_pairs.current
    if wal_pair is not None and state.mode == "rollback" and tracked.scans is not None and tracked.scans.has_map():
        return gap_step(GapKind.CHANGED, ENTERED_WAL)
    if wal_pair is None:
        tracked.drop_reading()
        step = replace(look_without_wal(tracked, environment, state), pending=tracked.pending)
    else:
        step = _look_beside_file(tracked, environment, wal_pair, state)
        if wal_pair.doubt is not None:
            return _doubted(wal_pair.doubt)
    if fault := wal_pairs.replaced or wal_pairs.lost:
        return _gone(tracked, fault)
    if step.caught_up and len(wal_pairs.queue) > 1:
        step = replace(step, caught_up=False)
    if step.gap is None and wal_pair is not None and state.overwritten is not None:
        # The WAL may have been recovered and copied back since the last look, and even have restarted after that.
        if step.state is not None and step.state.cursor is None:
            return gap_step(GapKind.DOUBT, ENDED)
        is_doubtful = state.overwritten.frames > 0 and wal_pair.may_be_recovered()
        if is_doubtful or (step.caught_up and _frames_count_again(tracked, environment, step)):
            return gap_step(GapKind.DOUBT, RECOVERED)
    return step


def _look_beside_file(
    tracked: FollowedDatabase, environment: Environment, wal_pair: WalPair, state: FollowState
) -> Step:
    """Look at the WAL, and then at the database file. Later looks find what is written to the file later."""
    wal_pairs, file = tracked.wal_pairs, FileBesideWal(tracked, wal_pair)
    step = _looks(tracked, environment, wal_pair, state, file)
    now_ms = environment.monotonic_ms()
    look = file.last_look() if not wal_pair.ended else None
    waits = look is not None and wal_pairs.check_file(look.seen, look.told, now_ms)
    waits = wal_pairs.explain_writes(now_ms) or waits  # it may be a checkpoint that is not over yet
    return replace(
        step,
        other_path=tracked.other_path.beside_wal(),
        caught_up=step.caught_up and not waits,
        moving=step.moving or waits,
    )


def _frames_count_again(tracked: FollowedDatabase, environment: Environment, step: Step) -> bool:
    """Whether SQLite reads pages from the WAL again for which the replica has the file's version."""
    state, wal_pair = step.state or tracked.state, tracked.wal_pairs.current
    if state is None or state.overwritten is None or state.cursor is None or wal_pair is None:
        return False
    return frames_count_again(state.overwritten, SourceReader(tracked, environment, wal_pair).observe())


def _looks(
    tracked: FollowedDatabase,
    environment: Environment,
    wal_pair: WalPair,
    state: FollowState,
    file: FileBesideWal,
) -> Step:
    """Take looks, each at once after the one before, until a look does not lead on to another."""
    if tracked.bridge is not None or state.cursor is None:
        return _look_or_revoke(SourceReader(tracked, environment, wal_pair), state, file)
    batch, so_far = Batch(), NOTHING_YET
    try:
        while True:
            reader = _next_reader(tracked, environment, wal_pair, so_far, batch)
            found = _look_or_revoke(reader, so_far.state or state, file)
            is_ahead = isinstance(reader, AheadReader)
            if is_ahead and found.state is None and found.pending is None and so_far.state is None:
                tracked.drop_reading()  # the reading is of no use any more
            if found.gap is not None:
                if so_far.state is None or batch.is_void:
                    return found
                break  # the next step finds it again, after everything before it is durable
            so_far = so_far.then(found)
            if not _leads_on(found, is_ahead=is_ahead) or not batch.has_room:
                break
        if found.gap or is_ahead:  # the file may hold more, and a caller that asks has to wait for a look at the file
            so_far = replace(so_far, again_s=0, caught_up=False)
        return batch.finish(so_far)
    except NotReadError:
        batch.drop()
        return AT_ONCE
    except WalsyncdError:
        batch.drop()
        raise


def _leads_on(found: Step, *, is_ahead: bool) -> bool:
    """Whether the next look of the batch comes at once after the one that has found this."""
    if found.state is None or found.state.cursor is None or found.life_ended:
        return False
    return is_ahead or found.again_s == 0


def _next_reader(
    tracked: FollowedDatabase, environment: Environment, wal_pair: WalPair, so_far: Step, batch: Batch
) -> SourceReader:
    """Return the next look's reader. It reads from what was read ahead, or from the files if nothing was."""
    state, reading = so_far.state or tracked.state, tracked.reading
    assert state is not None
    assert state.cursor is not None
    if reading is not None and reading.wal_pair is wal_pair:
        look = reading.after(state.cursor)
        if look is not None:
            return AheadReader(tracked, environment, wal_pair, so_far, batch, look)
    if reading is not None and (reading.is_over or reading.wal_pair is not wal_pair):
        tracked.drop_reading()
    return SourceReader(tracked, environment, wal_pair, so_far, batch)


def _look_or_revoke(reader: SourceReader, state: FollowState, file: FileBesideWal) -> Step:
    return gap_step(GapKind.UNCERTAIN, REVOKED) if _is_revoked(reader) else _look(reader, state, file)


def _look(reader: SourceReader, state: FollowState, file: FileBesideWal) -> Step:
    """Look at the current WAL. The step holds all that was found."""
    try:
        step = first_frames(reader, state) if state.cursor is None else _follow(reader, state, state.cursor)
    except TooLargeError as error:  # no generation gets past it before the WAL restarts
        reader.drop_pending()
        if reader.batch is not None:
            reader.batch.drop()
        salts = state.cursor.salts if state.cursor is not None else None
        return Step(gap=Gap(GapKind.SPOOL, "{problem}", {"problem": error.message}, error.hint, salts))
    except WalsyncdError:
        reader.tracked.drop_pending()  # the look has added to it, and no step reports how much
        raise
    state_after = step.state
    if state_after is not None and state_after.cursor is not None:
        state_after = replace(state_after, seen=file.seen(state_after.cursor.salts))
    if step.life_ended:
        reader.note(mark=None, provisional=None)
    return replace(
        step,
        state=state_after,
        evidence=reader.evidence,
        pending=reader.pending,
        rest_until_s=reader.rest_until_s,
    )


def _elsewhere(tracked: FollowedDatabase, environment: Environment, state: FollowState) -> Gap | None:
    """Return why this is not the database or not the history that we follow. Returns None if it is."""
    wal_pairs = tracked.wal_pairs
    if wal_pairs.replaced or wal_pairs.lost:
        return wal_pairs.replaced or wal_pairs.lost
    if wal_pairs.blind or not wal_pairs.watched:
        wal_pairs.check_now()
        try:
            identity = database_identity(tracked)
        except WalsyncdError:
            wal_pairs.check_later()
            raise
        if not file_facts(identity, environment.boot_id, None).is_file(state.file):
            return Gap.of(GapKind.REPLACED, REPLACED)
    return None


def _is_revoked(reader: SourceReader) -> bool:
    """Whether a count was believed because no CLOSE_WRITE had come, and one has come since (``wal_restart``)."""
    provisional, wal_pair = reader.evidence.provisional, reader.wal_pair
    if provisional is None:
        return False
    if wal_pair.serial != provisional.shm_serial:
        reader.note(provisional=None)
        return False
    if wal_pair.closed != provisional.closed:
        return True
    if reader.environment.monotonic_ms() >= provisional.until_ms:
        reader.note(provisional=None)
    return False


def _doubted(doubt: Gap) -> Step:
    """Return the step for a doubt: the database's content is not known any more. All doubts are handled here."""
    return Step(gap=doubt)


def _gone(tracked: FollowedDatabase, fault: Gap) -> Step:
    """Return the step for another file in the database's place, or for a WAL that was missed."""
    advice = presence_advice(tracked) if fault == tracked.wal_pairs.lost else ""
    return Step(gap=replace(fault, remedy=advice))


def _follow(reader: SourceReader, state: FollowState, cursor: Cursor) -> Step:
    wal_pair, ended = reader.wal_pair, reader.ended
    seen = reader.observe()
    if wal_pair.ended != ended:
        return AT_ONCE
    if ended and not wal_pair.orderly:
        fault = "the WAL was deleted, and no wal-index was seen to tell its last commits from failed ones"
        return gap_step(GapKind.UNCERTAIN, fault, remedy=presence_advice(reader.tracked))
    if not reader.evidence.verified:
        step = resume_following(reader, state, cursor, seen)
        if step is not None:
            return step
    decision = decide(cursor, seen)
    if reader.evidence.waiting is not None and not isinstance(decision, Again):
        reader.note(waiting=None)
    match decision:
        case Again(reason):
            if not ended:
                return again(reader, seen, reason)
            return gap_step(GapKind.UNCERTAIN, "the WAL was deleted, and {reason}", reason=reason)
        case Emptied():
            return leave_emptied(reader, state, cursor)
        case Gap() as gap:
            return Step(gap=gap)
        case Idle():
            return _idle(reader, state, cursor, seen)
        case Copy() as copy:
            return copy_frames(reader, state, copy, seen)
        case Restarted() as found:
            return cross_restart(reader, state, cursor, found, seen)


def _idle(reader: SourceReader, state: FollowState, cursor: Cursor, seen: Observation) -> Step:
    if not reader.holds(cursor):
        now = reader.observe()
        if now.wal is None or salts_now(now) != cursor.salts:  # it was emptied or has restarted just now
            return AT_ONCE
        return Step(gap=written_over(cursor.frames))
    if step := step_if_over(reader, state):
        return step
    moving = reader.is_moving(cursor)
    if seen.index is not None and _lags(reader, cursor, moving=moving):
        return AT_ONCE
    if seen.index is not None:
        reader.index_read(seen.index)
        mark = reader.new_mark(seen.index.ichange)
        reader.note(mark=mark or reader.evidence.mark)
    return Step(caught_up=True, moving=moving)


def _lags(reader: SourceReader, cursor: Cursor, *, moving: bool) -> bool:
    """Whether the live wal-index is not the writer's: two slow looks show the same valid commit unpublished.

    If so, the WAL itself is scanned from now on. If the commit fails after all, that shows as a fork.
    """
    before, now_ms = reader.evidence.lag, reader.environment.monotonic_ms()
    if not moving:
        reader.note(lag=None)
        return False
    if before is None or before.cursor != cursor:
        reader.note(lag=Lag(cursor, cursor.frames, now_ms))
        return False
    if now_ms - before.since_ms < LAG_MS:
        return False
    last = reader.last_commit(cursor)
    reader.note(lag=Lag(cursor, last, now_ms))
    if not cursor.frames < before.last <= last:
        return False
    reader.note(believe_index=False, mark=None)
    return True
