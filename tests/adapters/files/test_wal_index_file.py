"""Tests of the wal-index that is shared with SQLite: its locks keep SQLite out, and SQLite's keep us out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import wal_database
from walsyncd.adapters.files.wal_index_file import CKPT, READ0, READ1, WRITER, WalIndexFile
from walsyncd.core.sqlite.walindex import MARK_UNUSED, IndexHeader
from walsyncd.core.sqlite.walindex_hash import BLOCK_BYTES

HEADER = IndexHeader(5, False, 4096, 7, 3, (1, 2), (3, 4), 0, (0, 0, 0, 0, 0))


@contextmanager
def opened(path: Path) -> Iterator[WalIndexFile]:
    index = WalIndexFile(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    try:
        yield index
    finally:
        index.close()


@pytest.fixture
def index(tmp_path: Path) -> Iterator[WalIndexFile]:
    with opened(tmp_path / "app.db-shm") as file:
        assert file.attach(0)
        file.reserve(1)
        yield file


def test_only_an_index_that_nobody_uses_is_emptied(tmp_path: Path) -> None:
    """The second process finds what the first one wrote."""
    (tmp_path / "app.db-shm").write_bytes(b"stale" * 100)
    with opened(tmp_path / "app.db-shm") as one, opened(tmp_path / "app.db-shm") as other:
        assert one.attach(0)
        assert (tmp_path / "app.db-shm").read_bytes() == b""
        one.reserve(1)
        one.publish(HEADER)
        assert other.attach(0)
        assert other.header() == HEADER


def test_index_of_a_living_process_stays(tmp_path: Path) -> None:
    """SQLite's own lock shows that the index is in use."""
    path = tmp_path / "app.db"
    with wal_database(path) as process:
        process.execute("INSERT INTO t VALUES (1)")
        with opened(Path(f"{path}-shm")) as index:
            assert index.attach(0)
            header = index.header()
            assert header is not None
            assert header.max_frame > 0


def test_header_is_believed_only_when_it_is_whole(index: WalIndexFile) -> None:
    """A writer that died between the two copies leaves no valid header. Frames past the end change nothing."""
    assert index.header() is None
    index.publish(HEADER)
    assert index.header() == HEADER
    index.enter(1, [1, 2, 3])
    assert index.header() == HEADER
    os.pwrite(index.descriptor, b"\1", 50)
    assert index.header() is None


def test_frames_past_the_first_block_make_the_file_longer(index: WalIndexFile) -> None:
    """Each block has its own hash table."""
    index.enter(1, list(range(1, 4063)))
    assert os.fstat(index.descriptor).st_size == BLOCK_BYTES
    index.enter(4063, [9])
    assert os.fstat(index.descriptor).st_size == 2 * BLOCK_BYTES


def test_lock_that_another_holds_is_not_had(tmp_path: Path, index: WalIndexFile) -> None:
    """Each byte is locked by itself, and released at the end."""
    with opened(tmp_path / "app.db-shm") as other:
        with index.alone(WRITER) as ours:
            assert ours
            with other.alone(WRITER) as theirs, other.alone(CKPT) as checkpoint:
                assert (theirs, checkpoint) == (False, True)
        with other.alone(WRITER, wait_s=1) as theirs:
            assert theirs


def test_frames_that_a_reader_needs_are_not_safe(tmp_path: Path, index: WalIndexFile) -> None:
    """Frames up to the mark of a live reader are needed. A mark that nobody uses is moved or given up."""
    index.publish(replace(HEADER, max_frame=100))
    index.set_mark(1, 40)
    index.set_mark(2, 60)
    for number in (3, 4):
        index.set_mark(number, MARK_UNUSED)
    header = index.header()
    assert header is not None
    with opened(tmp_path / "app.db-shm") as reader, reader.alone(READ0 + 2) as held:
        assert held
        assert index.safe_frame(header) == 60
    header = index.header()
    assert header is not None
    assert header.read_marks[1:3] == (100, 60)
    assert index.safe_frame(header) == 100
    index.reset_marks(100)
    header = index.header()
    assert header is not None
    assert header.read_marks == (0, 100, MARK_UNUSED, MARK_UNUSED, MARK_UNUSED)
    assert READ1 == READ0 + 1
