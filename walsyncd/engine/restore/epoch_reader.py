"""Reads the frames of an epoch from its objects and verifies each frame once more.

An epoch is one WAL in pieces. The reader keeps the number of the last frame and the running checksum after it. An
object is read from its beginning, frames that were read before are cut, and the rest must continue the chain:

* a part that does not continue the chain is damaged, or belongs to another history (a fork);
* if reading begins within an epoch, the chain before the first frame is computed from that frame, and the part's
  trailer must say the same: so each object can be read by itself, in any order, and is checked by how chains join;
* a trailer must agree with the frames before it: last frame, chain, commits;
* a bridge is named as one, and its trailer and its name agree on the frame that it follows;
* an object that ends before the last frame in its name was cut short.

Objects overlap legally. So if the reading of an object breaks off, the object is read again from its beginning.
"""

from __future__ import annotations

from collections.abc import Iterator

from walsyncd.core.restore.coverage import FramesKey
from walsyncd.core.sqlite.checksum import Chain, chain_before
from walsyncd.core.sqlite.wal import (
    FRAME_HEADER_SIZE,
    WAL_HEADER_SIZE,
    Frames,
    WalHeader,
    parse_frame_header,
    parse_wal_header,
    read_frames,
)
from walsyncd.core.stored.layout import format_key
from walsyncd.core.stored.segment import Trailer, decode_body
from walsyncd.engine.restore.replica import Attempts, Replica, naming_object
from walsyncd.errors import CorruptError

BATCH_BYTES = 2 * 1024 * 1024


