"""While there is no WAL: whether anything changed the database.

- Nothing did if there was no event of a change since its content was known, or if the file's size and times are as
  they were when they were recorded. Size and mtime are compared also where no event came, in case one was missed.
- Size and times are recorded once the file has been quiet for longer than the granularity of file times.
- A database in WAL mode may not change without a WAL: that is a gap. In rollback mode every change makes an epoch of
  its own, which is empty but for the base that is wanted then. The change is known once that epoch is durable.
"""

from __future__ import annotations

from dataclasses import replace

from walsyncd.core.follow.follow_state import FileFacts, FollowState
from walsyncd.core.follow.gap import GapKind
from walsyncd.engine.follow.environment import Environment
from walsyncd.engine.follow.file_facts import database_identity, file_facts
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.step import AT_ONCE, SHORTLY, Step, gap_step
from walsyncd.engine.follow.wal_pairs import REPLACED

SETTLED_MS = 2_000  # the coarsest file times that Linux keeps, those of FAT
SETTLED_FINE_MS = 100  # times in nanoseconds still are those of the last clock tick, 10 ms ago at most
_NS = 1_000_000


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
    database_writes = wal_pairs.database_writes
    facts = file_facts(database_identity(tracked), environment.boot_id, None)
    environment.drain()
    if wal_pairs.queue:
        return AT_ONCE
    if wal_pairs.database_writes != database_writes:
        return SHORTLY
    if not facts.is_file(state.file):
        return gap_step(GapKind.REPLACED, REPLACED)
    changed = not is_unchanged(facts, state.file, is_unwritten=wal_pairs.is_unwritten)
    if changed and state.mode == "wal":
        return gap_step(GapKind.UNCERTAIN, "the database was changed while it had no WAL")
    settled = is_settled(facts, environment)
    look = facts if settled else facts.unknown()
    again_s = None if settled else settling_ms(facts) / 1000
    if changed:
        stream = state.stream.next_epoch()
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

    ``is_unwritten``: there was no event of a write, and there would have been one.
    """
    if is_unwritten:
        return not then.known or now.has_content_of(then)
    return now.looks_like(then)


def is_settled(facts: FileFacts, environment: Environment) -> bool:
    """Whether a change of the file from now on would change its times."""
    return environment.wall_ms() - facts.ctime_ns // _NS > settling_ms(facts)


def settling_ms(facts: FileFacts) -> int:
    """Return how long a file must have been quiet, by the granularity of its file system's times.

    A time that is not a whole number of milliseconds shows that the file system does not round to such (FAT rounds to
    2 s, exFAT to 10 ms).
    """
    is_fine = facts.ctime_ns % _NS and facts.mtime_ns % _NS
    return SETTLED_FINE_MS if is_fine else SETTLED_MS
