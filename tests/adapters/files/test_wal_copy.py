"""Tests that a WAL is copied back and its wal-index recovered as SQLite does it: same bytes, same header."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from walsyncd.adapters.files.wal_copy import BATCH_BYTES, copy_back, recover_frames
from walsyncd.adapters.files.wal_index_file import WalIndexFile
from walsyncd.core.sqlite.walindex import IndexHeader, parse_index_header

PAGE_SIZE = 4096


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a database and its WAL as a kill left them. ``-shm`` is SQLite's own index of it."""
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("CREATE TABLE t (a)")
        for number in range(30):
            connection.execute("INSERT INTO t VALUES (zeroblob(?))", (3000 * number,))
        for suffix in ("", "-wal", "-shm"):
            Path(f"{tmp_path}/left.db{suffix}").write_bytes(Path(f"{path}{suffix}").read_bytes())
    return tmp_path / "left.db"


def header_of(shm: Path) -> IndexHeader:
    header = parse_index_header(shm.read_bytes()[:136])
    assert header is not None
    return header


def recovered(source: Path, *, torn: bytes = b"", batch_bytes: int = BATCH_BYTES) -> IndexHeader:
    wal = os.open(f"{source}-wal", os.O_RDWR)
    os.pwrite(wal, torn, os.fstat(wal).st_size)
    index = WalIndexFile(os.open(f"{source}-index", os.O_RDWR | os.O_CREAT))
    try:
        recover_frames(wal, index, page_size=PAGE_SIZE, wait_s=0, batch_bytes=batch_bytes)
        header = index.header()
        assert header is not None
        return header
    finally:
        index.close()
        os.close(wal)


@pytest.mark.parametrize("batch_bytes", [1, 20_000, 2 << 20])
def test_recovered_index_is_the_one_that_sqlite_had(source: Path, batch_bytes: int) -> None:
    """The header differs only in its counter, and the hash tables are equal. A torn end is not counted."""
    found, theirs = (
        recovered(source, torn=b"half a frame" * 100, batch_bytes=batch_bytes),
        header_of(Path(f"{source}-shm")),
    )
    assert replace(found, ichange=0, read_marks=theirs.read_marks) == replace(theirs, ichange=0)
    assert found.read_marks[:2] == (0, found.max_frame)
    ours = Path(f"{source}-index").read_bytes()
    assert ours[136:] == Path(f"{source}-shm").read_bytes()[136:]


def test_frames_without_a_commit_are_not_counted(source: Path) -> None:
    """The last frame of the WAL is cut off, and with it its transaction."""
    whole = header_of(Path(f"{source}-shm")).max_frame
    os.truncate(f"{source}-wal", 32 + (whole - 1) * (24 + PAGE_SIZE))
    found = recovered(source)
    assert found.max_frame < whole - 1
    assert found.page_count < header_of(Path(f"{source}-shm")).page_count


def test_wal_that_is_empty_gives_an_empty_index(source: Path) -> None:
    """Readers then read only the database file."""
    os.truncate(f"{source}-wal", 0)
    assert recovered(source).max_frame == 0


def test_frames_are_copied_back_as_sqlite_does(source: Path) -> None:
    """The file is byte for byte what SQLite's own checkpoint leaves. Pages past the end are left out."""
    header = header_of(Path(f"{source}-shm"))
    wal, database = os.open(f"{source}-wal", os.O_RDONLY), os.open(source, os.O_RDWR)
    frames = range(1, header.max_frame + 1)
    copy_back(wal, database, frames, page_size=PAGE_SIZE, page_count=header.page_count)
    os.close(database)
    ours = source.read_bytes()
    other = source.with_name("other.db")
    other.write_bytes(b"")
    database = os.open(other, os.O_RDWR)
    copy_back(wal, database, frames, page_size=PAGE_SIZE, page_count=1)
    os.close(database)
    os.close(wal)
    assert other.stat().st_size == PAGE_SIZE
    with closing(sqlite3.connect(source)) as connection:
        connection.execute("SELECT count(*) FROM t").fetchone()
    assert not Path(f"{source}-wal").exists()
    assert source.read_bytes() == ours


def test_wal_that_ends_too_early_is_an_error(source: Path) -> None:
    """If somebody truncated the WAL, the copy fails, and no content is invented."""
    wal, database = os.open(f"{source}-wal", os.O_RDWR), os.open(source, os.O_RDWR)
    os.ftruncate(wal, 10_000)
    with pytest.raises(OSError, match="ends before"):
        copy_back(wal, database, range(1, 20), page_size=PAGE_SIZE, page_count=100)
    os.close(wal)
    os.close(database)
