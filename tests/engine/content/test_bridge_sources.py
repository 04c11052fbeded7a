"""Tests of walsyncd.engine.content.bridge_sources: which pages are read, and the WAL's frames once more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wal_files import insert, wal_database
from walsyncd.adapters.files.source import open_file
from walsyncd.core.content.bridge_passes import PageList, all_pages
from walsyncd.core.follow.decision import Cursor, cursor_before
from walsyncd.core.sqlite.wal import WAL_HEADER_SIZE, parse_wal_header, read_frames
from walsyncd.engine.content.bridge_sources import frames_upto, pages_of, runs_of
from walsyncd.errors import TransientError


@given(st.sets(st.integers(1, 60)), st.integers(0, 60), st.integers(0, 50), st.integers(1, 7))
def test_runs_are_the_pages_of_the_list(numbers: set[int], beyond: int, count: int, length_max: int) -> None:
    """Each page comes once, in order, none past the end of the file, and no run is longer than a block."""
    runs = runs_of(PageList(np.array(sorted(numbers), np.uint32), beyond), count, length_max)
    read = [page for first, last in runs for page in range(first, last + 1)]
    assert read == sorted({page for page in numbers | set(range(beyond + 1, count + 1)) if page <= count})
    assert all(last - first < length_max for first, last in runs)


def test_all_pages_are_all_pages() -> None:
    """All pages come in blocks."""
    assert runs_of(all_pages(), 10, 4) == [(1, 4), (5, 8), (9, 10)]
    assert runs_of(all_pages(), 0, 4) == []


def test_the_frames_of_an_incarnation(tmp_path: Path) -> None:
    """The frames end at the cursor. A frame that was overwritten meanwhile is not returned."""
    path = tmp_path / "app.db"
    with wal_database(path, 4096) as connection:
        insert(connection, commits=4, rows=20, size=900)
        wal = open_file(Path(f"{path}-wal"))
        assert wal is not None
        with wal:
            data = wal.pread(0, wal.size())
            header = parse_wal_header(data)
            assert header is not None
            whole = read_frames(data[WAL_HEADER_SIZE:], header, first=1, start=header.chain)
            last = whole.commits[-2]
            cursor = cursor_before(header).advanced(last, whole.chain_after(last, header.chain))
            batches = list(frames_upto(wal, cursor, block_bytes=3 * 4120))
            assert [batch.first for batch in batches] == list(range(1, last + 1, 3))
            assert batches[-1].last == last
            pages = [page for batch in batches for page in pages_of(batch, np.arange(batch.count), 4096)]
            size = header.frame_size
            assert [number for number, _ in pages] == whole.page_numbers[:last].tolist()
            for frame, (_, content) in enumerate(pages, 1):
                assert content == data[header.offset_of(frame) + 24 : header.offset_of(frame) + size]
            before = cursor_before(header).advanced(2, whole.chain_after(2, header.chain))
            assert [batch.first for batch in frames_upto(wal, cursor, after=before, block_bytes=3 * 4120)] == list(
                range(3, last + 1, 3)
            )
            with pytest.raises(TransientError, match="overwritten"):
                list(frames_upto(wal, cursor, after=Cursor(cursor.salts, header, 2, (1, 2))))
            other = Cursor(cursor.salts, cursor.header, cursor.frames, (1, 2))
            with pytest.raises(TransientError, match="overwritten"):
                list(frames_upto(wal, other))
            with Path(f"{path}-wal").open("r+b") as file:
                file.seek(header.offset_of(2) + 100)
                file.write(b"\xff" * 10)
            with pytest.raises(TransientError, match="overwritten after frame 1"):
                list(frames_upto(wal, cursor))
