"""Verified frames on their way into a segment: re-stamped, compressed, and held in memory or in a spool file.

A transaction can be larger than memory, so content is compressed as it comes. The compressed bytes go to a spool file
as soon as there are more than ``memory_bytes_max``.

A transaction can also be larger than the spool. If a transaction needs more than ``spool_bytes_max`` by itself, or so
much of the disk that it alone makes space short (``state_disk``), it could never be stored, and each attempt would fill
the application's disk again. So the transaction is given up at once, and the generation with it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from walsyncd.adapters.journal.journal import Journal, NewObject, ObjectKind
from walsyncd.adapters.journal.spool import SpoolFile, SpoolWriter
from walsyncd.config import format_size
from walsyncd.core.content.redo import RedoBuilder
from walsyncd.core.follow.decision import Cursor
from walsyncd.core.follow.follow_state import FollowState, Stream
from walsyncd.core.limits import DEFAULT_LIMITS
from walsyncd.core.sqlite.wal import WAL_HEADER_SIZE, Frames, Salts
from walsyncd.core.stored.epoch import begin_stamp, restamp
from walsyncd.core.stored.layout import SegmentKey, format_key
from walsyncd.core.stored.segment import Commit, SegmentWriter, Trailer
from walsyncd.errors import StateError, WalsyncdError

PIECE_FRAMES = 64  # so many are re-stamped together; this is a fifth faster than 4 MiB in one go (measured)


class TooLargeError(WalsyncdError):
    """The transaction will never fit into the spool, so the generation can't continue after it."""


