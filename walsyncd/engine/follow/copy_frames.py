"""The most frequent step: new frames of the incarnation that we follow become a segment.

- One look reads some frames, and takes the complete transactions among them. A larger transaction is collected over
  several steps, and nothing of it is durable before its commit.
- What was read counts only if the headers, read again afterwards, show the same incarnation.
- An epoch is closed when it is full or old. It is closed at a restart of the WAL, if the restart comes soon enough,
  because a base can only begin in the epoch in which the WAL's current incarnation began. If the restart does not come
  soon enough, the incarnation's pages are stored again for the base (``engine.content.epoch_start``). An epoch is never
  closed while a base is under way, or wanted, or can begin now.
- Without a wal-index, the last commit must be searched for. While a transaction grows for a long time, a search that
  finds no commit is expensive, so the next search waits in proportion.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from walsyncd.adapters.journal.journal import NewObject
from walsyncd.core.follow.decision import (
    Again,
    Copy,
    CounterMark,
    Cursor,
    Observation,
    may_go_on,
    settle,
    written_over,
)
from walsyncd.core.follow.evidence import Scanned
from walsyncd.core.follow.follow_state import FollowState, Stream
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.sqlite.wal import Frames
from walsyncd.engine.follow.environment import Environment
from walsyncd.engine.follow.no_wal import end_of_wal
from walsyncd.engine.follow.segment_builder import FrameCollector, LongTransaction, SegmentBuilder
from walsyncd.engine.follow.source_reader import SourceReader, reached_after
from walsyncd.engine.follow.step import AT_ONCE, Step, gap_step
from walsyncd.errors import WalsyncdError

EPOCH_FRAMES_MAX = 1 << 31  # a frame number has 32 bits, and an epoch with a base under way is not closed
UNLOCKED_REMEDY = (
    "restart the application, use SQLite 3.50.2 or later, and let nothing in its process open and close the -shm file"
)
UNLOCKED = "a process uses the wal-index without SQLite's locks, and the WAL does not hold what it commits"
AHEAD_FRAMES_MIN = 32  # a look that finds so many frames may be one of a burst
SCAN_REST = 10  # a scan that found nothing new is followed by a rest of this many times its duration


@dataclass(frozen=True, slots=True)
class FramesSeen:
    """All that a look has read: the frames after ``reached``, and the headers before and after the reading.

    The headers are read twice because what was read is good only if the WAL did not restart meanwhile (``settle``).
    """

    copy: Copy
    reached: Cursor
    frames: Frames
    before: Observation
    after: Observation


def copy_frames(reader: SourceReader, state: FollowState, copy: Copy, seen: Observation) -> Step:
    """Read some frames and take the complete transactions among them."""
    header = copy.cursor.header
    assert header is not None
    if fault := why_not_appendable(state.stream, header.page_size):
        return Step(gap=fault)
    if copy.last is None:
        if not reader.still_holds(copy.cursor):
            return _forked(reader, copy.cursor)
        copy = Copy(copy.cursor, _scan(reader, copy.cursor))
        if _is_index_used(reader, copy):
            return Step(gap=Gap(GapKind.DOUBT, UNLOCKED, remedy=UNLOCKED_REMEDY, blocked=copy.cursor.salts))
        if copy.last == copy.cursor.frames:
            return step_if_over(reader, state) or Step(caught_up=True)
    assert copy.last is not None
    reached = reader.pending.cursor if reader.pending is not None else copy.cursor
    if reached.frames >= copy.last:  # what was collected is not there any more
        reader.drop_pending()
        return AT_ONCE
    count = min(copy.last - reached.frames, max(1, reader.environment.limits.batch_bytes // header.frame_size))
    frames = reader.read(reached, count)
    holds = reader.holds(reached)  # after the reading, so that the next look sees what is written over after this one
    after = reader.observe()
    match settle(copy, frames, after, asked=reached.frames + count):
        case Again(_):
            reader.drop_pending()
            reader.note(scanned=None)
            return AT_ONCE
        case Gap() as gap:
            return Step(gap=gap)
        case _ if not holds:
            if after.wal is not None:
                return Step(gap=written_over(reached.frames))
            reader.drop_pending()  # the WAL was emptied just now
            return AT_ONCE
        case settled:
            return _take(reader, state, FramesSeen(copy, reached, settled, seen, after))


def step_if_over(reader: SourceReader, state: FollowState) -> Step | None:
    """Return the step if nothing came after the cursor and the WAL was deleted. Returns None if it was not deleted.

    If the WAL was deleted during the look, a commit may have come between the reading and the deletion.
    """
    if not reader.wal_pair.ended:
        return None
    return end_of_wal(reader.tracked, reader.environment, state) if reader.ended else AT_ONCE


def why_not_appendable(stream: Stream, page_size: int) -> Gap | None:
    """Return why frames of this page size can't be appended to the stream's epoch, or None if they can."""
    if stream.stamp is not None and stream.stamp.page_size != page_size:
        text = "the page size changed from {before} to {now} bytes"
        return Gap.of(GapKind.CHANGED, text, before=stream.stamp.page_size, now=page_size)
    if stream.frame >= EPOCH_FRAMES_MAX:
        text = "epoch {epoch} has {frames} frames and could not be closed: its base takes too long"
        return Gap.of(GapKind.CHANGED, text, epoch=stream.epoch, frames=stream.frame)
    return None


def _forked(reader: SourceReader, cursor: Cursor) -> Step:
    """Return the step for a WAL that has another frame in the place of the cursor's.

    Such a WAL was emptied or has restarted just now, or history was rewritten.
    """
    wal = reader.observe().wal
    if wal is None or wal.salts != cursor.salts:
        return AT_ONCE
    text = "frame {frame}, which was shipped, is gone from the WAL: history forked"
    return gap_step(GapKind.REVERTED, text, frame=cursor.frames)


def _is_index_used(reader: SourceReader, copy: Copy) -> bool:
    """Whether the wal-index has more frames than the WAL's chain, and still counts, although nobody seems to use it.

    A process that opens and closes the -shm by itself drops the locks that SQLite has in it (fcntl(2)). The chain is
    read again after the wal-index, because the frames of a commit are in the WAL before the commit is published.
    """
    index, counted = reader.left_index(), reader.evidence.stale_ichange
    if index is None or copy.last is None or index.salts != copy.cursor.salts:
        return False
    reader.note(stale_ichange=index.ichange)
    if index.max_frame <= copy.last or counted in {None, index.ichange}:
        return False
    return index.max_frame > reader.last_commit(copy.cursor)


def _scan(reader: SourceReader, cursor: Cursor) -> int:
    """Return the last commit frame in the WAL, or the cursor's own frame if no commit comes after the cursor."""
    scanned, clock = reader.evidence.scanned, reader.environment.monotonic_ms
    if scanned is not None and scanned.salts == cursor.salts and scanned.last > cursor.frames:
        return scanned.last
    began_ms = clock()
    last = reader.last_commit(cursor)
    reader.note(scanned=Scanned(cursor.salts, last))
    if last == cursor.frames:
        now_ms = clock()
        reader.rest_until_s = (now_ms + SCAN_REST * (now_ms - began_ms)) / 1000
    return last


