"""Tests of the guard of tests: SQLite does not run in the process that follows a database."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.own_connections import followed_here


@pytest.mark.parametrize("pattern", ["app.db", "*.db"])
@pytest.mark.parametrize("uri", [False, True])
def test_a_followed_database_is_not_opened_here(tmp_path: Path, pattern: str, *, uri: bool) -> None:
    """It is refused by its path and by a URI. Other databases are opened, and so is this one afterwards."""
    path = tmp_path / "app.db"
    name = f"{path.as_uri()}?mode=rwc" if uri else str(path)
    with followed_here(str(tmp_path / pattern)):
        with pytest.raises(AssertionError, match="is followed by this process"):
            sqlite3.connect(name, uri=uri)
        sqlite3.connect(tmp_path / "other").close()
    sqlite3.connect(name, uri=uri).close()


def test_an_open_database_is_not_followed(tmp_path: Path) -> None:
    """The error comes before anything begins."""
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        with pytest.raises(AssertionError, match="open in this process"), followed_here(str(path)):
            pass
    with followed_here(str(path)):
        pass
