"""Tests of walsyncd.core.sqlite.dbheader."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from walsyncd.core.sqlite.dbheader import HEADER_SIZE, DatabaseHeader, parse_database_header


def header_of(path: Path, *statements: str) -> bytes:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in (*statements, "CREATE TABLE t (x)"):
            connection.execute(statement)
    return path.read_bytes()[:HEADER_SIZE]


def parsed(data: bytes) -> DatabaseHeader:
    header = parse_database_header(data)
    assert header is not None
    return header


@pytest.mark.parametrize("page_size", [512, 1024, 4096, 32768, 65536])
def test_every_page_size_is_told(tmp_path: Path, page_size: int) -> None:
    """SQLite's own files state their page size (65536 as 1)."""
    header = parsed(header_of(tmp_path / "a.db", f"PRAGMA page_size={page_size}"))
    assert header.page_size == page_size
    assert header.magic_ok
    assert header.page_count == 2


def test_journal_mode_is_told_by_the_versions(tmp_path: Path) -> None:
    """The write and read versions are 2 in WAL mode and 1 otherwise."""
    rollback = parsed(header_of(tmp_path / "a.db"))
    assert (rollback.write_version, rollback.read_version, rollback.wal_mode) == (1, 1, False)
    wal = parsed(header_of(tmp_path / "b.db", "PRAGMA journal_mode=WAL"))
    assert (wal.write_version, wal.read_version, wal.wal_mode) == (2, 2, True)


def test_change_counter_counts_rollback_transactions(tmp_path: Path) -> None:
    """In rollback mode each transaction adds 1, and the page count is valid then."""
    path = tmp_path / "a.db"
    before = parsed(header_of(path))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("INSERT INTO t VALUES (1)")
    after = parsed(path.read_bytes())
    assert after.change_counter == before.change_counter + 1
    assert after.version_valid_for == after.change_counter


@pytest.mark.parametrize("size", range(HEADER_SIZE))
def test_a_short_file_has_no_header(tmp_path: Path, size: int) -> None:
    """A file that is cut at any byte before 100 has no header."""
    assert parse_database_header(header_of(tmp_path / "a.db")[:size]) is None


def test_every_flipped_bit_is_still_parsed(tmp_path: Path) -> None:
    """A flipped bit is never an error, and a page size is a power of two or unknown."""
    data = header_of(tmp_path / "a.db")
    for bit in range(8 * HEADER_SIZE):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        header = parsed(bytes(flipped))
        assert header.page_size in {None, *(1 << shift for shift in range(9, 17))}
        assert header.magic_ok == (bit >= 8 * 16)


def test_encrypted_headers(tmp_path: Path) -> None:
    """SEE leaves bytes 16 to 23 readable, so the page size is known. SQLCipher leaves nothing readable."""
    data = header_of(tmp_path / "a.db")
    see = parsed(b"\x9d" * 16 + data[16:24] + b"\x9d" * 76)
    assert (see.magic_ok, see.page_size) == (False, 4096)
    sqlcipher = parsed(b"\x9d" * 100)
    assert (sqlcipher.magic_ok, sqlcipher.page_size, sqlcipher.wal_mode) == (False, None, False)
