"""Processes a whole WAL as SQLite does: copies it back into the database, and recovers its wal-index (wal.c).

Both happen under the locks that SQLite takes for them (``wal_index_file``).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from walsyncd.adapters.files.wal_index_file import CKPT, RECOVER, WalIndexFile
from walsyncd.core.sqlite.arrays import np
from walsyncd.core.sqlite.wal import (
    FRAME_HEADER_SIZE,
    WAL_HEADER_SIZE,
    Frames,
    WalHeader,
    parse_wal_header,
    read_frames,
)
from walsyncd.core.sqlite.walindex import IndexHeader
from walsyncd.errors import RefusedError

BATCH_BYTES = 2 << 20


def copy_back(wal: int, database: int, frames: range, *, page_size: int, page_count: int) -> None:
    """Write the last version of each page in ``frames`` into the database file, by ascending page number.

    Pages after ``page_count`` are left out: they were written when the database was larger. The caller holds READ0 and
    syncs the file.
    """
    last: dict[int, int] = {}
    size = FRAME_HEADER_SIZE + page_size
    batch = max(1, BATCH_BYTES // size)
    for first in range(frames.start, frames.stop, batch):
        count = min(batch, frames.stop - first)
        rows = np.frombuffer(_read_whole(wal, count * size, _offset(first, size)), np.uint8).reshape(count, size)
        numbers = np.ascontiguousarray(rows[:, :4]).view(">u4")[:, 0].tolist()
        last.update(zip(numbers, range(first, first + count), strict=True))
    for number in sorted(last):
        if number <= page_count:
            page = _read_whole(wal, page_size, _offset(last[number], size) + FRAME_HEADER_SIZE)
            write_whole(database, memoryview(page), (number - 1) * page_size)


def _read_whole(wal: int, length: int, offset: int) -> bytes:
    data = os.pread(wal, length, offset)
    if len(data) < length:
        raise OSError(errno.EIO, "its -wal ends before its last frame")
    return data


def write_whole(descriptor: int, data: memoryview, offset: int) -> None:
    """Write all of ``data``, by several calls if a pwrite writes only a part."""
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def _offset(frame: int, frame_size: int) -> int:
    return WAL_HEADER_SIZE + (frame - 1) * frame_size


def recover_frames(
    wal: int, index: WalIndexFile, *, page_size: int, wait_s: float, batch_bytes: int = BATCH_BYTES
) -> None:
    """Update the wal-index to the WAL's content up to its last commit. The caller holds WRITER.

    Other processes may use the index meanwhile, so correct entries stay as they are. Raises RefusedError if their locks
    are in the way.
    """
    with index.alone(CKPT, RECOVER - CKPT + 1, wait_s=wait_s) as held:
        if not held:
            raise RefusedError("follow: another process copies the WAL back or recovers it")
        index.reserve(1)
        found = _read(wal, index, page_size, batch_bytes)
        index.set_backfilled(0, attempted=found.max_frame)
        index.reset_marks(found.max_frame)
        index.publish(found)


def _read(wal: int, index: WalIndexFile, page_size: int, batch_bytes: int) -> IndexHeader:
    """Return the header for the WAL's content, and enter its frames into the hash tables."""
    marks = (0, 0, 0, 0, 0)
    header = parse_wal_header(os.pread(wal, WAL_HEADER_SIZE, 0))
    if header is None or header.page_size != page_size:
        return IndexHeader(0, False, 0, 0, 0, (0, 0), (0, 0), 0, marks)  # as SQLite leaves it for an empty WAL
    numbers: list[int] = []
    entered = 0
    found = IndexHeader(0, header.big_endian, page_size, 0, 0, header.chain, header.salts, 0, marks)
    for frames in _frames(wal, header, batch_bytes):
        numbers += frames.page_numbers.tolist()
        if frames.commits:
            last = frames.commits[-1]
            count = last - entered
            index.enter(entered + 1, numbers[:count])
            numbers, entered = numbers[count:], last
            page_count = int(frames.sizes[last - frames.first])
            chain = frames.chain_after(last, header.chain)
            found = IndexHeader(0, header.big_endian, page_size, last, page_count, chain, header.salts, 0, marks)
    return found


def _frames(wal: int, header: WalHeader, batch_bytes: int) -> Iterator[Frames]:
    first, chain = 1, header.chain
    batch = max(1, batch_bytes // header.frame_size)
    while True:
        data = os.pread(wal, batch * header.frame_size, header.offset_of(first))
        frames = read_frames(data, header, first=first, start=chain)
        if not frames.count:
            return
        yield frames
        if frames.count < batch:
            return
        chain = frames.chain_after(frames.last, chain)
        first = frames.last + 1
