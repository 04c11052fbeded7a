"""The wal-index header is read as SQLite publishes it, and believed only when it is whole."""

from __future__ import annotations

import sqlite3
import struct
import sys
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wal_files import (
    PAGE_SIZES,
    Files,
    content_of,
    files_of,
    insert,
    reference_checksum,
    wal_database,
    with_checksums,
)
from walsyncd.core.sqlite.wal import WAL_HEADER_SIZE, parse_wal_header, read_frames
from walsyncd.core.sqlite.walindex import WALINDEX_READ_SIZE, IndexHeader, format_index_header, parse_index_header


def index_of(files: Files) -> IndexHeader:
    index = parse_index_header(files.shm[:WALINDEX_READ_SIZE])
    assert index is not None
    return index


def assert_agree(files: Files) -> IndexHeader:
    """Assert that the wal-index says what a scan of the WAL finds, and return it."""
    index = index_of(files)
    header = parse_wal_header(files.wal)
    assert header is not None
    frames = read_frames(files.wal[WAL_HEADER_SIZE:], header, first=1, start=header.chain)
    assert index.salts == header.salts
    assert (index.page_size, index.big_endian) == (header.page_size, header.big_endian)
    assert index.max_frame == frames.commits[-1]
    assert index.page_count == frames.sizes[index.max_frame - 1]
    assert index.frame_chain == frames.chain_after(index.max_frame, header.chain)
    return index