class SegmentBuilder:
    """Builds one segment, which begins at the end of ``stream``.

    ``salts`` become the epoch's if the epoch has no frame yet. ``seen_ms`` is when the commits were seen. No spool file
    becomes larger than ``file_bytes_max``.
    """

    def __init__(
        self,
        journal: Journal,
        stream: Stream,
        *,
        page_size: int,
        salts: Salts,
        seen_ms: int,
        memory_bytes_max: int = DEFAULT_LIMITS.memory_bytes_max,
        file_bytes_max: int = sys.maxsize,
    ) -> None:
        self._journal = journal
        self._memory_bytes_max, self._file_bytes_max = memory_bytes_max, file_bytes_max
        self._stream = stream
        self._seen_ms = max(seen_ms, stream.time_ms)
        self._began_ms = stream.began_ms or self._seen_ms
        self._writer = SegmentWriter()
        self._memory: list[bytes] = []
        self._memory_bytes = 0
        self._file: SpoolWriter | None = None
        self._commits: list[Commit] = []
        self._redo = RedoBuilder(page_size)
        self._bytes = stream.bytes
        self._frame = stream.frame
        stamp = stream.stamp
        if stamp is None:
            header, stamp = begin_stamp(page_size, stream.epoch, salts)
            self._bytes = WAL_HEADER_SIZE
            self._put(self._writer.feed(header))
        self._before = stamp.chain
        self._stamp = stamp

    @property
    def frames(self) -> int:
        """How many frames were added."""
        return self._frame - self._stream.frame

    def add(self, frames: Frames, seen: Sequence[tuple[int, int]] = ()) -> None:
        """Add verified frames, which directly follow those added before. After an error the whole segment is gone.

        Each entry (frame number, ms since 1970) of ``seen`` means that the frames up to this number were seen at this
        time; the entries ascend. If ``seen`` is empty, the frames were seen at the time that was noted last.
        """
        shift, place = self._frame + 1 - frames.first, 0
        for commit in frames.commits:
            while place < len(seen) and seen[place][0] < commit:
                place += 1
            if place < len(seen):
                self.goes_on(seen[place][1])
            self._commits.append(Commit(commit + shift, self._seen_ms))
        self._redo.add(frames)
        for piece in frames.pieces(PIECE_FRAMES):
            content, self._stamp = restamp(piece, self._stamp)
            self._bytes += len(content)
            self._put(self._writer.feed(content))
        self._frame += frames.count

    @property
    def held_bytes(self) -> int:
        """How many compressed bytes there are."""
        return self._memory_bytes

    def goes_on(self, seen_ms: int) -> None:
        """Note that what is added from now on was seen at ``seen_ms``."""
        self._seen_ms = max(seen_ms, self._seen_ms)

    def reached(self) -> Stream:
        """Return the stream after what was added so far. The last frame added must have been a commit."""
        old = self._stream
        began_ms, seen_ms = self._began_ms, self._seen_ms
        return Stream(old.generation, old.epoch, self._frame, old.previous, self._stamp, self._bytes, began_ms, seen_ms)

    def finish(self) -> tuple[NewObject, Stream]:
        """Return the segment and the stream after it. The last frame added must have been a commit."""
        old = self._stream
        assert self._commits
        assert self._commits[-1].frame == self._frame
        first = old.frame + 1
        trailer = Trailer(old.epoch, first, self._frame, self._before, self._stamp.chain, tuple(self._commits))
        self._put(self._writer.finish(trailer))
        key = SegmentKey(
            generation=old.generation,
            epoch=old.epoch,
            first=first,
            last=self._frame,
            time_ms=self._seen_ms,
            previous=old.previous if first == 1 else None,
        )
        if self._file is not None:
            with self._room():
                body: bytes | SpoolFile = self._file.finish()
        else:
            body = b"".join(self._memory)
        new = NewObject(
            kind=ObjectKind.SEGMENT,
            key=format_key(key),
            body=body,
            epoch=old.epoch,
            first=first,
            last=self._frame,
            time_ms=self._seen_ms,
            generation=old.generation,
            commits=len(self._commits),
            redo=self._redo.finish(),
        )
        return new, self.reached()

    def drop(self) -> None:
        """Give the segment up."""
        if self._file is not None:
            self._file.__exit__(None, None, None)

    def _put(self, block: bytes) -> None:
        self._memory.append(block)
        self._memory_bytes += len(block)
        if self._file is None and self._memory_bytes <= self._memory_bytes_max:
            return
        with self._room():
            if self._file is None:
                self._file = self._journal.spool_file_writer()
            for held in self._memory:
                self._file.write(held)
            self._memory.clear()
            self._look_at_room()

    @contextmanager
    def _room(self) -> Iterator[None]:
        """Remove the spool file if the body fails. Raises TooLargeError if the file itself has filled the disk."""
        try:
            yield
        except StateError:
            try:
                self._look_at_room()
            finally:
                self.drop()
            raise
        except TooLargeError:
            self.drop()
            raise

    def _look_at_room(self) -> None:
        """Raise TooLargeError if there will never be enough room, or StateError if there is not enough now."""
        size = self._memory_bytes
        if size > self._file_bytes_max:
            limit = format_size(self._file_bytes_max)
            raise TooLargeError(
                f"a transaction takes more of the spool than spool_bytes_max, {limit}",
                hint="raise spool_bytes_max above the largest transaction, or commit more often",
            )
        missing = self._journal.disk.missing_bytes()
        if not 0 < missing <= size:  # enough room is left, or something else has taken it
            return
        if self._journal.spool_bytes() > size:
            raise StateError(
                "write to the spool: no room for a large transaction beside what waits for storage",
                hint="make room in the state directory; it is tried again",
            )
        raise TooLargeError(
            "a transaction takes more of the spool than the disk under the state directory has room for:"
            f" {size >> 20} MiB were not all of it",
            hint="put state_dir on a larger disk, or make room there",
        )


class FrameCollector(Protocol):
    """Takes the frames of a transaction: a segment builder, or what replaces it while a gap is bridged."""

    def add(self, frames: Frames, seen: Sequence[tuple[int, int]] = ()) -> None:
        """Add verified frames, which directly follow those added before. ``seen`` says when they were seen."""

    def finish(self) -> tuple[NewObject | None, Stream]:
        """Return what is to be shipped, or None if nothing is, and the stream after it."""

    def drop(self) -> None:
        """Give up what was added."""


@dataclass(frozen=True, slots=True)
class LongTransaction:
    """A transaction whose commit was not read yet.

    ``state`` is the state that the transaction continues, and ``cursor`` is the end of what was collected.
    """

    collector: FrameCollector
    state: FollowState
    cursor: Cursor
