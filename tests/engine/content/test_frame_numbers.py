"""Tests of walsyncd.engine.content.frame_numbers: a gap that is bridged needs the frames' pages, and ships nothing."""

from __future__ import annotations

from pathlib import Path

from tests.wal_files import files_of, insert, wal_database
from walsyncd.core.content.bridge_passes import BridgePasses
from walsyncd.core.follow.follow_state import Stream
from walsyncd.core.sqlite.wal import parse_wal_header, read_frames
from walsyncd.engine.content.frame_numbers import FrameNumbers


def test_only_the_numbers_are_kept(tmp_path: Path) -> None:
    """The stream's position stays, and the passes know the pages and the size of the last commit."""
    path = tmp_path / "a.db"
    with wal_database(path, 4096) as connection:
        insert(connection, commits=2)
        wal = files_of(path).wal
    header = parse_wal_header(wal)
    assert header is not None
    frames = read_frames(memoryview(wal)[32:], header, first=1, start=header.chain)
    passes, stream = BridgePasses(4096), Stream("20261122T105600Z-3f9c1a2b")
    passes.begin_pass()
    collector = FrameNumbers(passes, stream)
    collector.add(frames)
    assert collector.finish() == (None, stream)
    found = passes.end_pass(9, frames.count)
    assert found is not None
    assert found.size == frames.sizes[-1]
    assert set(found.pages.tolist()) == set(frames.page_numbers.tolist())