def _take(reader: SourceReader, state: FollowState, found: FramesSeen) -> Step:
    """Turn settled frames into a segment, or hold them until their commit is read."""
    copy, reached, frames = found.copy, found.reached, found.frames
    pending, batch = reader.pending, reader.batch
    commits = frames.commits
    if pending is None and not commits and batch is not None and batch.is_open:
        return AT_ONCE  # a transaction of several batches has a segment of its own
    whole = frames.upto(commits[-1]) if commits else frames
    cursor = reached_after(whole, reached)
    if commits and _is_burst(reader, whole.count):
        reader.read_ahead(cursor)
    if pending is None:
        state = close_epoch_if_due(reader, state, copy.cursor)
        pending = LongTransaction(new_collector(reader, state.stream, copy.cursor), state, reached)
    reader.pending = LongTransaction(pending.collector, pending.state, cursor)
    try:
        pending.collector.add(whole, reader.seen())
        if not commits:
            return AT_ONCE
        objects, stream = finish_or_keep(reader, pending.collector, len(whole.data))
    except WalsyncdError:  # no room in the spool
        reader.drop_pending()
        raise
    reader.pending = None
    done = cursor.frames == copy.last
    reader.note(mark=_mark_after(reader, found, whole, done=done))
    return Step(
        state=replace(pending.state, stream=stream, cursor=cursor),
        objects=objects,
        again_s=None if done and not reader.wal_pair.ended else 0,
        caught_up=done,
        moving=done and reader.is_followed(frames, cursor),
    )


