"""Tests of the freelist: compared with SQLite's own, and damaged."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from walsyncd.core.sqlite.freelist import all_free_pages, free_leaves

PAGE = 512


def make(path: Path) -> bytes:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size={PAGE}")
        connection.execute("CREATE TABLE t (a)")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO t VALUES (zeroblob(400))", [()] * 400)
        connection.execute("COMMIT")
        connection.execute("DELETE FROM t WHERE rowid > 10")
        (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    assert free > PAGE // 4, "more than one trunk"
    return path.read_bytes()


def leaves_of(raw: bytes) -> frozenset[int]:
    return free_leaves(lambda number: raw[(number - 1) * PAGE : number * PAGE], len(raw) // PAGE)


def test_leaves_and_trunks_are_all_that_is_free(tmp_path: Path) -> None:
    """There are as many leaves and trunks as SQLite counts. Trunk pages are not free, because they hold the list."""
    raw = make(tmp_path / "app.db")
    counted = int.from_bytes(raw[36:40])
    leaves = leaves_of(raw)
    assert 1 < counted - len(leaves) < 8
    assert all(1 < number <= len(raw) // PAGE for number in leaves)


def test_empty_list(tmp_path: Path) -> None:
    """A database without free pages, and one without pages, has an empty list."""
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA page_size={PAGE}")
        connection.execute("CREATE TABLE t (a)")
    assert leaves_of(path.read_bytes()) == frozenset()
    assert free_leaves(lambda _number: b"", 0) == frozenset()


def test_damaged_list_ends(tmp_path: Path) -> None:
    """The list ends at a trunk that follows itself, or that claims more leaves than it has room for."""
    raw = bytearray(make(tmp_path / "app.db"))
    trunk = int.from_bytes(raw[32:36])
    start = (trunk - 1) * PAGE
    raw[start : start + 4] = raw[32:36]
    assert leaves_of(bytes(raw)) <= leaves_of(make(tmp_path / "other.db"))
    raw[start + 4 : start + 8] = b"\xff" * 4
    assert leaves_of(bytes(raw)) == frozenset()


def all_free(raw: bytes, count: int, page_count: int) -> frozenset[int] | None:
    return all_free_pages(
        lambda number: raw[(number - 1) * PAGE : number * PAGE],
        first_trunk=int.from_bytes(raw[32:36]),
        count=count,
        page_count=page_count,
    )


def test_all_free_pages_are_as_many_as_page_1_states(tmp_path: Path) -> None:
    """Trunks and leaves together make that number.

    With one more, one less, or one past the end of the database there is no list.
    """
    raw = make(tmp_path / "app.db")
    counted, size = int.from_bytes(raw[36:40]), len(raw) // PAGE
    free = all_free(raw, counted, size)
    assert free is not None
    assert len(free) == counted
    assert leaves_of(raw) < free
    for count, page_count in ((counted - 1, size), (counted + 1, size), (counted, max(free) - 1)):
        assert all_free(raw, count, page_count) is None
    assert all_free_pages(lambda _number: b"", first_trunk=0, count=0, page_count=9) == frozenset()
