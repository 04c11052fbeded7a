"""A new generation begins before frame 1 of the WAL's current incarnation, all of which is still there.

After a doubt somebody may have written over pages that were copied back (``core.follow.overwritten``). The frames that
were copied back would hide what readers see, so the generation begins after these frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from walsyncd.adapters.files.source import FileIdentity, Role, read_header
from walsyncd.adapters.journal.journal import Advance, GenerationBegun
from walsyncd.core.follow.decision import Cursor, DmsHolder, Observation, cursor_before
from walsyncd.core.follow.follow_state import FollowState, Stream, format_follow_state
from walsyncd.core.follow.overwritten import Overwritten
from walsyncd.core.sqlite.wal import FRAME_HEADER_SIZE, WAL_HEADER_SIZE, Salts, parse_frame_header, parse_wal_header
from walsyncd.core.stored.position import new_generation
from walsyncd.engine.follow.environment import Environment
from walsyncd.engine.follow.file_facts import file_facts, is_settled
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.source_reader import SourceReader
from walsyncd.engine.follow.step import Step
from walsyncd.engine.follow.stuck_state import has_lasted
from walsyncd.errors import MissingError, WalsyncdError

_BEGIN_AGAIN = Step(again_s=0.005)

ROLLBACK_VERSION = 1  # file format write version of a database with a rollback journal; 2 is WAL


def begin_generation(tracked: FollowedDatabase, environment: Environment) -> Step:
    """Return the step that begins a database's next generation. If the step has no state, look again shortly.

    Raises MissingError if there is no database yet.
    """
    row = environment.journal.database_by_id(tracked.row_id)
    now = datetime.fromtimestamp(environment.wall_ms() / 1000, UTC)
    generation = new_generation(now, environment.entropy(), known=row.last_generation)
    step = begin_step(tracked, environment, generation)
    if step.state is None:
        return step
    state = replace(step.state, stream=replace(step.state.stream, time_ms=environment.not_ahead(row.last_time_ms)))
    reason = "following begins again" if row.last_generation else "first generation"
    return Step(state=state, begins=tracked.next_generation.reason or reason)


def advance_by(tracked: FollowedDatabase, step: Step, *, now_ms: int, at_once: Callable[[int], bool]) -> Advance:
    """Return what the journal makes durable of a step with a state.

    ``at_once`` returns whether the next object of a database would be sent without waiting.
    """
    assert step.state is not None, "a step without a state changes nothing"
    follow = format_follow_state(step.state)
    if step.begins:
        begins = GenerationBegun(tracked.row_id, step.state.stream.generation, step.begins, follow, now_ms)
        return Advance(tracked.row_id, follow, (), begins=begins)
    begin = bool(step.objects) and at_once(tracked.row_id)
    return Advance(tracked.row_id, follow, step.objects, begin=begin, rewinds=tracked.rewinds)


def begin_step(tracked: FollowedDatabase, environment: Environment, generation: str) -> Step:
    """Find out where a new generation begins. If the returned step has no state, look again shortly.

    Raises MissingError if there is no database yet.
    """
    wal_pairs = tracked.wal_pairs
    environment.drain()
    wal_pairs.clear()
    database_writes = wal_pairs.database_writes
    wal_pairs.look_around()
    if wal_pairs.error is not None:
        raise wal_pairs.error
    identity, is_rollback = _database(tracked)
    wal_pair = wal_pairs.current
    if not identity.size and (wal_pair is None or not wal_pair.wal.size()):
        raise MissingError(f"{tracked.path} is empty", hint="it is picked up with its first transaction")
    facts = file_facts(identity, environment.boot_id, wal_pair.wal if wal_pair is not None else None)
    mode = "rollback" if wal_pair is None and is_rollback else "wal"
    stream = Stream(generation)
    begun = FollowState(stream, None, stream.epoch, 0, facts.unknown(), mode)
    if wal_pair is not None:
        reader = SourceReader(tracked, environment, wal_pair)
        step = _begin_in_wal(reader, begun)
        if step.state is not None and step.state.cursor is not None:
            step = replace(step, state=replace(step.state, seen=reader.database_seen()))
        return replace(step, evidence=reader.evidence)
    environment.drain()
    if wal_pairs.current is not None or wal_pairs.database_writes != database_writes:
        return _BEGIN_AGAIN
    wal_pairs.confirm_known(database_writes)
    return Step(state=replace(begun, file=facts) if is_settled(facts, environment) else begun)


def _begin_in_wal(reader: SourceReader, begun: FollowState) -> Step:
    seen, wal_pairs = reader.observe(), reader.tracked.wal_pairs
    if wal_pairs.current is not reader.wal_pair or reader.wal_pair.ended:
        return _BEGIN_AGAIN
    if seen.holder is DmsHolder.SETTING_UP:
        has_lasted(reader, seen)
        return _BEGIN_AGAIN
    if seen.holder is not DmsHolder.LIVE:
        if seen.holder is DmsHolder.NONE and not seen.wal_bytes:
            wal_pairs.begin_unwritten(reader.wal_pair)
        return Step(state=_before_wal(begun, seen))
    if seen.index is not None and seen.index.max_frame == seen.index.ichange == 0:
        wal_pairs.begin_unwritten(reader.wal_pair)
        return Step(state=begun)
    if reader.tracked.next_generation.is_doubtful and reader.tracked.bridge is None:
        cursor = _after_copied_back(reader, seen)
        if cursor is not None:
            reader.take_from_file()
            return Step(state=replace(begun, cursor=cursor, overwritten=Overwritten(cursor.salts, cursor.frames)))
    cursor = _live_cursor(seen)
    if cursor is None and has_lasted(reader, seen):
        return Step(state=_before_wal(begun, seen))
    return _BEGIN_AGAIN if cursor is None else Step(state=replace(begun, cursor=cursor))


def _after_copied_back(reader: SourceReader, seen: Observation) -> Cursor | None:
    """Return the cursor after the last frame copied back, or None if no frame was, or if that is unknown."""
    index, wal = seen.index, seen.wal
    if index is None or wal is None or wal.salts != index.salts or not index.backfilled:
        return None
    frame = parse_frame_header(reader.pread(wal.offset_of(index.backfilled), FRAME_HEADER_SIZE))
    if frame is None or frame.salts != wal.salts or not frame.database_pages:
        return None
    return Cursor(wal.salts, wal, index.backfilled, frame.chain)


def _before_wal(begun: FollowState, seen: Observation) -> FollowState:
    return replace(begun, cursor=cursor_before(seen.wal)) if seen.wal is not None else begun


def has_other_salts(tracked: FollowedDatabase, salts: Salts) -> bool:
    """Whether the WAL of the database has restarted since it had ``salts``."""
    file = tracked.open(Role.WAL)
    if file is None:
        return True
    with file:
        wal = parse_wal_header(file.pread(0, WAL_HEADER_SIZE))
    return wal is None or wal.salts != salts


def _database(tracked: FollowedDatabase) -> tuple[FileIdentity, bool]:
    """Return the database file's identity, and whether its header says that it uses a rollback journal.

    Raises MissingError if there is no file.
    """
    file = tracked.open()
    if file is None:
        raise MissingError(f"{tracked.path} does not exist", hint="it is picked up when it appears")
    with file:
        identity, header = file.identity(), read_header(file)
    return identity, header is not None and header.write_version == ROLLBACK_VERSION


def _live_cursor(seen: Observation) -> Cursor | None:
    index = seen.index
    if index is None:
        return None
    if seen.wal is not None and seen.wal.salts == index.salts:
        return cursor_before(seen.wal)
    if index.max_frame:
        return None
    return Cursor(index.salts, None, 0, (0, 0))


def is_in_rollback_mode(tracked: FollowedDatabase) -> bool:
    """Whether the database is in rollback mode now: its header says so, and there is no -wal."""
    try:
        wal = tracked.open(Role.WAL)
        if wal is not None:
            wal.close()
            return False
        file = tracked.open()
        if file is None:
            return False
        with file:
            header = read_header(file)
    except WalsyncdError:
        return False
    return header is not None and header.magic_ok and header.write_version == ROLLBACK_VERSION