def _mark_after(reader: SourceReader, found: FramesSeen, whole: Frames, *, done: bool) -> CounterMark | None:
    """Return the mark after ``whole``: a new mark, else the old mark advanced by the commits read since then."""
    old, index = reader.evidence.mark, found.before.index
    if index is None:
        return None
    if done:
        reader.index_read(index, goes_on=may_go_on(index, found.frames.next_salts, found.after.index))
    mark = reader.new_mark(index.ichange) if done else None
    if mark is not None or old is None:
        return mark
    counter = reader.counter(found.copy.cursor)
    counter.feed(whole)
    tally = counter.tally()
    return None if tally.doubtful else old.grown(len(tally.commits))


def _is_burst(reader: SourceReader, count: int) -> bool:
    """Whether ``count`` frames since the mark show that the writer is fast, so its WAL must be read ahead."""
    mark = reader.evidence.mark
    if count < AHEAD_FRAMES_MIN or mark is None:
        return False
    elapsed_ms = max(1, reader.environment.monotonic_ms() - mark.seen_ms)
    return 1000 * count >= reader.environment.limits.ahead_frames_per_s * elapsed_ms


def new_collector(reader: SourceReader, stream: Stream, cursor: Cursor) -> FrameCollector:
    """Return the segment that continues ``stream``. While a gap is bridged, return what takes the frames instead."""
    assert cursor.header is not None
    if reader.tracked.bridge is not None:
        return reader.tracked.bridge.collector(stream)
    segment = reader.batch.segment_after(stream) if reader.batch is not None else None
    environment = reader.environment
    if segment is not None:
        segment.goes_on(reader.seen_ms())
        return segment
    return SegmentBuilder(
        environment.journal,
        stream,
        page_size=cursor.header.page_size,
        salts=environment.salts(),
        seen_ms=reader.seen_ms(),
        memory_bytes_max=environment.limits.memory_bytes_max,
        file_bytes_max=environment.spool_bytes_max(),
    )


def finish_or_keep(reader: SourceReader, collector: FrameCollector, size: int) -> tuple[tuple[NewObject, ...], Stream]:
    """Return what is to be shipped, and the stream after that. A batch keeps its segment open, and ships it later."""
    if reader.batch is not None:
        assert isinstance(collector, SegmentBuilder)  # while a gap is bridged, each look is a step of its own
        return (), reader.batch.keep(collector, size)
    new, stream = collector.finish()
    return () if new is None else (new,), stream


def is_epoch_over(environment: Environment, stream: Stream, *, patience: int = 1) -> bool:
    """Whether an epoch exceeds ``patience`` times the limits of size and age, or began while the clock was ahead."""
    limits, age_ms = environment.limits, environment.wall_ms() - stream.began_ms
    is_due = stream.bytes >= limits.epoch_bytes * patience or age_ms >= limits.epoch_ms * patience
    return is_due or environment.is_ahead(stream.time_ms)


def close_epoch_if_due(reader: SourceReader, state: FollowState, cursor: Cursor) -> FollowState:
    """Return a state whose epoch has room. An epoch that is full or old, or began with a clock ahead, is closed."""
    stream = state.stream
    environment, base = reader.environment, reader.tracked.base
    if stream.frame == 0:
        return replace(state, stream=environment.empty_epoch(stream))
    if base.under_way or base.wanted or base.can_begin(state):
        return state
    patience = 1 if cursor.frames == 0 else environment.limits.epoch_patience
    if not is_epoch_over(environment, stream, patience=patience):
        return state
    stream = environment.next_epoch(stream)
    if cursor.frames == 0:
        return replace(state, stream=stream, start_epoch=stream.epoch, start_frame=0)
    return replace(state, stream=stream)
