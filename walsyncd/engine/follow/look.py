"""One look at one database: sight, decide, read, settle.

A look takes one or several steps; each reads one bounded batch or crosses one seam, so that no database waits behind
another's gigabyte. ``decision`` and ``restart`` decide; ``resumption``, ``copying``, ``proof``, ``birth`` and
``absence`` read what they ask for. Nothing is made durable here.

What the event queue says while a step is taken counts as much as what it said before: if another file came to the
database's place, or a WAL may have been missed, the step is void.
"""

from __future__ import annotations

from dataclasses import replace

from walsyncd.core.follow.decision import Again, Copy, Cursor, Emptied, Idle, Observation, Restarted, decide
from walsyncd.core.follow.follow_state import FollowState
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.engine.follow.begin_generation import first_frames, leave_emptied, presence_advice
from walsyncd.engine.follow.copy_frames import copy_frames
from walsyncd.engine.follow.environment import Environment
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.no_wal import look_without_wal
from walsyncd.engine.follow.resume import resume_following
from walsyncd.engine.follow.segment_builder import TooLargeError
from walsyncd.engine.follow.source_reader import SourceReader, database_identity, file_facts
from walsyncd.engine.follow.step import AT_ONCE, Step, gap_step
from walsyncd.engine.follow.stuck_state import again
from walsyncd.engine.follow.wal_pairs import REPLACED
from walsyncd.engine.follow.wal_restart import cross_restart

REVOKED = (
    "the wal-index was closed right after the WAL restarted: if a writer was killed before, the commits were miscounted"
)
LAG_MS = 290_000  # about the time between two slow looks: a wal-index behind the WAL for so long stays behind


def take_step(tracked: FollowedDatabase, environment: Environment) -> Step:
    """Take one step of a look at a database that has a generation."""
    state, wal_pairs = tracked.state, tracked.wal_pairs
    assert state is not None
    environment.drain()
    if wal_pairs.error is not None and wal_pairs.current is None:
        wal_pairs.look_around()
        if wal_pairs.error is not None:
            raise wal_pairs.error
    if fault := _elsewhere(tracked, environment, state):
        return _gone(tracked, fault)
    if _is_called_in(tracked, environment):
        return gap_step(GapKind.UNCERTAIN, REVOKED)
    try:
        step = _step(tracked, environment, state)
    except TooLargeError as error:  # no generation gets past it before the WAL begins anew
        tracked.drop_pending()
        salts = state.cursor.salts if state.cursor is not None else None
        return Step(gap=Gap(GapKind.SPOOL, "{problem}", {"problem": error.message}, error.hint, salts))
    if fault := wal_pairs.replaced or wal_pairs.lost:
        return _gone(tracked, fault)
    return replace(step, caught_up=step.caught_up and len(wal_pairs.queue) <= 1)


def _step(tracked: FollowedDatabase, environment: Environment, state: FollowState) -> Step:
    wal_pair = tracked.wal_pairs.current
    if wal_pair is None:
        return look_without_wal(tracked, environment, state)
    reader = SourceReader(tracked, environment, wal_pair)
    if state.cursor is None:
        return first_frames(reader, state)
    return _follow(reader, state, state.cursor)


def _elsewhere(tracked: FollowedDatabase, environment: Environment, state: FollowState) -> Gap | None:
    """What made another database, or another history, of the one that we follow, if anything did."""
    wal_pairs = tracked.wal_pairs
    if wal_pairs.replaced or wal_pairs.lost:
        return wal_pairs.replaced or wal_pairs.lost
    if wal_pairs.blind or not wal_pairs.watched:
        wal_pairs.blind = False
        wal_pairs.look_around()
        if not file_facts(database_identity(tracked), environment.boot_id, None).is_file(state.file):
            return Gap.of(GapKind.REPLACED, REPLACED)
    return None


def _is_called_in(tracked: FollowedDatabase, environment: Environment) -> bool:
    """Whether a CLOSE_WRITE has come that a count was believed without (``proof``)."""
    provisional, wal_pair = tracked.provisional, tracked.wal_pairs.current
    if provisional is None:
        return False
    if wal_pair is None or wal_pair.serial != provisional.shm_serial:
        tracked.provisional = None
        return False
    if wal_pair.closed != provisional.closed:
        return True
    if environment.monotonic_ms() >= provisional.until_ms:
        tracked.provisional = None
    return False


def _gone(tracked: FollowedDatabase, fault: Gap) -> Step:
    """The gap where another file came, or a WAL that nobody saw."""
    advice = presence_advice(tracked) if fault == tracked.wal_pairs.lost else ""
    return Step(gap=replace(fault, remedy=advice))


def _follow(reader: SourceReader, state: FollowState, cursor: Cursor) -> Step:
    wal_pair, tracked = reader.wal_pair, reader.tracked
    ended = wal_pair.ended
    seen = reader.observe()
    if wal_pair.ended != ended:
        return AT_ONCE
    if ended and not wal_pair.orderly:
        fault = "the WAL was deleted, and no wal-index was seen to tell its last commits from failed ones"
        return gap_step(GapKind.UNCERTAIN, fault, remedy=presence_advice(tracked))
    if not tracked.verified:
        step = resume_following(reader, state, cursor, seen)
        if step is not None:
            return step
    decision = decide(cursor, seen)
    if not isinstance(decision, Again):
        tracked.waiting = None
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
    tracked = reader.tracked
    if reader.wal_pair.ended:
        facts = file_facts(database_identity(tracked), reader.environment.boot_id, None).unknown()
        return Step(state=replace(state.entered(None), file=facts), life_ended=True, again_s=0)
    moving = reader.is_moving(cursor)
    if seen.index is not None and _lags(reader, cursor, moving=moving):
        return AT_ONCE
    if seen.index is not None:
        reader.index_read(seen.index)
    mark = reader.new_mark(seen.index.ichange) if seen.index is not None else None
    return Step(mark=mark, caught_up=True, moving=moving)


def _lags(reader: SourceReader, cursor: Cursor, *, moving: bool) -> bool:
    """Whether the live wal-index is not the writer's: a valid commit stands unpublished at two slow looks.

    Then the WAL itself is scanned from now on. Should the commit fail after all, that shows as a fork.
    """
    tracked, now_ms = reader.tracked, reader.environment.monotonic_ms()
    if not moving:
        tracked.lagging = None
        return False
    before = tracked.lagging
    if before is None or before[0] != cursor:
        tracked.lagging = (cursor, cursor.frames, now_ms)
        return False
    if now_ms - before[2] < LAG_MS:
        return False
    last = reader.last_commit(cursor)
    tracked.lagging = (cursor, last, now_ms)
    if not cursor.frames < before[1] <= last:
        return False
    tracked.believe_index, tracked.mark = False, None
    return True
