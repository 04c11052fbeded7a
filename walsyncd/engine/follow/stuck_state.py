"""Moments in between that do not pass: SQLite is through them in microseconds, unless a process stops or dies there.

A look that keeps showing the same one is not repeated for ever: a wal-index whose header stays torn, or names a WAL
that never comes, is not believed any more, and the WAL itself is scanned; what only its user can end is said.
"""

from __future__ import annotations

from walsyncd.core.follow.decision import DmsHolder, Observation
from walsyncd.core.follow.gap import GapKind
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.source_reader import SourceReader
from walsyncd.engine.follow.step import SHORTLY, Step, gap_step
from walsyncd.errors import TransientError

PATIENCE_MS = 5_000  # a busy machine may keep a process waiting for seconds, seldom for five


def has_lasted(tracked: FollowedDatabase, seen: Observation, now_ms: int) -> bool:
    """Whether every look for a while has shown exactly this; TransientError if only its user can end it."""
    before = tracked.waiting
    if before is None or before[0] != seen:
        tracked.waiting = seen, now_ms
        return False
    if now_ms - before[1] < PATIENCE_MS:
        return False
    if seen.holder is DmsHolder.SETTING_UP:
        raise TransientError(
            f"look at {tracked.path}: a process has been setting up the wal-index for {PATIENCE_MS // 1000} s",
            hint="it may be stopped: lslocks shows who holds a lock on the -shm file",
        )
    return True


def again(reader: SourceReader, seen: Observation, reason: str) -> Step:
    """Look again, for ``reason``, as long as that helps."""
    tracked = reader.tracked
    if not has_lasted(tracked, seen, reader.environment.monotonic_ms()):
        return SHORTLY
    tracked.waiting = None
    seconds = PATIENCE_MS // 1000
    if seen.holder is DmsHolder.NONE:
        return gap_step(GapKind.UNCERTAIN, "for {seconds} s {reason}", seconds=seconds, reason=reason)
    tracked.believe_index, tracked.mark = False, None
    return Step(again_s=0, doubt=f"for {seconds} s {reason}")