class EpochReader:
    """Reads the frames of one epoch in order. ``frame`` is the last frame read, ``chain`` the checksum after it.

    Without ``page_size`` the epoch's own header gives the page size, and reading has to begin with frame 1. Frames are
    verified and yielded in batches of ``batch_bytes``, which limits the memory of a reader.
    """

    def __init__(self, replica: Replica, epoch: int, page_size: int | None, *, batch_bytes: int = BATCH_BYTES) -> None:
        self._batch_bytes = batch_bytes
        self._replica = replica
        self._epoch = epoch
        self._page_size = page_size
        self._header: WalHeader | None = None
        self._began: tuple[int, Chain] | None = None  # where reading began, until a trailer confirms it
        self.frame = 0
        self.chain: Chain = (0, 0)
        self.start: Chain = (0, 0)  # the chain before the first frame read

    @property
    def page_size(self) -> int | None:
        """The size of a page in bytes, from the caller or from the epoch's header, or None while it is not known."""
        return self._header.page_size if self._header else self._page_size

    @property
    def salts(self) -> tuple[int, int]:
        """The salts of the epoch, which are known once frames have been read."""
        assert self._header is not None, "nothing was read"
        return self._header.salts

    def read(self, key: FramesKey, *, upto: int | None = None) -> Iterator[Frames]:
        """Yield the frames of an object that were not read before, at most up to ``upto``, in verified batches.

        The object must hold the frame after ``frame``, or be the first object read. Raises CorruptError, which names
        the object.
        """
        end = key.last if upto is None else min(upto, key.last)
        for attempt in Attempts():
            with attempt, naming_object(key):
                yield from self._read_once(key, end)

    def _read_once(self, key: FramesKey, end: int) -> Iterator[Frames]:
        pending = _Pending(key.first)
        for item in decode_body(self._replica.stream(format_key(key))):
            if isinstance(item, Trailer):
                yield from self._take(pending, end)
                self._check_trailer(item, pending)
                _check_bridge(key, item)
            else:
                pending.add(item)
                if pending.size >= self._batch_bytes:
                    yield from self._take(pending, end)
            if self.frame >= end and end < key.last and self._began is None:
                return
        if pending.next_frame != key.last + 1:
            raise CorruptError(f"it ends with frame {pending.next_frame - 1}, its name says {key.last}")

    def _take(self, pending: _Pending, end: int) -> Iterator[Frames]:
        """Verify the whole frames that are pending, without those that were read before."""
        data = pending.take()
        if pending.header_due:
            data = self._take_header(data)
            pending.header_due = False
        elif self._header is None:
            self._begin_within(data, pending.next_frame)
        assert self._header is not None, "frames before any header"
        size = self._header.frame_size
        count = len(data) // size
        pending.add(bytes(data[count * size :]))
        held = min(count, max(0, self.frame + 1 - pending.next_frame))
        pending.is_cut |= held > 0
        first, pending.next_frame = pending.next_frame + held, pending.next_frame + count
        if held == count:
            return
        if self.frame >= end:  # frames after ``end`` are read only to reach the trailer
            pending.is_cut = True
            return
        if first != self.frame + 1:
            raise CorruptError(f"it begins with frame {first}, after frame {self.frame}")
        frames = read_frames(data[held * size : count * size], self._header, first=first, start=self.chain)
        if frames.count != count - held:
            raise CorruptError(f"frame {frames.last + 1} of epoch {self._epoch} does not continue the chain")
        pending.commits += frames.commits
        frames = frames.upto(min(frames.last, end))
        if frames.count:
            self.frame, self.chain = frames.last, frames.chain_after(frames.last, self.chain)
            yield frames

    def _take_header(self, data: memoryview) -> memoryview:
        header = parse_wal_header(data[:WAL_HEADER_SIZE])
        if header is None or self._page_size not in (None, header.page_size):
            size = self._page_size or "any"
            raise CorruptError(f"it does not begin with a WAL header for pages of {size} bytes")
        if self._header is None:
            self._header, self.chain, self.start = header, header.chain, header.chain
        elif header.salts != self._header.salts:
            raise CorruptError("its WAL header has other salts than the one read before: two histories")
        return data[WAL_HEADER_SIZE:]

    def _check_trailer(self, trailer: Trailer, pending: _Pending) -> None:
        if trailer.epoch != self._epoch or trailer.last != pending.next_frame - 1 or pending.size:
            raise CorruptError(
                f"the part up to frame {pending.next_frame - 1} of epoch {self._epoch} has the trailer "
                f"of frames {trailer.first} to {trailer.last} of epoch {trailer.epoch}"
            )
        if self._began is not None:
            if (trailer.first - 1, trailer.before) != self._began:
                raise CorruptError(f"its trailer and frame {trailer.first} disagree on the chain before that")
            self._began = None
        if trailer.last == self.frame and trailer.after != self.chain:
            raise CorruptError(f"its trailer and its frames disagree on the chain after frame {self.frame}")
        if not pending.is_cut and [commit.frame for commit in trailer.commits] != pending.commits:
            raise CorruptError(f"its trailer and its frames disagree on the commits up to frame {self.frame}")
        pending.commits, pending.is_cut = [], False

    def _begin_within(self, data: memoryview, first: int) -> None:
        """Start in the middle of an epoch, with the salts of the first frame and the chain before that frame."""
        if self._page_size is None:
            raise CorruptError("the epoch's first frames and page size are not known")
        size = FRAME_HEADER_SIZE + self._page_size
        head = parse_frame_header(data)
        if head is None or len(data) < size:
            raise CorruptError("it begins with less than a frame")
        self._header = WalHeader(self._page_size, False, self._epoch, *head.salts, chain=(0, 0))
        self.frame = first - 1
        self.chain = chain_before(data[:size], head.chain, big_endian=False)
        self.start = self.chain
        self._began = self.frame, self.chain


def _check_bridge(key: FramesKey, trailer: Trailer) -> None:
    """Check that an object's name and its first trailer agree on a bridge, and on the frame that the bridge follows."""
    if trailer.first != 1:
        return
    bridge = trailer.bridge
    if key.bridge != (bridge is not None):
        raise CorruptError(f"its trailer says that it {'is' if bridge else 'is not'} a bridge, its name says otherwise")
    if bridge is not None and bridge.epoch == key.epoch - 1 and bridge.frame != key.previous:
        raise CorruptError(f"its trailer says that the bridge follows frame {bridge.frame}, its name {key.previous}")


class _Pending:
    """Content of an object that is not verified yet. ``next_frame`` is the number of the content's first frame."""

    def __init__(self, first: int) -> None:
        self._blocks: list[bytes] = []
        self.size = 0
        self.next_frame = first
        self.header_due = first == 1
        self.commits: list[int] = []  # the commits of the part that is being read
        self.is_cut = False  # whether frames of that part were skipped: they were read before, or are after the end

    def add(self, content: bytes) -> None:
        """Append ``content``."""
        self._blocks.append(content)
        self.size += len(content)

    def take(self) -> memoryview:
        """Return all pending content, and remove it. The caller adds an incomplete frame again."""
        data = memoryview(b"".join(self._blocks))
        self._blocks, self.size = [], 0
        return data
