"""Reads what the first look after a start of the daemon has to verify. ``core.follow.resumption`` decides.

The headers, which the look has read already, come first. Then the database file is read, then the frames that were
shipped, then the headers again, because the WAL must not have restarted meanwhile.

The follow state records this boot and this -wal only after everything is verified.
"""

from __future__ import annotations

from dataclasses import replace

from walsyncd.core.follow.decision import Again, Cursor, Observation, cursor_before
from walsyncd.core.follow.follow_state import FollowState
from walsyncd.core.follow.gap import Gap
from walsyncd.core.follow.resumption import (
    OtherIncarnation,
    ResumeSeen,
    VerifyFrames,
    WaitForQuiet,
    decide_resume,
    settle_resume,
)
from walsyncd.engine.follow.source_reader import SourceReader, reached_after
from walsyncd.engine.follow.step import AT_ONCE, Step


def resume_following(reader: SourceReader, state: FollowState, cursor: Cursor, seen: Observation) -> Step | None:
    """Verify what was shipped. Returns None if the WAL holds it and nothing else is to be done."""
    resume = _see(reader, state, cursor, seen)
    match decide_resume(resume):
        case Gap() as gap:
            return Step(gap=gap)
        case OtherIncarnation(is_known):
            reader.note(verified=is_known)
            return None
        case WaitForQuiet(since_ms):
            reader.note(quiet_since_ms=since_ms)
            return Step(again_s=1.0)
        case VerifyFrames(is_last_enough):
            is_there = is_last_enough and reader.still_holds(cursor)
            held = cursor.frames if is_there else _frames_held(reader, cursor)
    match settle_resume(cursor, held, reader.observe()):
        case Again():
            return AT_ONCE
        case Gap() as gap:
            return Step(gap=gap)
    reader.note(verified=True, quiet_since_ms=None)
    return None if resume.is_resumed else Step(state=replace(state, file=resume.file_now), again_s=0)


def _see(reader: SourceReader, state: FollowState, cursor: Cursor, seen: Observation) -> ResumeSeen:
    """Look at the database file. Its content beside the WAL matters only if it is the file that we followed."""
    file_now = reader.facts()
    is_compared = state.seen is not None and file_now.is_file(state.file)
    return ResumeSeen(
        cursor=cursor,
        seen=seen,
        file=state.file,
        file_now=file_now,
        beside_wal=state.seen,
        beside_wal_now=reader.database_seen() if is_compared else None,
        now_ms=reader.environment.monotonic_ms(),
        quiet_since_ms=reader.evidence.quiet_since_ms,
    )


def _frames_held(reader: SourceReader, cursor: Cursor) -> int:
    """Return how many frames up to the cursor are unchanged. If only the last differs, all before it count."""
    if cursor.header is None:
        return cursor.frames
    reached = cursor_before(cursor.header)
    for frames in reader.run(reached, cursor.frames):
        reached = reached_after(frames, reached)
    if reached.frames == cursor.frames and reached.chain != cursor.chain:
        return cursor.frames - 1
    return reached.frames
