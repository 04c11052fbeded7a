"""Applies frames to a database file. Only the last version of each page is written, and the newest object comes first.

Each object is read by itself, from the last object back to the first. Some objects are read at a time, ahead of the
writing (`prefetch`). A page that a later object held is not written again, so one bit a page must be remembered.
Readers keep only the pages that will be written, so often whole objects are ready when their turn comes. Where objects
join, it is checked that they are one history: an object must begin with the chain and the salts with which the object
before it ended. Objects that are not applied, but hold the same frames, are compared (`fork_check`). Before the first
frame is written it is known which frames belong to whole transactions up to the target (``planner.resolve``), and how
large the database is after them (`last_size`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from walsyncd.core.restore.coverage import FramesKey
from walsyncd.core.restore.plan import Plan
from walsyncd.core.sqlite.arrays import NDArray, np
from walsyncd.core.sqlite.checksum import Chain
from walsyncd.core.sqlite.wal import FRAME_HEADER_SIZE, Frames
from walsyncd.core.stored.layout import format_key
from walsyncd.engine.restore.base_fetch import Advance, Write, write_at
from walsyncd.engine.restore.epoch_reader import BATCH_BYTES, EpochReader
from walsyncd.engine.restore.fork_check import ForkCheck, LeftOut
from walsyncd.engine.restore.prefetch import Prefetch
from walsyncd.engine.restore.replica import Replica
from walsyncd.errors import CorruptError, ForkError

READERS = 3  # objects read at once
AHEAD_BYTES = 12 << 20  # pages that one reader holds; all readers hold at most 60 MiB with the batches in work
_ITEM_BYTES = 512  # a batch takes about this much without its pages
BATCHES_AHEAD = 2  # batches of 2 MiB that one reader holds, if it keeps all frames


@dataclass(frozen=True, slots=True)
class Applied:
    """The result: how much was applied, and the size in pages after the last commit (0 without a commit).

    ``uncompared`` are damaged objects that hold some of the same frames and could not be compared.
    """

    transactions: int = 0
    frames: int = 0
    page_count: int = 0
    uncompared: tuple[FramesKey, ...] = ()


@dataclass(frozen=True, slots=True)
class ObjectSlice:
    """A piece: an object to read up to frame ``last``. The frames up to ``joint`` are in the piece before it."""

    key: FramesKey
    last: int
    joint: int

    @property
    def frames(self) -> int:
        """The number of frames that this piece adds."""
        return self.last - self.joint


def pieces_of(plan: Plan) -> list[ObjectSlice]:
    """Return the pieces that a resolved plan applies, in order."""
    stop = plan.reached.position
    pieces: list[ObjectSlice] = []
    for epoch in plan.epochs:
        joint = epoch.first - 1
        for key in epoch.objects:
            last = min(key.last, stop.frame) if key.epoch == stop.epoch else key.last
            if key.epoch <= stop.epoch and last > joint:
                pieces.append(ObjectSlice(key, last, joint))
                joint = last
    return pieces


def last_size(replica: Replica, pieces: Sequence[ObjectSlice], page_size: int) -> int:
    """Return the database's size in pages after the last of these pieces, or 0 if there are none."""
    if not pieces:
        return 0
    sizes = [frames.sizes[-1] for frames in _read(replica, page_size, pieces[-1]) if isinstance(frames, Frames)]
    return _committed(pieces[-1], int(sizes[-1]))


def _committed(piece: ObjectSlice, size: int) -> int:
    if not size:
        raise CorruptError(f"{format_key(piece.key)}: frame {piece.last} of epoch {piece.key.epoch} does not commit")
    return size


@dataclass(frozen=True, slots=True)
class _Ends:
    """How a piece joins its neighbours: its epoch's salts, and the chain at its joint and after its last frame."""

    salts: tuple[int, int]
    before: Chain
    after: Chain


