"""Keeps a restored copy up to date while others read it: `restore --follow`.

A look lists what is stored after the copy's position and applies it as one transaction
(`walsyncd.adapters.files.replica_file`). So readers see commits of the source and nothing between them. The head is
restored beside the copy if a newer generation has a finished base, if the next frames are gone for good, or if the file
is not the one that was followed before. Then the pages that differ are written, again as one transaction. The file
itself is never replaced, since readers have it open.

The file ``NAME-follow`` says how far the copy has come (`walsyncd.core.restore.follow_point`). A copy without that file
is not followed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from walsyncd.adapters.files.durable_file import reading, writing
from walsyncd.adapters.files.replica_file import (
    CHECKPOINT_WAIT_S,
    FOREIGN_WRITE_HINT,
    ForeignWriteError,
    ReplicaFile,
    Update,
)
from walsyncd.adapters.files.statx import birth_ns
from walsyncd.adapters.files.target import Target as TargetFile
from walsyncd.adapters.files.target import follow_path
from walsyncd.core.restore.coverage import Coverage, End, cover, listing_of
from walsyncd.core.restore.follow_point import FollowPoint, format_follow_point, parse_follow_point
from walsyncd.core.restore.plan import Head, Plan, Point
from walsyncd.core.sqlite.arrays import NDArray, np
from walsyncd.core.sqlite.wal import FRAME_HEADER_SIZE, Frames
from walsyncd.core.stored.layout import BaseKey, Key, ManifestKey
from walsyncd.core.stored.position import Position
from walsyncd.engine.restore.fork_check import left_out
from walsyncd.engine.restore.planner import RestoreRequest
from walsyncd.engine.restore.replay import ObjectSlice, pieces_of, read_pieces
from walsyncd.engine.restore.replica import DamagedError, Replica
from walsyncd.engine.restore.restorer import RestoreOptions, restore_request
from walsyncd.errors import RefusedError, StateError, TransientError, UsageError, VanishedError

PAGES_A_BATCH = 1024
NOTE_BYTES_MAX = 64 << 10  # names and URLs are far shorter
_JOURNAL_MODES = slice(18, 20)  # these bytes of page 1 are 2 and 2 in WAL mode

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Moved:
    """The copy reached a later commit. ``rebuilt`` says why the head was restored again for this, or is empty."""

    point: Point
    transactions: int
    rebuilt: str = ""


@dataclass(frozen=True, slots=True)
class FollowLimits:
    """The limits of a copy, among them how large its own WAL may become."""

    holes_max: int = 30
    """The number of looks that must see the same hole before it is believed, since a segment may still be on its
    way."""
    wal_bytes_max: int = 16 << 20
    """The copy's own WAL is copied back and emptied at this size."""
    checkpoint_wait_s: float = CHECKPOINT_WAIT_S
    """The wait for readers when the WAL is copied back or restarted."""


