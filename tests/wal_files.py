"""Makes real WALs for tests: SQLite writes them, tests rewrite their checksums, and SQLite reads them again."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

PAGE_SIZES = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]


@dataclass(frozen=True, slots=True)
class Files:
    """The three files of a database as they are on disk while it is open."""

    database: bytes
    wal: bytes
    shm: bytes


def reference_checksum(data: bytes, start: tuple[int, int], *, big_endian: bool) -> tuple[int, int]:
    """Return the checksum as SQLite's documentation defines it."""
    s0, s1 = start
    for x, y in struct.iter_unpack(">2I" if big_endian else "<2I", data):
        s0 = (s0 + x + s1) & 0xFFFFFFFF
        s1 = (s1 + y + s0) & 0xFFFFFFFF
    return s0, s1


def files_of(path: Path) -> Files:
    return Files(*(Path(f"{path}{suffix}").read_bytes() for suffix in ("", "-wal", "-shm")))


@contextmanager
def wal_database(path: Path, page_size: int) -> Iterator[sqlite3.Connection]:
    """Return a connection in autocommit and WAL mode. The first one creates table ``t`` and checkpoints it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size={page_size}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, payload BLOB)")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        yield connection


def insert(connection: sqlite3.Connection, *, commits: int, rows: int = 1, size: int = 100) -> None:
    """Commit ``commits`` transactions of ``rows`` rows each. ``size`` is the bytes of a row."""
    for _ in range(commits):
        connection.execute("BEGIN")
        for _ in range(rows):
            connection.execute("INSERT INTO t (payload) VALUES (randomblob(?))", (size,))
        connection.execute("COMMIT")


def content_of(path: Path) -> list[tuple[int, bytes]]:
    """Return all rows of ``t`` as SQLite sees them after it found the database sound."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return connection.execute("SELECT id, payload FROM t ORDER BY id").fetchall()


def recovered(folder: Path, database: bytes, wal: bytes) -> list[tuple[int, bytes]]:
    """Return the content after SQLite's own recovery of ``wal`` over ``database``."""
    folder.mkdir()
    path = folder / "recovered.db"
    path.write_bytes(database)
    Path(f"{path}-wal").write_bytes(wal)
    return content_of(path)


def with_checksums(wal: bytes, *, big_endian: bool) -> bytes:
    """Return the same WAL with its checksums in the given byte order, made by the reference function."""
    head = struct.pack(">I", 0x377F0682 | big_endian) + wal[4:24]
    chain = reference_checksum(head, (0, 0), big_endian=big_endian)
    result = bytearray(head + struct.pack(">2I", *chain))
    frame_size = 24 + struct.unpack_from(">I", wal, 8)[0]
    for at in range(32, len(wal), frame_size):
        frame = wal[at : at + frame_size]
        chain = reference_checksum(frame[:8] + frame[24:], chain, big_endian=big_endian)
        result += frame[:16] + struct.pack(">2I", *chain) + frame[24:]
    return bytes(result)
