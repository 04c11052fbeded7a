"""Builds journals as bytes, and collects those that SQLite writes."""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

from walsyncd.core.sqlite.rollback_journal import JOURNAL_MAGIC, page_sum

PAGE = 512


def reader(raw: bytes) -> Callable[[int, int], bytes]:
    return lambda at, length: raw[at : at + length]


def header(count: int, nonce: int, *, sector: int = 512, page_size: int = PAGE, size: int = 9) -> bytes:
    return (JOURNAL_MAGIC + struct.pack(">5I", count, nonce, size, sector, page_size)).ljust(sector, b"\x00")


def record(number: int, page: bytes, nonce: int) -> bytes:
    return struct.pack(">I", number) + page + struct.pack(">I", (nonce + page_sum(page)) % 2**32)


def part(nonce: int, pages: Iterable[tuple[int, bytes]], *, count: int | None = None, sector: int = 512) -> bytes:
    """Return a journal header and its records, filled up to a sector."""
    records = [record(number, page, nonce) for number, page in pages]
    raw = header(len(records) if count is None else count, nonce, sector=sector) + b"".join(records)
    return raw.ljust(-(-len(raw) // sector) * sector, b"\x00")


def page_1(counter: int, size: int = 9, *, trunk: int = 0, free: int = 0, version: int = 1) -> bytes:
    """Return a database header with the fields that a proof reads."""
    raw = bytearray(PAGE)
    raw[:24] = b"SQLite format 3\x00" + struct.pack(">H6B", PAGE, version, version, 0, 64, 32, 32)
    struct.pack_into(">4I", raw, 24, counter, size, trunk, free)
    struct.pack_into(">I", raw, 92, counter)
    return bytes(raw)


def make_database(path: Path, *settings: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    for each in (f"PRAGMA page_size = {PAGE}", *settings, "CREATE TABLE t (k INTEGER PRIMARY KEY, v BLOB)"):
        connection.execute(each)
    connection.execute(
        "INSERT INTO t (v) SELECT randomblob(100) FROM "
        "(WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 200) SELECT x FROM n)"
    )
    return connection


def journal_of(connection: sqlite3.Connection, path: Path, *sql: str, end: str = "COMMIT") -> bytes:
    """Run a transaction. Return its journal as it was when SQLite deleted it."""
    connection.execute("BEGIN")
    for each in sql:
        connection.execute(each)
    descriptor = os.open(f"{path}-journal", os.O_RDONLY)
    try:
        connection.execute(end)
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    finally:
        os.close(descriptor)
