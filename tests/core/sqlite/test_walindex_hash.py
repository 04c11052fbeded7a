"""Tests of the wal-index's hash tables: SQLite finds pages by those that we fill."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wal_files import PAGE_SIZES
from walsyncd.core.sqlite.walindex import WALINDEX_READ_SIZE
from walsyncd.core.sqlite.walindex_hash import BLOCK_BYTES, add_to_block, blocks_for, pieces_of

FIRST = 4062


def add_frames(index: memoryview, first: int, page_numbers: list[int]) -> None:
    """Add frames from ``first`` on to an index that has all blocks for them."""
    at = 0
    for block, start, count in pieces_of(first, len(page_numbers)):
        view = index[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]
        add_to_block(view, block, start, page_numbers[at : at + count])
        at += count


@pytest.mark.parametrize(("frame", "blocks"), [(0, 1), (1, 1), (4062, 1), (4063, 2), (8158, 2), (8159, 3)])
def test_blocks(frame: int, blocks: int) -> None:
    """The first block holds 4,062 frames, every other 4,096."""
    assert blocks_for(frame) == blocks


@pytest.mark.parametrize("rows", [10, 9000])
def test_index_is_the_one_that_sqlite_makes(tmp_path: Path, rows: int) -> None:
    """If we enter the same frames, the bytes after the header are those that SQLite writes."""
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {PAGE_SIZES[0]}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("CREATE TABLE t (a)")
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
            "INSERT INTO t SELECT randomblob(300) FROM n",
            (rows,),
        )
        theirs = Path(f"{path}-shm").read_bytes()
        wal = np.frombuffer(Path(f"{path}-wal").read_bytes()[32:], np.uint8)
    frames = wal[: len(wal) // 536 * 536].reshape(-1, 536)
    numbers = np.ascontiguousarray(frames[:, :4]).view(">u4")[:, 0].tolist()
    ours = bytearray(len(theirs))
    half = len(numbers) // 2
    add_frames(memoryview(ours), 1, numbers[:half])
    add_frames(memoryview(ours), half + 1, numbers[half:])
    assert bytes(ours[WALINDEX_READ_SIZE:]) == theirs[WALINDEX_READ_SIZE:]
    assert len(theirs) == blocks_for(len(numbers)) * BLOCK_BYTES


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.lists(st.integers(1, 40), max_size=60))
def test_what_a_dead_writer_left_is_removed(kept: list[int], lost: list[int]) -> None:
    """Entries past the last commit are removed without a trace, also at the end of a block."""
    for start in (1, FIRST - 20):
        with_rest, clean = bytearray(2 * BLOCK_BYTES), bytearray(2 * BLOCK_BYTES)
        add_frames(memoryview(with_rest), start, lost)
        for index in (with_rest, clean):
            add_frames(memoryview(index), start, kept)
        if lost[len(kept) :]:
            add_frames(memoryview(with_rest), start + len(kept), [7])
            add_frames(memoryview(clean), start + len(kept), [7])
        upto = start + len(kept)
        assert _pages(with_rest, upto) == _pages(clean, upto)


def _pages(index: bytearray, upto: int) -> list[list[int]]:
    """Return for each page the frames up to ``upto`` that a reader finds."""
    found = []
    for page in range(1, 41):
        frames = []
        for block in range(2):
            start = block * BLOCK_BYTES
            numbers = np.frombuffer(index, np.uint32, offset=start + (136 if block == 0 else 0), count=FIRST)
            slots = np.frombuffer(index, np.uint16, offset=start + 16384, count=8192)
            slot = page * 383 % 8192
            while slots[slot]:
                frame = int(slots[slot]) + block * FIRST
                if numbers[int(slots[slot]) - 1] == page and frame <= upto:
                    frames.append(frame)
                slot = (slot + 1) % 8192
        found.append(frames)
    return found