class ReadReplica:
    """A copy at ``path``, which is restored if there is none.

    Raises UsageError, RefusedError and what a restore raises.
    """

    def __init__(
        self, replica: Replica, path: Path, how: RestoreOptions, limits: FollowLimits = FollowLimits()
    ) -> None:
        self._limits = limits
        self._replica = replica
        self._holes = 0
        self._damaged: set[Key] = set()
        with ExitStack() as opened:
            self._target = opened.enter_context(TargetFile(path))
            self._path = self._target.path
            self._note_name = follow_path(self._path).name
            if how.force or not self._is_followed():
                restore_request(
                    replica, RestoreRequest(Head()), self._path, replace(how, follow_point=self._first_point)
                )
            self._point = self._read()
            self._file = ReplicaFile(self._target.folder, self._path.name)
            opened.pop_all()
        is_known = self._point.file in {"", _identity(self._file.database)}
        self._doubt = "" if is_known else "it is not the file that was followed before"

    def _is_followed(self) -> bool:
        return self._target.exists() and self._target.folder.status(self._note_name) is not None

    def _first_point(self, reached: Point, descriptor: int) -> bytes:
        file = _identity(descriptor)
        return format_follow_point(
            FollowPoint(self._replica.url, reached.position, reached.position, reached.time_ms, file)
        )

    @property
    def point(self) -> Point:
        """The commit that readers see. After a kill they may see a later commit until the first `look`."""
        return Point(self._point.applied, self._point.time_ms)

    def close(self) -> None:
        """Stop following. The copy's WAL is emptied if nobody reads."""
        self._file.close()
        self._target.close()

    def look(self) -> Moved | None:
        """Apply what is new, and return what was applied, or None.

        Raises TransientError if the storage is away and StateError if the disk is full: a later look may succeed.
        Raises CorruptError if an object is damaged and no other one holds the same frames, and ForeignWriteError if
        another process has written to the copy.
        """
        if self._file.wal_bytes > self._limits.wal_bytes_max:  # readers were in the way after the last transaction
            self._file.checkpoint(wait_s=0)
        try:
            return self._look()
        except StateError:
            self._file.checkpoint(
                wait_s=self._limits.checkpoint_wait_s
            )  # the copy's own WAL may be what fills the disk
            raise
        except ForeignWriteError as error:
            with self._noting():
                self._write_point(replace(self._point, stopped=error.message))
            raise

    def _look(self) -> Moved | None:
        if self._doubt:
            return self._rebuild(self._doubt)
        newest = self._newer_generation()
        if newest:
            return self._rebuild(f"generation {newest} has begun")
        coverage = self._cover()
        place = coverage.last
        # A killed run may have applied a part of these frames already. All are applied again, in one transaction.
        due = Position(self._generation, *place)
        if due > self._point.applied and due >= self._point.intended:
            try:
                return self._apply(coverage)
            except VanishedError:
                return None  # compaction removed an object; the next look lists again
            except DamagedError as error:
                self._damaged.add(error.key)
                if self._cover().last < place:
                    raise
                _log.warning(
                    "object_damaged", reason=error.message, remedy="others hold the same frames: they are used"
                )
                return None
        if due < self._point.intended or coverage.end in {End.HOLE, End.FORK, End.PRUNED}:
            self._holes += 1
            if self._holes > self._limits.holes_max or coverage.end is End.PRUNED:
                return self._rebuild(coverage.detail or "objects that were applied are gone")
        return None

    @property
    def _generation(self) -> str:
        return self._point.applied.generation

    def _newer_generation(self) -> str:
        """Return the newest generation with a finished base, or "" if it is not newer than the copy's generation.

        Until a newer generation has a base, the end of the old one is the head.
        """
        names = [name for name in self._replica.generations() if name > self._generation]
        if not names:
            return ""
        finished = {part.generation for part in self._replica.bases().generations if part.finished}
        return max(finished & set(names), default="")

    def _cover(self) -> Coverage:
        """Return what is stored after the copy's position. ``cover`` treats the copy as a base."""
        at = self._point.applied
        base = BaseKey(at.generation, at.epoch, at.frame, "0" * 8)
        itself = ManifestKey(base, at.epoch, at.frame, self._point.time_ms)
        frames = self._replica.frames_from(at.generation, at.epoch)
        keys = [base, itself, *(key for key in frames if key not in self._damaged)]
        (part,) = listing_of(keys).generations
        return cover(part, itself)

    def _apply(self, coverage: Coverage) -> Moved:
        at = self._point.applied
        reached = self._next_point(coverage)
        plan = Plan(Head(), coverage.base, coverage.epochs, reached)
        pieces = [
            _after(piece, at) for piece in pieces_of(plan) if (piece.key.epoch, piece.last) > (at.epoch, at.frame)
        ]
        with self._file.update() as update:
            writer = _Writer(update, self._file.page_size)
            transactions, page_count = self._write(plan, pieces, writer)
            self._note(at, reached)
            writer.finish(page_count)
        self._done(reached)
        return Moved(reached, transactions)

    def _next_point(self, coverage: Coverage) -> Point:
        """Return where the next transaction ends. It takes only some objects: a long backlog could fill the disk."""
        at, time_ms, place, left = self._point.applied, self._point.time_ms, coverage.last, self._limits.wal_bytes_max
        for key in coverage.objects:
            if (key.epoch, key.last) <= (at.epoch, at.frame):
                continue
            time_ms = key.time_ms
            left -= (key.last - key.first + 1) * (FRAME_HEADER_SIZE + self._file.page_size)
            if left <= 0 and Position(self._generation, key.epoch, key.last) >= self._point.intended:
                place = key.epoch, key.last
                break
        return Point(Position(self._generation, *place), time_ms)

    def _write(self, plan: Plan, pieces: Sequence[ObjectSlice], writer: _Writer) -> tuple[int, int]:
        """Write the last version of each page of every batch. Returns the transactions and the pages after them."""
        transactions = page_count = 0
        for piece, frames in read_pieces(self._replica, pieces, self._file.page_size, left_out(plan)):
            commits = [frame for frame in frames.commits if frame > piece.joint]
            transactions += len(commits)
            if commits:
                page_count = int(frames.sizes[commits[-1] - frames.first])
            writer.add(frames, after=piece.joint)
        return transactions, page_count

    def _rebuild(self, why: str) -> Moved:
        """Restore the head beside the copy, and write the pages that differ as one transaction."""
        folder, name = self._target.folder, f".{self._path.name[:50]}.next"
        try:
            restored = restore_request(
                self._replica, RestoreRequest(Head()), folder.path / name, RestoreOptions(force=True)
            )
            reached = restored.plan.reached
            with self._opened(name) as new:
                is_whole = self._file.checkpoint(wait_s=self._limits.checkpoint_wait_s)
                _check_page_size(new, self._file.page_size)
                with self._file.update() as update:
                    writer = _Writer(update, self._file.page_size)
                    old = self._file.database if is_whole else None
                    for first, pages in _differing(new, old, self._file.page_size):
                        writer.add_pages(first, pages)
                    self._note(self._point.applied, reached)
                    writer.finish(restored.size // self._file.page_size)
        finally:
            with suppress(OSError):
                folder.unlink(name)
        self._done(reached)
        if self._doubt or not self._point.file:
            self._point = replace(self._point, file=_identity(self._file.database))
            self._note(reached.position, reached)
            self._doubt = ""
        return Moved(reached, restored.applied.transactions, rebuilt=why)

    @contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        """Open a file in the copy's folder. The folder's owner may have put anything in its place."""
        with reading("read", self._target.folder.path / name):
            descriptor = self._target.folder.open(name, os.O_RDONLY | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise RefusedError(f"read {self._target.folder.path / name}: not a regular file", hint="remove it")
            yield descriptor
        finally:
            os.close(descriptor)

    def _done(self, reached: Point) -> None:
        self._point = replace(self._point, applied=reached.position, intended=reached.position, time_ms=reached.time_ms)
        self._holes = 0
        if self._file.wal_bytes > self._limits.wal_bytes_max:
            self._file.checkpoint(wait_s=self._limits.checkpoint_wait_s)

    def _note(self, applied: Position, intended: Point) -> None:
        with self._noting():
            self._write_point(
                replace(self._point, applied=applied, intended=intended.position, time_ms=intended.time_ms)
            )

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            with writing("note how far the copy has come", self._target.folder.path / self._note_name):
                yield
        except TransientError as error:  # the disk failed, and not the storage
            raise StateError(error.message, hint=error.hint) from error

    def _write_point(self, point: FollowPoint) -> None:
        self._target.folder.write(self._note_name, format_follow_point(point))

    def _read(self) -> FollowPoint:
        with self._opened(self._note_name) as descriptor:
            point = parse_follow_point(os.pread(descriptor, NOTE_BYTES_MAX, 0))
        if point.replica != self._replica.url:
            raise UsageError(
                f"follow {self._replica.url} with {self._path}: it follows {point.replica}",
                hint="choose another file, or --force to restore it again",
            )
        if point.stopped:
            raise RefusedError(point.stopped, hint=FOREIGN_WRITE_HINT)
        return point


def _identity(descriptor: int) -> str:
    """Return a text that identifies the file on this file system.

    Inode numbers are used again, so the file's time of birth is added where it is known.
    """
    return f"{os.fstat(descriptor).st_ino}:{birth_ns(descriptor) or ''}"


def _after(piece: ObjectSlice, at: Position) -> ObjectSlice:
    return replace(piece, joint=max(piece.joint, at.frame)) if piece.key.epoch == at.epoch else piece


def _check_page_size(descriptor: int, page_size: int) -> None:
    stored = int.from_bytes(os.pread(descriptor, 2, 16), "big")
    if (65536 if stored == 1 else stored) != page_size:
        raise RefusedError(
            f"follow: the database has pages of {stored} bytes now, the copy of {page_size}",
            hint="stop its readers and restore it again with --force",
        )


def _differing(new: int, old: int | None, page_size: int) -> Iterator[tuple[int, bytes]]:
    """Yield the blocks of pages that differ between both files, with the number of the first page of each.

    Without ``old`` all blocks are yielded.
    """
    size = os.fstat(new).st_size
    step = PAGES_A_BATCH * page_size
    for offset in range(0, size, step):
        block = os.pread(new, step, offset)
        before = os.pread(old, step, offset) if old is not None else b""
        if block != before:
            yield offset // page_size + 1, block
    # A transaction needs at least one page. Writing the last page does no harm, since it is the same in both files.
    yield size // page_size, os.pread(new, page_size, size - page_size)


class _Writer:
    """Makes one transaction of the frames of many transactions. Only the very last frame has a size."""

    def __init__(self, update: Update, page_size: int) -> None:
        self._update = update
        self._page_size = page_size
        self._held: NDArray[np.uint8] | None = (
            None  # the last batch, kept because only the end shows which frame is the last
        )

    def add(self, frames: Frames, *, after: int) -> None:
        """Add the last version in this run of each page that frames after ``after`` hold."""
        skipped = max(0, after - frames.first + 1)
        if skipped >= frames.count:
            return
        rows = np.frombuffer(frames.data, np.uint8).reshape(frames.count, -1)
        _, last = np.unique(frames.page_numbers[skipped:][::-1], return_index=True)
        self._add(rows[np.sort(frames.count - 1 - last)].copy())

    def add_pages(self, first: int, pages: bytes) -> None:
        """Add pages that follow one another. ``first`` is the number of the first page."""
        count = len(pages) // self._page_size
        rows = np.zeros((count, FRAME_HEADER_SIZE + self._page_size), np.uint8)
        rows[:, :4] = np.arange(first, first + count, dtype=">u4").view(np.uint8).reshape(count, 4)
        rows[:, FRAME_HEADER_SIZE:] = np.frombuffer(pages, np.uint8).reshape(count, self._page_size)
        self._add(rows)

    def finish(self, page_count: int) -> None:
        """Make the last frame the commit, and commit."""
        assert self._held is not None, "a transaction without a page"
        self._held[-1, 4:8] = np.frombuffer(page_count.to_bytes(4, "big"), np.uint8)
        self._flush()
        self._update.commit(page_count)

    def _add(self, rows: NDArray[np.uint8]) -> None:
        if self._held is not None:
            self._flush()
        rows[:, 4:8] = 0
        header_pages = np.flatnonzero((rows[:, :4] == (0, 0, 0, 1)).all(axis=1))
        for row in header_pages:  # with the header of a source in another mode, readers would lock the file itself
            rows[row, FRAME_HEADER_SIZE:][_JOURNAL_MODES] = 2
        self._held = rows

    def _flush(self) -> None:
        assert self._held is not None, "nothing to flush"
        self._update.add(self._held)
