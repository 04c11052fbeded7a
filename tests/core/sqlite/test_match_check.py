"""Tests of walsyncd.core.sqlite.match_check."""

from __future__ import annotations

import gzip
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from walsyncd.core.sqlite.match_check import is_foreign, is_no_database

RANDOM = random.Random(7)


@pytest.mark.parametrize(
    ("links", "owner", "folder_owner", "foreign"),
    [(1, 1000, 1000, False), (1, 1000, 0, False), (2, 1000, 1000, False), (2, 0, 1000, True), (3, 1001, 1000, True)],
)
def test_a_second_name_counts_for_the_owner_of_the_folder_only(
    links: int, owner: int, folder_owner: int, *, foreign: bool
) -> None:
    """Every file has one name. A file with a second name is accepted only if the owner of the folder owns it."""
    assert is_foreign(links=links, owner=owner, folder_owner=folder_owner) is foreign


def test_a_database_is_one(tmp_path: Path) -> None:
    """A database is recognised as SQLite writes it, before its first transaction, and encrypted."""
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE t (x)")
    assert not is_no_database(path.read_bytes()[:512], path.stat().st_size)
    assert not is_no_database(b"", 0)
    for _ in range(2000):
        assert not is_no_database(RANDOM.randbytes(512), 4096)


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (b"#!/bin/sh\n" + b"echo\n" * 200, None),
        (b"a" * 1024, None),
        ("größe\n".encode() * 512, None),
        (b"data/app.db\x00" + bytes(500), 10240),  # tar pads to blocks
        (bytes(4096), None),
        (gzip.compress(RANDOM.randbytes(1000)), None),
        (b"SQLite format 2\x00" + bytes(4080), None),
        (RANDOM.randbytes(511), None),
        (RANDOM.randbytes(512), 513),
    ],
)
def test_other_files_are_none(content: bytes, size: int | None) -> None:
    """Text, archives, zeros, and a file that has no whole number of pages are no databases."""
    assert is_no_database(content[:512], len(content) if size is None else size)
