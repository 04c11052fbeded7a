"""The header of SQLite's wal-index, ``-shm`` (sqlite.org/walformat.html, section 2.1).

    offset  size
       0     4   version, 3007000
       4     4   unused
       8     4   iChange: grows by 1 with each commit
      12     1   isInit
      13     1   bigEndCksum: the WAL's checksums read big-endian words
      14     2   szPage: 1 means 65536; 0 means that nothing was committed since recovery found an empty WAL
      16     4   mxFrame: the last committed frame
      20     4   nPage: size of the database in pages
      24     8   aFrameCksum: running checksum after mxFrame
      32     8   aSalt: the salts of the WAL header
      40     8   aCksum: checksum of bytes 0 to 39
      48    48   the same again
      96     4   nBackfill: frames copied back into the database
     100    20   aReadMark[5]
     120    16   lock bytes, nBackfillAttempted, unused

Numbers are in the byte order of the machine, and aCksum reads native words. aSalt, however, is copied byte for byte
from the WAL header, so it is big-endian everywhere.

A writer changes the second copy first, then the first, and readers hold no lock meanwhile. So the header is trusted
only if both copies are equal, isInit is set, and aCksum is right.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from functools import lru_cache

from walsyncd.core.sqlite.checksum import Buffer, Chain, checksum
from walsyncd.core.sqlite.wal import PAGE_SIZES, VERSION

WALINDEX_READ_SIZE = 136
MARK_UNUSED = 0xFFFFFFFF
"""The value of a read mark that no reader uses."""

_COPY_SIZE = 48
_COPY = struct.Struct("=I4xIBBHII2I8s2I")
_CHECKPOINT = struct.Struct("=I5I")
_PARSED_MAX = 64  # a look reads the header again after the frames, and mostly finds the same bytes


@dataclass(frozen=True, slots=True)
class IndexHeader:
    """The fields of the wal-index header. ``page_size`` is 0 while the wal-index does not know it.

    In the same incarnation, ``salts`` are equal to `WalHeader.salts`, and ``frame_chain`` is the chain after frame
    ``max_frame``.
    """

    ichange: int
    big_endian: bool
    page_size: int
    max_frame: int
    page_count: int
    frame_chain: Chain
    salts: tuple[int, int]
    backfilled: int
    read_marks: tuple[int, int, int, int, int]


def format_index_header(header: IndexHeader) -> bytes:
    """Return one of the two copies (48 bytes) that `parse_index_header` reads back."""
    page = 1 if header.page_size == 65536 else header.page_size
    salts = struct.pack(">2I", *header.salts)
    counts = header.max_frame, header.page_count, *header.frame_chain
    copy = _COPY.pack(VERSION, header.ichange, 1, header.big_endian, page, *counts, salts, 0, 0)[:40]
    return copy + struct.pack("=2I", *checksum(copy, (0, 0), big_endian=sys.byteorder == "big"))


def parse_index_header(data: Buffer) -> IndexHeader | None:
    """Return the header that the wal-index begins with, or None if the header can't be trusted (yet).

    ``data`` is the first `WALINDEX_READ_SIZE` bytes or more. Returns None if ``data`` is shorter.
    """
    return _parse(bytes(data[:WALINDEX_READ_SIZE])) if len(data) >= WALINDEX_READ_SIZE else None


@lru_cache(maxsize=_PARSED_MAX)
def _parse(data: bytes) -> IndexHeader | None:
    copy = data[:_COPY_SIZE]
    if copy != data[_COPY_SIZE : 2 * _COPY_SIZE]:
        return None
    version, ichange, init, big, page, last, pages, s0, s1, salts, *stored = _COPY.unpack(copy)
    page_size = 65536 if page == 1 else page
    if not init or version != VERSION or page_size not in (0, *PAGE_SIZES):
        return None
    if checksum(copy[:40], (0, 0), big_endian=sys.byteorder == "big") != tuple(stored):
        return None
    salt1, salt2 = struct.unpack(">2I", salts)
    backfilled, *marks = _CHECKPOINT.unpack_from(data, 2 * _COPY_SIZE)
    m0, m1, m2, m3, m4 = marks
    return IndexHeader(
        ichange=ichange,
        big_endian=big != 0,
        page_size=page_size,
        max_frame=last,
        page_count=pages,
        frame_chain=(s0, s1),
        salts=(salt1, salt2),
        backfilled=backfilled,
        read_marks=(m0, m1, m2, m3, m4),
    )


def parse_read_marks(data: Buffer) -> tuple[int, ...]:
    """Return the values of aReadMark, which no checksum covers. Returns none if ``data`` is too short."""
    return _CHECKPOINT.unpack_from(data, 2 * _COPY_SIZE)[1:] if len(data) >= WALINDEX_READ_SIZE else ()
