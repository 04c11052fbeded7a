"""Intermediate states that do not pass. SQLite leaves them in microseconds, unless a process stops or dies there.

A look that keeps showing the same state is not repeated for ever. If the header of the wal-index stays torn, or names
a WAL that never comes, the wal-index is not believed any more and the WAL itself is scanned. If only the process that
causes a state can end it, the state is reported.
"""

from __future__ import annotations

from walsyncd.core.follow.decision import DmsHolder, Observation
from walsyncd.core.follow.evidence import StuckLook
from walsyncd.core.follow.gap import GapKind
from walsyncd.engine.follow.source_reader import SourceReader
from walsyncd.engine.follow.step import SHORTLY, Step, gap_step
from walsyncd.errors import TransientError

PATIENCE_MS = 5_000  # a busy machine may keep a process waiting for seconds, but seldom for five seconds


def has_lasted(reader: SourceReader, seen: Observation) -> bool:
    """Whether every look for ``PATIENCE_MS`` has shown exactly what this look has ``seen``.

    Raises TransientError if only the process that causes the state can end it.
    """
    before, now_ms = reader.evidence.waiting, reader.environment.monotonic_ms()
    if before is None or before.seen != seen:
        reader.note(waiting=StuckLook(seen, now_ms))
        return False
    if now_ms - before.since_ms < PATIENCE_MS:
        return False
    if seen.holder is DmsHolder.SETTING_UP:
        raise TransientError(
            f"look at {reader.tracked.path}: a process has been setting up the wal-index for {PATIENCE_MS // 1000} s",
            hint="it may be stopped: lslocks shows who holds a lock on the -shm file",
        )
    return True


def again(reader: SourceReader, seen: Observation, reason: str) -> Step:
    """Look again, for ``reason``, as long as that helps."""
    if not has_lasted(reader, seen):
        return SHORTLY
    reader.note(waiting=None)
    seconds = PATIENCE_MS // 1000
    if seen.holder is DmsHolder.LEAVING:
        return gap_step(GapKind.DOUBT, "somebody has removed the -shm file of a database in use")
    if seen.holder is DmsHolder.NONE:
        return gap_step(GapKind.UNCERTAIN, "for {seconds} s {reason}", seconds=seconds, reason=reason)
    reader.note(believe_index=False, mark=None)
    return Step(again_s=0, doubt=f"for {seconds} s {reason}")
