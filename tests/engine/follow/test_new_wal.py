"""Tests of walsyncd.engine.follow.new_wal: a WAL that appears, and whether it holds all that happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.following import CHECKPOINT, TRUNCATE, Following, closed_database, committed, insert


def test_an_empty_wal_is_moving(follow: Following) -> None:
    """The first frames cause events before the wal-index, which causes none, publishes them."""
    with SqliteProcess(follow.path) as app:
        follow.look()
        app.execute("PRAGMA cache_size=5", "BEGIN", "INSERT INTO t SELECT hex(randomblob(99999))")
        assert follow.look().moving
        app.execute("COMMIT")
        follow.look()
        follow.proves(app)


def test_a_commit_into_a_wal_that_was_empty_at_the_beginning(tmp_path: Path) -> None:
    """The generation begins at a live, empty WAL into which nothing was ever committed. It holds all from then on."""
    path = tmp_path / "app.db"
    closed_database(path)
    with SqliteProcess(path) as app:
        app.execute("SELECT * FROM t")
        with Following(path, tmp_path / "f").begin() as follow:
            assert follow.state.cursor is None
            app.execute(insert(1))
            follow.sees_all(app)


def test_a_change_while_the_daemon_was_away_is_not_seen(follow: Following) -> None:
    """A new daemon sees the CREATE of the next WAL, which says nothing about what came before."""
    follow.settled()
    follow.die()
    committed(follow.path, 1)
    follow.restart()
    with SqliteProcess(follow.path) as app:
        app.execute(insert(2))
        follow.finds_gap("may have been changed")


def test_a_wal_that_was_opened_while_the_daemon_was_away(follow: Following) -> None:
    """The database looks as it did when it was last seen without a WAL, so the WAL is accepted."""
    follow.settled()
    follow.die()
    with SqliteProcess(follow.path) as app:
        app.execute(insert(1))
        assert not follow.restart().look().gap
        follow.proves(app)


def test_an_incarnation_that_is_not_the_first_is_a_gap(follow: Following) -> None:
    """The WAL restarted before it was looked at for the first time."""
    follow.look()
    with follow.opened() as app:
        app.execute(insert(1), CHECKPOINT, insert(2))
        follow.finds_gap("had restarted already")


def test_a_restart_that_no_frame_followed_yet_is_a_gap(follow: Following) -> None:
    """The wal-index shows no frame, but it has counted commits."""
    follow.look()
    with follow.opened() as app:
        app.execute(insert(1), TRUNCATE)
        follow.finds_gap("had restarted already")


def test_a_count_after_a_checkpoint_without_a_restart(follow: Following) -> None:
    """The WAL still holds everything, and the wal-index was not rebuilt."""
    follow.look()
    with follow.opened() as app:
        app.execute(insert(1), CHECKPOINT)
        follow.sees_all(app)


def test_another_process_restarts_with_sequence_zero(follow: Following) -> None:
    """The sequence number is per process, so commits are counted, too."""
    follow.look()
    with SqliteProcess(follow.path) as app, SqliteProcess(follow.path) as other:
        other.execute("SELECT * FROM t")
        follow.watch.drain()
        app.execute(insert(1), TRUNCATE)
        other.execute(insert(2))
        follow.finds_gap("counts 2 commits, the WAL holds 1")


@pytest.mark.parametrize("looked", [True, False])
def test_a_truncation_of_an_empty_wal(follow: Following, *, looked: bool) -> None:
    """The truncation raises the sequence number, and nothing can have been cut off."""
    follow.look()
    with follow.opened() as app:
        for statement in (TRUNCATE, insert(1), insert(2)):
            app.execute(statement)
            if looked:
                assert not follow.look().gap
        follow.sees_all(app)
        app.execute(CHECKPOINT, insert(3))
        follow.sees_all(app)


def test_a_writer_without_a_wal_index(follow: Following) -> None:
    """An exclusive writer opens, commits and closes between two looks. The events show that it was SQLite."""
    follow.look()
    with SqliteProcess(follow.path) as app:
        app.execute("PRAGMA locking_mode=EXCLUSIVE", "SELECT * FROM t")
        follow.watch.drain()
        app.execute(insert(1))
        app.close()
    assert not follow.look().gap
    assert follow.state.cursor is None
    with SqliteProcess(follow.path) as other:
        follow.proves(other)


def test_a_database_that_goes_into_wal_mode_is_a_gap(tmp_path: Path) -> None:
    """A generation that has only bases has no frames to continue from."""
    path = tmp_path / "app.db"
    with SqliteProcess(path) as app:
        app.execute("CREATE TABLE t (x)")
        with Following(path, tmp_path / "f").begin() as follow:
            assert follow.state.mode == "rollback"
            follow.look()
            app.execute("PRAGMA journal_mode=WAL", insert(1))
            assert follow.gap() == "the database went into WAL mode"