@pytest.fixture(scope="module")
def real_header(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("real") / "app.db"
    with wal_database(path, 4096) as connection:
        insert(connection, commits=3)
        return files_of(path).shm[:WALINDEX_READ_SIZE]


def test_what_no_checksum_covers_is_of_the_bytes_that_are_given(real_header: bytes) -> None:
    """Fields that no checksum covers come from the bytes that are given.

    A checkpoint stores nBackfill beside an unchanged header, and a reader stores its mark.
    """
    before = parse_index_header(real_header)
    after = parse_index_header(real_header[:96] + struct.pack("=2I", 2, 7) + real_header[104:])
    assert before is not None
    assert after is not None
    assert (after.backfilled, after.read_marks[0]) == (2, 7) != (before.backfilled, before.read_marks[0])
    assert parse_index_header(memoryview(bytearray(real_header))) == before


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_agrees_with_the_wal(tmp_path: Path, page_size: int) -> None:
    """Salts, last frame, page count and chain are those of the WAL, for every page size."""
    path = tmp_path / "app.db"
    with wal_database(path, page_size) as connection:
        for _ in range(3):
            insert(connection, commits=2, rows=3, size=page_size)
            assert_agree(files_of(path))


def test_agrees_with_another_sqlite(tmp_path: Path) -> None:
    """The same holds for apsw's newer SQLite."""
    path = tmp_path / "app.db"
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (x)")
        connection.execute("INSERT INTO t VALUES (1)")
        assert assert_agree(files_of(path)).ichange == 2


def test_big_endian_checksums(tmp_path: Path) -> None:
    """After recovery of a WAL with big-endian checksums the wal-index says so, and still agrees with the WAL."""
    path = tmp_path / "app.db"
    with wal_database(path, 4096) as connection:
        insert(connection, commits=3)
        files = files_of(path)
    copy = tmp_path / "copy.db"
    copy.write_bytes(files.database)
    Path(f"{copy}-wal").write_bytes(with_checksums(files.wal, big_endian=True))
    with closing(apsw.Connection(str(copy))) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchall() == [(3,)]
        assert assert_agree(files_of(copy)).big_endian
    assert content_of(copy) == content_of(path)


def test_ichange_counts_commits(tmp_path: Path) -> None:
    """iChange grows by 1 with each commit, and continues across a restart of the WAL."""
    path = tmp_path / "app.db"
    with wal_database(path, 4096) as connection:
        insert(connection, commits=1)
        before = index_of(files_of(path))
        insert(connection, commits=7, rows=2)
        connection.execute("PRAGMA wal_checkpoint(RESTART)")
        insert(connection, commits=3)
        after = index_of(files_of(path))
    assert after.ichange == before.ichange + 10
    assert after.salts[0] == before.salts[0] + 1


def test_checkpoint_and_readers(tmp_path: Path) -> None:
    """A checkpoint shows in ``backfilled``, and a reader's frame in ``read_marks``."""
    path = tmp_path / "app.db"
    with wal_database(path, 4096) as connection, closing(sqlite3.connect(path)) as reader:
        insert(connection, commits=3)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM t").fetchone()
        seen = index_of(files_of(path)).max_frame
        insert(connection, commits=3)
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        index = index_of(files_of(path))
    assert index.backfilled == seen
    assert seen in index.read_marks


def test_recovered_empty_wal(tmp_path: Path) -> None:
    """After recovery of an empty WAL the page size is not known yet, and there is no frame."""
    path = tmp_path / "app.db"
    with wal_database(path, 4096) as connection:
        insert(connection, commits=1)
    with closing(apsw.Connection(str(path))) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchall() == [(1,)]
        index = index_of(files_of(path))
    assert (index.page_size, index.max_frame, index.ichange) == (0, 0, 0)


def test_every_prefix(real_header: bytes) -> None:
    """A wal-index that is too short says nothing. Bytes after the header make no difference."""
    assert all(parse_index_header(real_header[:length]) is None for length in range(WALINDEX_READ_SIZE))
    assert parse_index_header(real_header + bytes(1000)) == parse_index_header(real_header)


def test_every_bit_flip(real_header: bytes) -> None:
    """A flipped bit in either copy is noticed. A flipped bit after them changes at most the checkpoint's numbers."""
    real = parse_index_header(real_header)
    assert real is not None
    for bit in range(WALINDEX_READ_SIZE * 8):
        flipped = bytearray(real_header)
        flipped[bit // 8] ^= 1 << bit % 8
        index = parse_index_header(flipped)
        if bit // 8 < 96:
            assert index is None
        else:
            assert index is not None
            assert (index == real) == (bit // 8 >= 120)
            assert (index.max_frame, index.frame_chain) == (real.max_frame, real.frame_chain)


def test_same_bit_flipped_in_both_copies(real_header: bytes) -> None:
    """Two equal copies are not enough, because the checksum must fit, too."""
    for bit in range(48 * 8):
        flipped = bytearray(real_header)
        flipped[bit // 8] ^= 1 << bit % 8
        flipped[48 + bit // 8] ^= 1 << bit % 8
        assert parse_index_header(flipped) is None


@pytest.mark.parametrize(("offset", "value"), [(0, 3007001), (12, 0), (14, 513), (14, 3)])
def test_sound_but_not_ours(real_header: bytes, offset: int, value: int) -> None:
    """A header of another version, an uninitialised one, or one with an impossible page size is refused though its
    checksum fits.
    """
    copy = bytearray(real_header[:40])
    struct.pack_into({0: "=I", 12: "=B", 14: "=H"}[offset], copy, offset, value)
    chain = reference_checksum(bytes(copy), (0, 0), big_endian=sys.byteorder == "big")
    whole = bytes(copy) + struct.pack("=2I", *chain)
    assert parse_index_header(whole * 2 + real_header[96:]) is None


@given(data=st.binary(min_size=100, max_size=200))
def test_random_bytes(data: bytes) -> None:
    """Random bytes are no wal-index header, even if both copies are equal."""
    assert parse_index_header(data) is None
    assert parse_index_header(data[:48] * 2 + data) is None


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_formatted_header_is_read_back(page_size: int) -> None:
    """Two copies of a formatted header are parsed to the same values."""
    header = IndexHeader(7, False, page_size, 12, 34, (5, 6), (0x01020304, 0xFFFFFFFF), 0, (0, 0, 0, 0, 0))
    assert parse_index_header(format_index_header(header) * 2 + bytes(40)) == header