def read_pieces(
    replica: Replica, pieces: Sequence[ObjectSlice], page_size: int, others: Sequence[LeftOut]
) -> Iterator[tuple[ObjectSlice, Frames]]:
    """Yield the frames of all pieces, oldest first, and read ahead. If objects overlap, frames before a joint come too.

    Raises CorruptError as `Replay.onto` does. Some errors are raised after the last frame, so no frame may be relied on
    before the end.
    """
    ends: list[_Ends] = []
    forks = ForkCheck(replica, others, page_size)
    sources = [partial(_read, replica, page_size, piece, forks) for piece in pieces]
    with closing(forks), Prefetch(sources, threads=READERS, room=BATCHES_AHEAD) as opened:
        for piece, items in zip(pieces, opened, strict=True):
            size = 0
            for item in items:
                if isinstance(item, _Ends):
                    ends.append(item)
                else:
                    size = int(item.sizes[-1])
                    yield piece, item
            _committed(piece, size)
        _check_joints(pieces, ends)
        forks.check()


def _read(
    replica: Replica,
    page_size: int,
    piece: ObjectSlice,
    forks: ForkCheck | None = None,
    *,
    batch_bytes: int = BATCH_BYTES,
) -> Iterator[Frames | _Ends]:
    """Yield the frames of a piece, then how the piece joins. If objects overlap, frames before the joint come too."""
    reader = EpochReader(replica, piece.key.epoch, page_size, batch_bytes=batch_bytes)
    before: Chain | None = None
    for frames in reader.read(piece.key, upto=piece.last):
        if before is None and piece.joint <= frames.last:
            before = frames.chain_after(piece.joint, reader.start)
        if forks is not None:
            forks.applied(piece.key, frames, reader.start, after=piece.joint)
        yield frames
    assert before is not None, "a piece without a frame after its joint"
    yield _Ends(reader.salts, before, reader.chain)


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """The last version, in a run of frames, of each page that is still wanted, by ascending number.

    ``pages`` has shape (count, page size). ``transactions`` is how many transactions end in the run, and ``size`` is
    the size field of the run's last frame.
    """

    numbers: NDArray[np.uint32]
    pages: NDArray[np.uint8]
    transactions: int
    size: int
    frame_bytes: int


class Replay:
    """Reads the frames of ``pieces`` ahead from now on. ``onto`` makes a database of ``page_count`` pages from them.

    The objects ``others`` are compared with ``pieces``.
    """

    def __init__(
        self,
        replica: Replica,
        pieces: Sequence[ObjectSlice],
        page_size: int,
        page_count: int,
        others: Sequence[LeftOut] = (),
        *,
        batch_bytes: int = BATCH_BYTES,
    ) -> None:
        self._pieces = pieces
        self._forks = ForkCheck(replica, others, page_size)
        self._page_size, self._batch_bytes = page_size, batch_bytes
        self._written = _Pages(page_count)
        sources = [partial(self._select, replica, piece) for piece in reversed(pieces)]
        self._ahead = Prefetch(sources, threads=READERS, room=AHEAD_BYTES, weigh=_weight)

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, *_exception: object) -> None:
        """Stop the readers."""
        self._ahead.close()
        self._forks.close()

    def onto(self, descriptor: int, *, advance: Advance = lambda _frames: None) -> Applied:
        """Write the pages into the file.

        ``advance`` is called with the bytes of frames that were applied. Raises CorruptError, which names an object, if
        that object is damaged, does not commit where it has to, or is of another history than the object before it.
        """
        write = write_at(descriptor)
        ends: list[_Ends] = []
        transactions = 0
        for piece, items in zip(reversed(self._pieces), self._ahead, strict=True):
            size = 0
            for item in items:
                if isinstance(item, _Ends):
                    ends.append(item)
                    continue
                self._write(item, write)
                transactions += item.transactions
                size = item.size
                advance(item.frame_bytes)
            self._written.close_object()
            _committed(piece, size)
        _check_joints(self._pieces, ends[::-1])
        damaged = self._forks.check()
        return Applied(transactions, sum(piece.frames for piece in self._pieces), self._written.count, damaged)

    def _select(self, replica: Replica, piece: ObjectSlice) -> Iterator[_Batch | _Ends]:
        """Read a piece, in a thread of its own. Pages that newer pieces have already written are left out."""
        for item in _read(replica, self._page_size, piece, self._forks, batch_bytes=self._batch_bytes):
            yield item if isinstance(item, _Ends) else self._batch_of(item, piece)

    def _batch_of(self, frames: Frames, piece: ObjectSlice) -> _Batch:
        numbers, rows = _last_versions(frames.page_numbers)
        wanted = self._written.wanted(numbers)
        content = np.frombuffer(frames.data, np.uint8).reshape(frames.count, -1)
        return _Batch(
            numbers=numbers[wanted],
            pages=content[rows[wanted], FRAME_HEADER_SIZE:],
            transactions=sum(frame > piece.joint for frame in frames.commits),
            size=int(frames.sizes[-1]),
            frame_bytes=len(frames.data),
        )

    def _write(self, batch: _Batch, write: Write) -> None:
        """Write the pages that are still wanted now that all newer objects are written."""
        wanted = self._written.wanted(batch.numbers)
        numbers, pages = (batch.numbers, batch.pages) if wanted.all() else (batch.numbers[wanted], batch.pages[wanted])
        self._written.wrote(numbers)
        for run in _runs(numbers):
            write(pages[run].data.cast("B"), (int(numbers[run.start]) - 1) * self._page_size)


