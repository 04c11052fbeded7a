"""SQLite's write-ahead log, ``-wal`` (sqlite.org/fileformat2.html, section 4). All numbers are big-endian.

The file is a header and then frames, counted from 1, all of one size.

    header, 32 bytes                            frame header, 24 bytes, then one page
    offset                                      offset
     0  magic 0x377f0682 or 0x377f0683           0  page number
     4  format version, 3007000                  4  size of the database in pages after a commit, else 0
     8  page size, 512 … 65536                   8  salt-1
    12  checkpoint sequence number              12  salt-2
    16  salt-1                                  16  checksum-1
    20  salt-2                                  20  checksum-2
    24  checksum-1
    28  checksum-2

The last bit of the magic is the byte order in which the checksums read words: 0 little-endian, 1 big-endian.
The header's checksum covers the header's first 24 bytes. A frame is valid if and only if

1. its salts are equal to the header's salts,
2. its page number is not 0, and
3. its checksum continues the chain: it covers the frame header's first 8 bytes and the page, and starts from
   the checksum of the frame before, or for frame 1 from the checksum of the WAL header.

The first frame that is not valid ends the log, whatever follows it. When SQLite restarts the log, it overwrites it
from the beginning, and frames of the old incarnation remain after the new ones.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache

from walsyncd.core.sqlite.arrays import NDArray, np
from walsyncd.core.sqlite.checksum import Buffer, Chain, checksum, frame_chains

WAL_HEADER_SIZE = 32
FRAME_HEADER_SIZE = 24
MAGIC = 0x377F0682
VERSION = 3007000
PAGE_SIZES = tuple(1 << bits for bits in range(9, 17))

_HEADER = struct.Struct(">8I")
_FRAME_HEADER = struct.Struct(">6I")
Salts = tuple[int, int]

_PARSED_MAX = 256  # each look reads the header, which is the same until the WAL restarts
_FIELDS = 6  # the fields of a frame header: page number, size, two salts, two checksums
_LOOP_FRAMES_MAX = 64  # below this a plain loop is faster than a numpy call (measured)


@dataclass(frozen=True, slots=True)
class WalHeader:
    """The fields of the first 32 bytes of a WAL. ``chain`` is the header's own checksum, from which frame 1 starts."""

    page_size: int
    big_endian: bool
    sequence: int
    salt1: int
    salt2: int
    chain: Chain

    @property
    def salts(self) -> Salts:
        """Both salts, which identify the incarnation."""
        return self.salt1, self.salt2

    @property
    def frame_size(self) -> int:
        """The size of a frame in bytes, with header and page."""
        return FRAME_HEADER_SIZE + self.page_size

    def offset_of(self, frame: int) -> int:
        """Return where ``frame`` (from 1) begins in the file. This is the length of a WAL of ``frame - 1`` frames."""
        return WAL_HEADER_SIZE + (frame - 1) * self.frame_size


def parse_wal_header(data: Buffer) -> WalHeader | None:
    """Return the header that ``data`` begins with, or None if SQLite would not accept it."""
    return _parse_header(bytes(data[:WAL_HEADER_SIZE])) if len(data) >= WAL_HEADER_SIZE else None


@lru_cache(maxsize=_PARSED_MAX)
def _parse_header(data: bytes) -> WalHeader | None:
    magic, version, page_size, sequence, salt1, salt2, *stored = _HEADER.unpack(data)
    if magic & ~1 != MAGIC or version != VERSION or page_size not in PAGE_SIZES:
        return None
    big_endian = magic & 1 == 1
    chain = checksum(data[:24], (0, 0), big_endian=big_endian)
    if chain != tuple(stored):
        return None
    return WalHeader(page_size, big_endian, sequence, salt1, salt2, chain)


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """The fields of the 24 bytes before each page. ``chain`` is the running checksum after the frame."""

    page_number: int
    database_pages: int
    salts: Salts
    chain: Chain


def parse_frame_header(data: Buffer) -> FrameHeader | None:
    """Return the unverified frame header that ``data`` begins with, or None if ``data`` is too short."""
    if len(data) < FRAME_HEADER_SIZE:
        return None
    page_number, pages, salt1, salt2, sum1, sum2 = _FRAME_HEADER.unpack_from(data)
    return FrameHeader(page_number, pages, (salt1, salt2), (sum1, sum2))


def is_unknown_wal(data: Buffer) -> bool:
    """Whether ``data``, the beginning of a WAL, is of another format than the one described above, for example wal2.

    A file that does not begin with the magic number holds nothing. A crash leaves such files, and SQLite overwrites
    them.
    """
    if len(data) < WAL_HEADER_SIZE:
        return False
    magic, version, *_ = _HEADER.unpack_from(data)
    return bool(magic & ~1 == MAGIC and version != VERSION)


def format_wal_header(*, page_size: int, big_endian: bool, sequence: int, salt1: int, salt2: int) -> bytes:
    """Return the 32 bytes that `parse_wal_header` reads back."""
    assert page_size in PAGE_SIZES, f"page size {page_size}"
    head = struct.pack(">6I", MAGIC | big_endian, VERSION, page_size, sequence, salt1, salt2)
    return head + struct.pack(">2I", *checksum(head, (0, 0), big_endian=big_endian))


