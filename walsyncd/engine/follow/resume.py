"""The checks after a start of the daemon, before the WAL is believed to continue where the last run stopped.

- The database is the file that we followed, else it is a gap. If it was written since, that was a checkpoint if
  nBackfill or the salts have changed too.
- In the same boot and with the same -wal, our last frame with its checksum proves all frames before it. After a
  reboot, or with another -wal, blocks before it may be lost, so the chain is verified from frame 1 on.
- After a reboot, frames after ours count once a live connection has published them, or once nobody has had the
  database open for a while.
- With other salts, the restart must be proven. That proof checks the boot itself.

Only then does the follow state record this boot and this -wal.
"""

from __future__ import annotations

from dataclasses import replace

from walsyncd.core.follow.decision import Cursor, DmsHolder, Observation, cursor_before, salts_now
from walsyncd.core.follow.follow_state import FileFacts, FollowState
from walsyncd.core.follow.gap import GapKind
from walsyncd.engine.follow.source_reader import SourceReader, reached_after
from walsyncd.engine.follow.step import AT_ONCE, Step, gap_step
from walsyncd.engine.follow.wal_pairs import REPLACED

QUIET_AFTER_REBOOT_MS = 10_000
WRITTEN_MEANWHILE = "the database was written while the daemon did not watch it, and no checkpoint explains it"


def resume_following(reader: SourceReader, state: FollowState, cursor: Cursor, seen: Observation) -> Step | None:
    """Verify what was shipped. Returns None if it is there and nothing else is to be done."""
    facts = reader.facts()
    if not facts.is_file(state.file):
        return gap_step(GapKind.REPLACED, REPLACED)
    if state.seen is not None and not state.seen.explains(reader.database_seen()):
        return gap_step(GapKind.DOUBT, WRITTEN_MEANWHILE)
    salts = salts_now(seen)
    if salts != cursor.salts:
        reader.note(verified=salts is not None)
        return None
    resumed = _resumed(facts, state.file)
    if not resumed and not _is_settled(reader, facts, state, seen):
        return Step(again_s=1.0)
    held = cursor.frames if resumed and reader.still_holds(cursor) else _frames_held(reader, cursor)
    if salts_now(reader.observe()) != cursor.salts:
        return AT_ONCE
    if held != cursor.frames:
        text = "the WAL holds {held} of {shipped} frames that were shipped: history forked"
        return gap_step(GapKind.REVERTED, text, held=held, shipped=cursor.frames)
    reader.note(verified=True, quiet_since_ms=None)
    return None if resumed else Step(state=replace(state, file=facts), again_s=0)


def _resumed(now: FileFacts, then: FileFacts) -> bool:
    """Whether the machine was not rebooted and the -wal is the same file."""
    return (now.boot_id, now.wal_inode) == (then.boot_id, then.wal_inode)


def _is_settled(reader: SourceReader, facts: FileFacts, state: FollowState, seen: Observation) -> bool:
    """Whether the frames after ours will still be there for the next opener."""
    if facts.boot_id == state.file.boot_id or seen.holder is DmsHolder.LIVE:
        return True
    now_ms, since_ms = reader.environment.monotonic_ms(), reader.evidence.quiet_since_ms
    if since_ms is None:
        reader.note(quiet_since_ms=now_ms)
        return False
    return now_ms - since_ms >= QUIET_AFTER_REBOOT_MS


def _frames_held(reader: SourceReader, cursor: Cursor) -> int:
    """Return how many of the frames up to the cursor are unchanged, which is one less if only the last differs."""
    if cursor.header is None:
        return cursor.frames
    reached = cursor_before(cursor.header)
    for frames in reader.run(reached, cursor.frames):
        reached = reached_after(frames, reached)
    if reached.frames == cursor.frames and reached.chain != cursor.chain:
        return cursor.frames - 1
    return reached.frames
