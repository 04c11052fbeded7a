"""Reading one database's files for a look: headers, and verified frames in bounded batches.

- The holder of the wal-index is queried through a descriptor that the path names. Then the wal-index is read, then the
  WAL's header, and then the event queue is drained. Only then is anything believed.
- A last close leaves a deleted -shm, whose -wal still exists or was deleted after it. The last mxFrame in this -shm
  shows what was committed, as mxFrame in a live -shm does.
- A live wal-index that lags behind the WAL is not believed until it has caught up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from walsyncd.adapters.files.source import OpenFile
from walsyncd.adapters.files.wal_headers import WalHeaders, read_wal_headers
from walsyncd.core.follow.decision import (
    CLOSE_LATE_MS,
    CounterMark,
    Cursor,
    DmsHolder,
    Observation,
    ProvisionalProof,
    ShmEvidence,
)
from walsyncd.core.follow.follow_state import FileFacts, SeenBesideWal
from walsyncd.core.follow.restart import Counter
from walsyncd.core.follow.restart_seen import CounterEvidence
from walsyncd.core.sqlite.wal import (
    FRAME_HEADER_SIZE,
    FrameHeader,
    Frames,
    Salts,
    WalHeader,
    is_unknown_wal,
    parse_frame_header,
    parse_wal_header,
    read_frames,
)
from walsyncd.core.sqlite.walindex import IndexHeader, parse_index_header
from walsyncd.engine.follow.environment import Environment
from walsyncd.engine.follow.file_facts import database_identity, file_facts, look_at_database
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.step import Batch, Step
from walsyncd.engine.follow.wal_pair import WalPair, frames_behind, is_begun
from walsyncd.engine.read_ahead.ahead_look import AheadLook
from walsyncd.engine.read_ahead.reading import LOOK_S, LOOK_S_MAX
from walsyncd.errors import RefusedError

ROUNDING_MS = 2  # two clocks that count whole milliseconds may differ by 2 ms


class SourceReader:
    """One look at ``wal_pair``, the current WAL of ``tracked``.

    ``evidence`` and ``pending`` are what the look has found so far; the step takes them over. Only through the step
    does a look change the database. If there is a ``batch``, ``so_far`` is what its earlier looks have found.
    """

    def __init__(
        self,
        tracked: FollowedDatabase,
        environment: Environment,
        wal_pair: WalPair,
        so_far: Step | None = None,
        batch: Batch | None = None,
    ) -> None:
        self.tracked = tracked
        self.environment = environment
        self.wal_pair = wal_pair
        self.batch = batch
        self.evidence = tracked.evidence
        self.pending = tracked.pending
        if so_far is not None and so_far.evidence is not None:
            self.evidence, self.pending = so_far.evidence, so_far.pending
        self.rest_until_s: float | None = None
        self.ended = wal_pair.ended
        """Whether the WAL was deleted before this look read anything, so that it does not change any more."""
        # Counted before anything is read, so that an event that comes later makes a difference.
        self._reborn, self._closed = wal_pair.index_rebuilds, wal_pair.closed
        self._began_ms = environment.monotonic_ms()
        self._index_read = wal_pair.index_reads.begin()

    def note(self, **found: Any) -> None:
        """Add what was found to the evidence."""
        self.evidence = replace(self.evidence, **found)

    def drop_pending(self) -> None:
        """Give up what was collected of an unfinished transaction. It will be read again."""
        if self.pending is not None:
            self.pending.collector.drop()
            self.pending = None

    def observe(self) -> Observation:
        """Read the headers."""
        shm, found = self._headers()
        holder = self._holder(shm, found)
        index = parse_index_header(found.index_header) if holder is DmsHolder.LIVE else None
        wal = parse_wal_header(found.wal_header)
        if wal is None and is_unknown_wal(found.wal_header):
            begins = found.wal_header[:8].hex(" ", 4)
            raise RefusedError(
                f"read {self.wal_pair.wal.path}: it begins with {begins}, which is no WAL of SQLite 3",
                hint="PRAGMA journal_mode=wal is followed, wal2 and the WALs of other forks are not",
            )
        if not self._believes(index, wal):
            holder, index = DmsHolder.NONE, None
        self.environment.drain()
        return Observation(holder, index, wal, found.wal_bytes)

    def observe_after_tail(self) -> Observation:
        """Read the headers after the rest of an old incarnation was read."""
        return self.observe()

    def pread(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes of the WAL, fewer only at its end."""
        return self.wal_pair.wal.pread(offset, length)

    def _headers(self) -> tuple[OpenFile | None, WalHeaders]:
        """Read the headers, with the -shm that the path names. The -shm is opened first if its CREATE was not seen."""
        wal_pair, wal_pairs = self.wal_pair, self.tracked.wal_pairs
        if not wal_pairs.watched:
            wal_pairs.look_around()
        shm = wal_pair.shm
        found = read_wal_headers(wal_pair.wal, shm)
        if not found.is_named and not wal_pair.ended:
            wal_pairs.find_shm()
            shm = wal_pair.shm
            found = read_wal_headers(wal_pair.wal, shm)
        return shm, found

    def _holder(self, shm: OpenFile | None, found: WalHeaders) -> DmsHolder:
        if shm is None:
            return DmsHolder.LEAVING if self.wal_pair.shm_gone and not self.ended else DmsHolder.NONE
        if self.ended:
            return DmsHolder.LIVE if shm.unlinked() else DmsHolder.NONE
        if found.is_named:
            return DmsHolder(found.liveness.value)
        return DmsHolder.LEAVING if shm.unlinked() else DmsHolder.NONE

    def _believes(self, index: IndexHeader | None, wal: WalHeader | None) -> bool:
        """Whether to believe the wal-index. A wal-index that lagged behind the WAL may have caught up."""
        state, lag = self.tracked.state, self.evidence.lag
        if self.evidence.believe_index or self.ended:
            return True
        cursor = state.cursor if state is not None else None
        if index is None or wal is None or cursor is None:
            return False
        behind = max(cursor.frames, lag.last if lag is not None else 0)
        if index.salts == wal.salts == cursor.salts and index.max_frame >= behind:
            self.note(believe_index=True)
        return self.evidence.believe_index

    def left_index(self) -> IndexHeader | None:
        """Return the wal-index header that its last users left, or None if they deleted it or it is not whole."""
        return self.wal_pair.left_index()

    def database_seen(self) -> SeenBesideWal:
        """Return the database file's size and mtime now, and how far the WAL had been copied back before that."""
        return look_at_database(self.tracked, self.wal_pair).seen

    def counter_evidence(self) -> CounterEvidence:
        """Return what all events so far show of the counter since the mark."""
        mark, wal_pair, is_watched = self.evidence.mark, self.wal_pair, self.tracked.wal_pairs.watched
        events = wal_pair.evidence(mark) if mark is not None else ShmEvidence()
        return CounterEvidence(mark, is_watched, events, wal_pair.serial)

    def index_read(self, index: IndexHeader, *, goes_on: bool | None = None) -> None:
        """Keep ``index``, which this look saw, as an index read. All frames that it shows were read before.

        ``goes_on``: frames may come after the last frame of ``index`` (``may_go_on``). If None, that is found out now.
        """
        wal_pair = self.wal_pair
        if wal_pair.shm is None:
            return
        if goes_on is None:
            goes_on = frames_behind(wal_pair.wal, wal_pair.shm, index)
        wal_pair.index_reads.take(self._index_read, index, moving=goes_on)

    def accept_provisionally(self) -> None:
        """Note that a count is believed only because no CLOSE_WRITE has come so far."""
        until_ms = self.environment.monotonic_ms() + CLOSE_LATE_MS
        # The number of CLOSE_WRITE events is the one from before anything was read.
        self.note(provisional=ProvisionalProof(self.wal_pair.serial, self._closed, until_ms))

    def new_mark(self, ichange: int) -> CounterMark | None:
        """Return a mark at this look, or None if the -shm had an event meanwhile or is not watched."""
        mark = CounterMark(ichange, self._began_ms, self.wal_pair.serial, self._reborn, self._closed)
        evidence = self.wal_pair.evidence(mark)
        if evidence.index_rebuilds or evidence.closed or not self.tracked.wal_pairs.watched:
            return None
        return mark

    def take_from_file(self) -> None:
        """Note that pages are taken from the file, as nBackfill allowed when this look began."""
        self.wal_pair.taken_from_file = self._reborn

    def read(self, reached: Cursor, count: int) -> Frames:
        """Read at most ``count`` verified frames after ``reached``. ``next_salts`` shows what follows them."""
        header = reached.header
        assert header is not None
        first = reached.frames + 1
        data = self.pread(header.offset_of(first), count * header.frame_size + FRAME_HEADER_SIZE)
        return read_frames(data, header, first=first, start=reached.chain)

    def read_ahead(self, cursor: Cursor) -> None:
        """Have the WAL read on after ``cursor`` from now on, while what was read before is worked on."""
        tracked, evidence, wal_pair = self.tracked, self.evidence, self.wal_pair
        if self.batch is None or tracked.reading is not None or wal_pair.ended or wal_pair.shm is None:
            return
        if evidence.believe_index and evidence.verified:
            environment = self.environment
            tracked.reading = environment.read_ahead.begin(
                tracked.row_id,
                wal_pair,
                cursor,
                environment.monotonic_ms,
                environment.limits,
                # A writer that is slowed writes the next frames soon after those that were read.
                LOOK_S if tracked.spec.backpressure else LOOK_S_MAX,
            )

    def seen(self) -> tuple[tuple[int, int], ...]:
        """Return when each frame was seen, as ``SegmentBuilder.add`` takes it. Empty if all were seen at one time."""
        return ()

    def seen_ms(self) -> int:
        """Return when the first frame of this look was seen (ms since 1970)."""
        return self.environment.wall_ms()

    def run(self, start: Cursor, last: int | None) -> Iterator[Frames]:
        """Read all verified frames after ``start`` in batches, up to ``last``. If it is None, read the whole chain."""
        header = start.header
        assert header is not None
        batch = max(1, self.environment.limits.batch_bytes // header.frame_size)
        reached = start
        while last is None or reached.frames < last:
            asked = batch if last is None else min(batch, last - reached.frames)
            frames = self.read(reached, asked)
            yield frames
            if frames.count < asked:
                return
            reached = reached_after(frames, reached)

    def last_commit(self, start: Cursor) -> int:
        """Return the last commit frame after ``start``, or the frame of ``start`` if no commit follows it."""
        found = start.frames
        for frames in self.run(start, None):
            if frames.commits:
                found = frames.commits[-1]
        return found

    def counter(self, cursor: Cursor) -> Counter:
        """Return a counter for the commits after ``cursor``."""
        if cursor.header is None or not cursor.frames:
            return Counter()
        header = cursor.header
        return Counter(cursor.frames, self.pread(header.offset_of(cursor.frames), header.frame_size))

    def salts_at(self, frame: int, header: WalHeader) -> Salts | None:
        """Return the salts of frame number ``frame``, whatever they are, or None after the end of the file."""
        found = self._frame_header(frame, header)
        return found.salts if found is not None else None

    def still_holds(self, cursor: Cursor) -> bool:
        """Whether the cursor's frame is still there. Its checksum covers all frames before it."""
        return self.holds(cursor)

    def holds(self, cursor: Cursor) -> bool:
        """Whether the cursor's frame was still there, with its checksum, at the time of this look's reading."""
        if cursor.header is None or not cursor.frames:
            return True
        found = self._frame_header(cursor.frames, cursor.header)
        return found is not None and (found.salts, found.chain) == (cursor.salts, cursor.chain)

    def _frame_header(self, frame: int, header: WalHeader) -> FrameHeader | None:
        return parse_frame_header(self.pread(header.offset_of(frame), FRAME_HEADER_SIZE))

    def is_moving(self, cursor: Cursor | None) -> bool:
        """Whether there is a frame after the cursor that may be published any moment.

        A restart may have been announced in the wal-index before the new incarnation has a frame. In this case, the
        answer is whether the WAL's header is no longer the previous incarnation's. Frames with zero salts are not
        valid, but older SQLite publishes some (``broken_chain``), and that has to be seen in time.
        """
        if cursor is not None and cursor.header is not None:
            return self.salts_at(cursor.frames + 1, cursor.header) in {cursor.salts, (0, 0)}
        return self.wal_pair.wal.size() > 0 if cursor is None else is_begun(self.wal_pair.wal, cursor.salts)

    def is_followed(self, frames: Frames, cursor: Cursor) -> bool:
        """Return what ``is_moving`` would, by ``frames``. They end at the cursor and show the next frame's salts.

        A write after the reading of ``frames`` raises an event that is still to come, which causes another look.
        """
        return frames.next_salts in {cursor.salts, (0, 0)}

    def facts(self) -> FileFacts:
        """Return which file the database is now. Size and times are not recorded while there is a WAL."""
        return file_facts(database_identity(self.tracked), self.environment.boot_id, self.wal_pair.wal).unknown()


class AheadReader(SourceReader):
    """Answers a look from what was read ahead (``look``) alone.

    The first observation that it returns was made before the reading; all others were made after the reading.
    """

    def __init__(
        self,
        tracked: FollowedDatabase,
        environment: Environment,
        wal_pair: WalPair,
        so_far: Step,
        batch: Batch,
        look: AheadLook,
    ) -> None:
        super().__init__(tracked, environment, wal_pair, so_far, batch)
        self._look = look
        self._next = look.before

    def observe(self) -> Observation:
        """Return the next observation. The event queue is read now, after everything in ``look`` was observed."""
        seen, self._next = self._next, self._look.after
        self.environment.drain()
        return seen

    def observe_after_tail(self) -> Observation:
        """Return the observation after the rest of the old incarnation was read."""
        self.environment.drain()
        return self._look.after_tail or self._look.after

    def pread(self, offset: int, length: int) -> bytes:
        """Return bytes of the WAL that were read ahead. Raises NotReadError if they were not."""
        return self._look.pread(offset, length)

    def index_read(self, index: IndexHeader, *, goes_on: bool | None = None) -> None:
        """Do nothing: an index read must be known before the events that follow it are read."""

    def new_mark(self, ichange: int) -> CounterMark | None:
        """Return a mark at the observation before the reading, if no event of the -shm came since."""
        look, wal_pair = self._look, self.wal_pair
        mark = CounterMark(ichange, look.began_ms, look.shm_serial, look.index_rebuilds, look.closed)
        evidence = wal_pair.evidence(mark)
        is_watched = self.tracked.wal_pairs.watched and look.shm_serial == wal_pair.serial
        return None if evidence.index_rebuilds or evidence.closed or not is_watched else mark

    def still_holds(self, cursor: Cursor) -> bool:
        """Return False: it would have to be seen after everything else was read."""
        return False

    def is_moving(self, cursor: Cursor | None) -> bool:
        """Return False, because the next look at the file itself shows such a frame."""
        return False

    def is_followed(self, frames: Frames, cursor: Cursor) -> bool:
        """Return False, as ``is_moving`` does."""
        return False

    def seen(self) -> tuple[tuple[int, int], ...]:
        """Return when each frame was read, which is after the frame was committed."""
        now_ms = self.environment.wall_ms()
        shift_ms = now_ms - self.environment.monotonic_ms() + ROUNDING_MS
        return tuple((frame, min(now_ms, shift_ms + read_ms)) for frame, read_ms in self._look.seen)

    def seen_ms(self) -> int:
        """Return when the first frame was read."""
        return self.seen()[0][1]

    def read_ahead(self, cursor: Cursor) -> None:
        """Do nothing: the reading goes on."""


def reached_after(frames: Frames, before: Cursor) -> Cursor:
    """Return the cursor at the end of ``frames``, which were read after ``before``."""
    if not frames.count:
        return before
    return before.advanced(frames.last, frames.chain_after(frames.last, before.chain))
