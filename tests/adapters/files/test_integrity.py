"""Tests of SQLite's verdict on a restored file: sound, damaged, or unknown."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from walsyncd.adapters.files.integrity import Integrity, check_integrity


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "app?%20.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (a UNIQUE)")
        connection.executemany("INSERT INTO t VALUES (?)", [(f"{number:0200}",) for number in range(200)])
    return path


def test_sound_file_is_sound_and_untouched(database: Path) -> None:
    """A sound file is reported as sound, in WAL mode, too. No file appears beside it."""
    before = database.read_bytes()
    assert check_integrity(database) == Integrity()
    assert [path.name for path in database.parent.iterdir()] == [database.name]
    assert database.read_bytes() == before


def test_damaged_page_is_a_problem(database: Path) -> None:
    """A page of the tree that holds zeros is reported."""
    raw = bytearray(database.read_bytes())
    raw[5 * 4096 : 6 * 4096] = bytes(4096)
    database.write_bytes(raw)
    assert check_integrity(database).problems


def test_cut_off_file_is_a_problem(database: Path) -> None:
    """The file's header counts more pages than there are."""
    database.write_bytes(database.read_bytes()[: 3 * 4096])
    assert check_integrity(database).problems


def test_encrypted_file_is_not_judged(tmp_path: Path) -> None:
    """What the pages of an encrypted file hold is unknown."""
    path = tmp_path / "secret.db"
    path.write_bytes(os.urandom(16384))
    found = check_integrity(path)
    assert (found.problems, "encrypted" in found.unchecked) == ((), True)


def test_empty_file_is_an_empty_database(tmp_path: Path) -> None:
    """An empty file has no page that could be wrong."""
    path = tmp_path / "empty.db"
    path.touch()
    assert check_integrity(path) == Integrity()


def test_missing_extension_is_no_damage(database: Path) -> None:
    """An index with a collation that only the application knows can't be checked here."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.create_collation("theirs", lambda one, other: (one > other) - (one < other))
        connection.execute("CREATE INDEX i ON t (a COLLATE theirs)")
    found = check_integrity(database)
    assert (found.problems, "collation" in found.unchecked) == ((), True)


def test_check_can_be_stopped(database: Path) -> None:
    """A caller that waits for a long check can stop it."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.executemany("INSERT INTO t VALUES (?)", [(number,) for number in range(50_000)])
    assert "interrupted" in check_integrity(database, is_stopped=lambda: True).unchecked
