"""Tests of walsyncd.core.content.page_frames: pages as frames of a stored epoch."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from walsyncd.core.content.page_frames import frames_of_pages
from walsyncd.core.sqlite.wal import PAGE_SIZES, parse_wal_header, read_frames
from walsyncd.core.stored.epoch import begin_stamp


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_they_are_a_chain(page_size: int) -> None:
    """Frames that are stamped in two calls are one run of valid frames, and only the last one commits."""
    chance = random.Random(page_size)
    pages = [(number, chance.randbytes(page_size)) for number in (3, 1, 3, 7)]
    header, stamp = begin_stamp(page_size, 5, (11, 12))
    parsed = parse_wal_header(header)
    assert parsed is not None
    first, middle = frames_of_pages(pages[:2], stamp)
    second, after = frames_of_pages(pages[2:], middle, size=7)
    frames = read_frames(first + second, parsed, first=1, start=parsed.chain)
    assert frames.count == 4
    assert frames.page_numbers.tolist() == [3, 1, 3, 7]
    assert frames.sizes.tolist() == [0, 0, 0, 7]
    assert tuple(frames.chains[-1].tolist()) == after.chain
    assert frames_of_pages([], stamp) == (b"", stamp)


def test_sqlite_takes_the_last_version(tmp_path: Path) -> None:
    """SQLite takes a page's last version if a transaction holds it twice, and ignores a page past the size of the
    commit.
    """
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (x)")
        connection.execute("INSERT INTO t VALUES (1)")
    content = path.read_bytes()
    pages = [(1, content[:4096]), (2, b"\xff" * 4096), (9, bytes(4096)), (2, content[4096:8192]), (1, content[:4096])]
    header, stamp = begin_stamp(4096, 1, (1, 2))
    path.with_name("app.db-wal").write_bytes(header + frames_of_pages(pages, stamp, size=2)[0])
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT x FROM t").fetchall() == [(1,)]
        assert connection.execute("PRAGMA page_count").fetchone() == (2,)
    assert path.read_bytes() == content