def _weight(item: _Batch | _Ends) -> int:
    return _ITEM_BYTES + (0 if isinstance(item, _Ends) else item.pages.nbytes)


def _check_joints(pieces: Sequence[ObjectSlice], ends: Sequence[_Ends]) -> None:
    for (one, its_ends), (other, other_ends) in pairwise(zip(pieces, ends, strict=True)):
        if one.key.epoch != other.key.epoch:
            continue
        if (its_ends.salts, its_ends.after) != (other_ends.salts, other_ends.before):
            name = format_key(other.key)
            raise ForkError(f"{name}: it does not continue the chain of {format_key(one.key)}: two histories")


class _Pages:
    """The pages that need no write: later objects have written their last version, or they are past the end."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._bits = np.zeros(count // 8 + 1, np.uint8)
        self._open: list[NDArray[np.uint32]] = []

    def wanted(self, numbers: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """Return which of these pages are to be written."""
        inside = numbers <= self.count
        kept = np.where(inside, numbers, 0)
        done: NDArray[np.bool_] = (self._bits[kept >> 3] >> (kept & 7).astype(np.uint8)) & 1 != 0
        return inside & ~done

    def wrote(self, numbers: NDArray[np.uint32]) -> None:
        """Note pages of the object that is being applied. A later frame of that object may write them again."""
        self._open.append(numbers)

    def close_object(self) -> None:
        """End an object. The pages that it wrote are final."""
        if self._open:
            numbers = np.concatenate(self._open)
            np.bitwise_or.at(self._bits, numbers >> 3, (1 << (numbers & 7)).astype(np.uint8))
        self._open = []


def _last_versions(numbers: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Return each number once, ascending, and the last place of each number.

    `np.unique` would load numpy.ma, which is not needed.
    """
    order = np.argsort(numbers, kind="stable")
    ascending = numbers[order]
    is_last = np.append(ascending[1:] != ascending[:-1], True)
    return ascending[is_last], order[is_last]


def _runs(numbers: NDArray[np.uint32]) -> Iterator[slice]:
    """Yield slices of ``numbers``, which ascend, so that the numbers within a slice follow one another."""
    if len(numbers):
        breaks = [0, *(np.flatnonzero(np.diff(numbers) != 1) + 1).tolist(), len(numbers)]
        yield from (slice(first, end) for first, end in pairwise(breaks))
