"""Reads the sources of a bridge: runs of pages of the file, and the frames of the WAL's current incarnation."""

from __future__ import annotations

from collections.abc import Iterator

from walsyncd.adapters.files.source import OpenFile
from walsyncd.core.content.bridge_passes import PageList
from walsyncd.core.follow.decision import Cursor, cursor_before
from walsyncd.core.sqlite.arrays import NDArray, np
from walsyncd.core.sqlite.wal import FRAME_HEADER_SIZE, Frames, read_frames
from walsyncd.engine.content.scan_queue import BLOCK_BYTES
from walsyncd.errors import TransientError


def runs_of(pages: PageList, count: int, length_max: int) -> list[tuple[int, int]]:
    """Return the listed pages of a file of ``count`` pages as runs (first, last) of at most ``length_max`` pages."""
    listed = pages.numbers[(pages.numbers <= min(count, pages.beyond))].astype(np.int64)
    ends = np.flatnonzero(np.diff(listed, append=-1) != 1)
    runs: list[tuple[int, int]] = []
    at = 0
    for end in ends.tolist():
        runs += _cut(int(listed[at]), int(listed[end]), length_max)
        at = end + 1
    return runs + _cut(pages.beyond + 1, count, length_max)


def _cut(first: int, last: int, length_max: int) -> list[tuple[int, int]]:
    return [(at, min(last, at + length_max - 1)) for at in range(first, last + 1, length_max)]


def frames_upto(
    wal: OpenFile, cursor: Cursor, *, after: Cursor | None = None, block_bytes: int = BLOCK_BYTES
) -> Iterator[Frames]:
    """Yield the verified frames up to ``cursor`` in batches. They begin with frame 1, or after the cursor ``after``.

    Raises TransientError if the WAL no longer has these frames.
    """
    header = cursor.header
    assert header is not None
    reached = cursor_before(header) if after is None else after
    batch = max(1, block_bytes // header.frame_size)
    while reached.frames < cursor.frames:
        first, count = reached.frames + 1, min(batch, cursor.frames - reached.frames)
        data = wal.pread(header.offset_of(first), count * header.frame_size)
        frames = read_frames(data, header, first=first, start=reached.chain)
        if frames.count < count:
            raise TransientError(f"the WAL was overwritten after frame {frames.last} before it was read")
        yield frames
        reached = reached.advanced(frames.last, frames.chain_after(frames.last, reached.chain))
    if reached.chain != cursor.chain:
        raise TransientError("the WAL was overwritten before it was read")


def pages_of(frames: Frames, rows: NDArray[np.intp], page_size: int) -> list[tuple[int, memoryview]]:
    """Return the pages in some of these frames, as (number, content)."""
    size = FRAME_HEADER_SIZE + page_size
    return [
        (int(frames.page_numbers[row]), frames.data[row * size + FRAME_HEADER_SIZE : (row + 1) * size])
        for row in rows.tolist()
    ]
