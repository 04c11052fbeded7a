"""Tests of following a database with presence: its WAL outlives every close."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.applications import ROWS, run_sql
from tests.engine.following import Following, insert
from walsyncd.adapters.files.source import Role, side_path


def test_cycles_have_no_gap(tmp_path: Path) -> None:
    """The database is opened, written and closed, with a WAL that restarts every few cycles, and with looks now and
    then. One WAL lasts, and all is proven.

    Events are read in time, as the watching thread does it: each checkpoint before the restart that follows it. If the
    thread is late for a checkpoint, a young counter is not believed, and that is a gap (``tests/bench/cycles.py`` says
    how often).
    """
    path = tmp_path / "app.db"
    with wal_database(path) as app, Following(path, tmp_path / "f", presence=True).begin() as follow:
        follow.look()
        assert follow.tracked.presence.held
        app.close()
        wal_pair, salts = follow.tracked.wal_pairs.current, set()
        for value in range(1, 31):
            assert run_sql(path, "PRAGMA wal_autocheckpoint=10", insert(value), "SELECT 1") == "[1]"
            follow.watch.drain()
            if value % 3 == 0:
                assert not follow.look().gap
                salts.add(follow.cursor.salts)
        assert len(salts) > 2
        assert follow.tracked.wal_pairs.current is wal_pair
        assert {step.proven_by.partition("_")[0] for step in follow.steps} == {"", "count"}
        assert not follow.look().gap
        assert len(follow.restored()) == 31


def test_a_commit_that_a_killed_writer_did_not_publish(tmp_path: Path) -> None:
    """While DMS is held the next opener believes the wal-index, so frames after mxFrame do not count."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, Following(path, tmp_path / "f", presence=True).begin() as follow:
        follow.look()
        index = side_path(path, Role.SHM).read_bytes()[:136]
        app.execute(insert(1))
        app.kill()
        with side_path(path, Role.SHM).open("r+b") as shm:
            shm.write(index)  # as if it had been killed just before
        with SqliteProcess(path) as other:
            assert other.execute(ROWS) == [[0]]
            assert not follow.look().gap
            other.execute(insert(2))
            assert not follow.look().gap
            follow.proves(other)
            other.close()


def test_conversion_into_wal_mode_and_back(tmp_path: Path) -> None:
    """A conversion into WAL mode is a gap, as without presence. After it presence is held.

    A conversion back is refused as long as presence is held.
    """
    path = tmp_path / "app.db"
    assert run_sql(path, "CREATE TABLE t (x)", insert(0), ROWS) == "[0]"
    with Following(path, tmp_path / "f", presence=True).begin() as follow:
        follow.look()
        with SqliteProcess(path) as app:
            app.execute("PRAGMA journal_mode=WAL", insert(1))
            assert follow.gap() == "the database went into WAL mode"
            assert follow.tracked.presence.held
            assert run_sql(path, "PRAGMA journal_mode=DELETE") == "database is locked"
            app.close()
        follow.tracked.presence.want(wanted=False)
        assert run_sql(path, "PRAGMA journal_mode=DELETE") == "['delete']"
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(ROWS).fetchall() == [(0,), (1,)]
