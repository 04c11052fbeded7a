"""While there is no WAL: whether anything changed the database.

- Nothing changed the database if no event of a change came since its content was known, or if the file's size and times
  are those that were noted then. Size and times are compared even if no event came, in case an event was lost. They are
  noted once the file has been quiet for longer than the granularity of file times.
- If a database in WAL mode changes without a WAL, that is a gap. In rollback mode the changes are shipped as pages
  (``PageScans``). Where that is impossible, every change begins an epoch of its own, which holds nothing but the base
  that the change requires. The change is known once that epoch is durable.
- An application that uses the database by another path has its WAL elsewhere (``core.follow.other_path``).
"""

from __future__ import annotations

from dataclasses import replace

from walsyncd.adapters.files.other_path_sign import other_path_sign
from walsyncd.core.follow.follow_state import FileFacts, FollowState
from walsyncd.core.follow.gap import GapKind
from walsyncd.core.follow.other_path import APART_MS, OtherPath
from walsyncd.engine.follow.environment import Environment
from walsyncd.engine.follow.file_facts import database_identity, file_facts, is_settled, settling_ms
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.step import AT_ONCE, SHORTLY, Step, gap_step
from walsyncd.engine.follow.wal_pairs import REPLACED

ENTERED_WAL = "the database changed to WAL mode"
CERTAIN_LOOK_S = 10.0  # while another path is certainly used, looks check this often whether it still is


def look_without_wal(tracked: FollowedDatabase, environment: Environment, state: FollowState) -> Step:
    """Look at a database that has no WAL."""
    wal_pairs = tracked.wal_pairs
    wal_pairs.look_around()
    if wal_pairs.error is not None:
        raise wal_pairs.error
    if wal_pairs.queue:
        return AT_ONCE
    if state.cursor is not None:
        return gap_step(GapKind.UNCERTAIN, "the WAL was deleted while it was not watched")
    if state.mode == "rollback" and tracked.scans is not None and (step := tracked.scans.look(state)) is not None:
        return step
    other_path, hidden_s = look_for_other_path(tracked, environment)
    step = _look_at_file(tracked, environment, state, hidden_s)
    is_doubtful = hidden_s is not None and not other_path.is_certain
    return replace(step, other_path=other_path, caught_up=step.caught_up and not is_doubtful)


def _look_at_file(
    tracked: FollowedDatabase, environment: Environment, state: FollowState, hidden_s: float | None
) -> Step:
    wal_pairs = tracked.wal_pairs
    database_writes, told = wal_pairs.database_writes, wal_pairs.trail.told
    facts = file_facts(database_identity(tracked), environment.boot_id, None)
    environment.drain()
    if wal_pairs.queue:
        return AT_ONCE
    if wal_pairs.database_writes != database_writes:
        return SHORTLY
    if not facts.is_file(state.file):
        return gap_step(GapKind.REPLACED, REPLACED)
    untold = wal_pairs.is_written_untold((facts.size, facts.mtime_ns), told, environment.monotonic_ms())
    changed = untold or not is_unchanged(facts, state.file, is_unwritten=wal_pairs.is_unwritten)
    if changed and state.mode == "wal":
        return gap_step(GapKind.UNCERTAIN, "the database was changed while it had no WAL")
    settled = is_settled(facts, environment)
    look = facts if settled else facts.unknown()
    again_s = hidden_s if settled else settling_ms(facts) / 1000
    if changed:
        stream = environment.next_epoch(state.stream)
        state = replace(state, stream=stream, start_epoch=stream.epoch, start_frame=0, file=look)
        why = "the database changed"
        return Step(state=state, known_upto=database_writes, caught_up=True, base_wanted=why, again_s=again_s)
    now = replace(state, file=look) if look != state.file else None
    return Step(state=now, known_upto=database_writes, caught_up=True, again_s=again_s)


def end_of_wal(tracked: FollowedDatabase, environment: Environment, state: FollowState) -> Step:
    """Return the step after a WAL that was read to its end and that SQLite has deleted."""
    facts = file_facts(database_identity(tracked), environment.boot_id, None).unknown()
    return Step(state=replace(state.entered(None), file=facts), life_ended=True, again_s=0)


def is_unchanged(now: FileFacts, then: FileFacts, *, is_unwritten: bool) -> bool:
    """Whether nothing wrote to the database since ``then``.

    ``is_unwritten``: events are watched, and none reported a write.
    """
    if is_unwritten:
        return not then.known or now.has_content_of(then)
    return now.looks_like(then)


def look_for_other_path(tracked: FollowedDatabase, environment: Environment) -> tuple[OtherPath, float | None]:
    """Return the signs up to this look at a database without a WAL, and the seconds until the look for the next sign.

    The seconds are None if no look is needed for that alone.
    """
    now_ms, writes = environment.monotonic_ms(), tracked.wal_pairs.database_writes
    sign = other_path_sign(tracked.path, own_only=tracked.spec.is_match)
    found = tracked.other_path.beside_none(now_ms, is_bare=sign.is_bare, is_locked=sign.is_locked, writes=writes)
    if found.is_certain:
        return found, CERTAIN_LOOK_S
    return found, APART_MS / 1000 if sign.is_bare and sign.is_locked else None
