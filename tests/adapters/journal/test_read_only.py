"""Tests of the journal as the command line reads it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from walsyncd.adapters.journal.journal_schema import Connection, connect
from walsyncd.adapters.journal.read_only import connect_read_only
from walsyncd.errors import MissingError, TransientError


@pytest.mark.parametrize("is_open", [True, False], ids=["beside a daemon", "without one"])
def test_a_reader_reads_and_leaves_no_trace(tmp_path: Path, is_open: bool) -> None:
    """A reader reads while a daemon's -wal and -shm exist, and after a clean end. The reader can't write."""
    path = tmp_path / "j.db"
    with Connection(connect(path), path) as writer:
        with writer._transaction() as connection:
            connection.execute("INSERT INTO fact VALUES ('a', '1')")
        if not is_open:
            writer.close()
        before = sorted(tmp_path.iterdir())
        with Connection(connect_read_only(path), path) as reader:
            assert reader._rows("SELECT * FROM fact") == [("a", "1")]
            with pytest.raises(TransientError, match="readonly"):
                reader._rows("DELETE FROM fact")
        assert sorted(tmp_path.iterdir()) == before


def test_no_journal_is_nothing_to_read(tmp_path: Path) -> None:
    """A missing journal is reported, and the reader makes none."""
    with pytest.raises(MissingError, match="does not exist"):
        connect_read_only(tmp_path / "j.db")
    assert list(tmp_path.iterdir()) == []


def test_a_journal_that_is_being_made_is_no_riddle(tmp_path: Path) -> None:
    """A reader that comes before the tables are made is told to try again."""
    path = tmp_path / "j.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma journal_mode=wal")
        with pytest.raises(TransientError, match="being created"):
            connect_read_only(path)