class FrameEnd(Enum):
    """Why a run of frames ended."""

    DATA = auto()  # no further whole frame in the data
    SALTS = auto()  # the next frame is of another incarnation
    ZERO = auto()  # the next frame's salts are zero: written without them, or lost
    HOLE = auto()  # the next frame has no page number either: nothing was ever written there
    CHAIN = auto()  # the next frame has our salts, but its checksum does not continue the chain


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """A run of valid frames, and what follows it.

    ``data`` holds exactly these frames. The arrays have one row for each frame: page number, size (0 if the frame does
    not commit), and the running checksum after the frame, shape (count, 2). ``before`` is the checksum before the first
    frame, and ``big_endian`` is the checksums' byte order. ``next_salts`` are the salts of the first frame that is not
    part of the run, or None if its header is not in the data. ``end`` is DATA if the next frame is cut short.
    """

    data: memoryview
    first: int
    count: int
    page_numbers: NDArray[np.uint32]
    sizes: NDArray[np.uint32]
    chains: NDArray[np.uint32]
    end: FrameEnd
    next_salts: Salts | None
    before: Chain
    big_endian: bool

    @property
    def last(self) -> int:
        """The number of the last frame, or ``first - 1`` if there is no frame."""
        return self.first + self.count - 1

    @property
    def commits(self) -> list[int]:
        """The numbers of the frames that commit, ascending."""
        if self.count <= _LOOP_FRAMES_MAX:
            return [frame for frame, size in enumerate(self.sizes.tolist(), self.first) if size]
        commits: list[int] = (np.flatnonzero(self.sizes) + self.first).tolist()
        return commits

    def chain_after(self, frame: int, start: Chain) -> Chain:
        """Return the running checksum after ``frame``. ``start`` is the checksum before the first frame."""
        assert self.first - 1 <= frame <= self.last, f"frame {frame} not in {self.first}..{self.last}"
        if frame < self.first:
            return start
        s0, s1 = self.chains[frame - self.first]
        return int(s0), int(s1)

    def upto(self, frame: int) -> Frames:
        """Return the same run cut after ``frame``. It does not say what followed the cut."""
        assert self.first - 1 <= frame <= self.last, f"frame {frame} not in {self.first}..{self.last}"
        if frame == self.last:
            return self
        count = frame - self.first + 1
        return Frames(
            data=self.data[: len(self.data) // self.count * count],
            first=self.first,
            count=count,
            page_numbers=self.page_numbers[:count],
            sizes=self.sizes[:count],
            chains=self.chains[:count],
            end=FrameEnd.DATA,
            next_salts=None,
            before=self.before,
            big_endian=self.big_endian,
        )

    def pieces(self, count_max: int) -> Iterator[Frames]:
        """Yield the same run in pieces of at most ``count_max`` frames, which fit a processor's cache better."""
        size = len(self.data) // self.count if self.count else 0
        for start in range(0, self.count, count_max):
            stop = min(start + count_max, self.count)
            yield Frames(
                data=self.data[start * size : stop * size],
                first=self.first + start,
                count=stop - start,
                page_numbers=self.page_numbers[start:stop],
                sizes=self.sizes[start:stop],
                chains=self.chains[start:stop],
                end=FrameEnd.DATA,
                next_salts=None,
                before=self.chain_after(self.first + start - 1, self.before),
                big_endian=self.big_endian,
            )


def read_frames(data: Buffer, header: WalHeader, *, first: int, start: Chain) -> Frames:
    """Return the valid whole frames that ``data`` begins with.

    ``first`` is the number of the first frame. ``start`` is the chain before it: ``header.chain`` for frame 1.
    """
    view = memoryview(data).toreadonly()
    size = header.frame_size
    whole = len(view) // size
    fields = _fields(view[: whole * size], size)
    ours = _leading((fields[:, 2:4] == header.salts).all(axis=1))
    chains = frame_chains(view[: ours * size], size, start, big_endian=header.big_endian)
    valid = (fields[:ours, 4:6] == chains).all(axis=1) & (fields[:ours, 0] != 0)
    count = _leading(valid)
    end, next_salts = _what_follows(view[count * size :], header)
    return Frames(
        data=view[: count * size],
        first=first,
        count=count,
        page_numbers=fields[:count, 0],
        sizes=fields[:count, 1],
        chains=chains[:count],
        end=end,
        next_salts=next_salts,
        before=start,
        big_endian=header.big_endian,
    )


def _fields(frames: memoryview, frame_size: int) -> NDArray[np.uint32]:
    """Return the headers of whole frames as native numbers, shape (count, 6)."""
    words = np.frombuffer(frames, ">u4").reshape(-1, frame_size // 4)
    return words[:, :_FIELDS].astype(np.uint32)


def _leading(flags: NDArray[np.bool_]) -> int:
    """Return how many flags are true before the first that is false."""
    return len(flags) if flags.all() else int(flags.argmin())


def _what_follows(rest: memoryview, header: WalHeader) -> tuple[FrameEnd, tuple[int, int] | None]:
    """Return why the run ended before ``rest``, and the salts that were found there."""
    following = parse_frame_header(rest)
    if following is None:
        return FrameEnd.DATA, None
    salts = following.salts
    if len(rest) < header.frame_size:
        return FrameEnd.DATA, salts
    if salts == header.salts:
        return FrameEnd.CHAIN, salts
    if salts != (0, 0):
        return FrameEnd.SALTS, salts
    return (FrameEnd.ZERO if following.page_number else FrameEnd.HOLE), salts
