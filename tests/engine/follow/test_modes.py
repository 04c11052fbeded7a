"""Tests of journal modes and locking modes, and of changes from one to another while the database is followed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.following import CHECKPOINT, insert
from tests.engine.keeping import Keeping

EXCLUSIVE = "PRAGMA locking_mode=EXCLUSIVE"
SPILL = ("PRAGMA cache_size=3", "BEGIN", "INSERT INTO t SELECT hex(randomblob(200000))")
ROLLBACK_MODES = ["DELETE", "TRUNCATE", "PERSIST"]


@pytest.mark.parametrize("mode", ROLLBACK_MODES)
def test_a_rollback_journal(tmp_path: Path, mode: str) -> None:
    """Each change gives a base. No base is taken while a journal is hot, because its writer is at work or has died."""
    path = tmp_path / "app.db"
    with SqliteProcess(path) as app, Keeping(path, tmp_path / "f") as keeping:
        app.execute(f"PRAGMA journal_mode={mode}", "CREATE TABLE t (x)")
        keeping.note()
        assert not keeping.watch_over(app, "SELECT * FROM t", insert(1), "VACUUM", insert(2))
        assert keeping.bases == 4
        app.execute(*SPILL)
        assert not keeping.keep_up()
        assert keeping.bases == 4
        assert not keeping.watch_over(app, "COMMIT")
        assert keeping.bases == 5
        app.execute(*SPILL)
        app.kill()
        keeping.keep_up()
        assert keeping.bases == 5
        with SqliteProcess(path) as other:
            other.execute("SELECT * FROM t LIMIT 1")
            assert not keeping.watch_over(other, insert(3))
            assert keeping.bases == 6


@pytest.mark.parametrize("mode", ROLLBACK_MODES)
def test_into_wal_mode_and_back(tmp_path: Path, mode: str) -> None:
    """Each conversion ends a generation, and nothing on either side of it is missing."""
    path = tmp_path / "app.db"
    with SqliteProcess(path) as app, Keeping(path, tmp_path / "f") as keeping:
        app.execute(f"PRAGMA journal_mode={mode}", "CREATE TABLE t (x)")
        keeping.note()
        assert not keeping.watch_over(app, insert(1))
        app.execute("PRAGMA journal_mode=WAL")
        keeping.note()
        keeping.keep_up()
        keeping.watch_over(app, insert(2))
        assert not keeping.watch_over(app, insert(3), insert(4))
        assert keeping.state.mode == "wal"
        app.execute(f"PRAGMA journal_mode={mode}")
        keeping.note()
        assert keeping.keep_up()
        assert not keeping.watch_over(app, insert(5), insert(6))
        assert keeping.state.mode == "rollback"
        assert sum(keeping.gaps.values()) == 2


def test_into_wal_mode_and_back_between_two_looks(tmp_path: Path) -> None:
    """What was written in rollback mode in between is in no WAL, so there is a gap."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, Keeping(path, tmp_path / "f") as keeping:
        keeping.note()
        assert not keeping.watch_over(app, insert(1))
        app.execute("PRAGMA journal_mode=DELETE", insert(2), "PRAGMA journal_mode=WAL", insert(3))
        keeping.note()
        assert keeping.keep_up()
        assert not keeping.watch_over(app, insert(4))


def test_an_exclusive_writer_beside_a_stale_wal_index(tmp_path: Path) -> None:
    """The exclusive writer has its own wal-index. The -shm that a killed writer left is not believed."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, Keeping(path, tmp_path / "f") as keeping:
        keeping.note()
        assert not keeping.watch_over(app, insert(1), insert(2))
        app.kill()
        with SqliteProcess(path) as alone:
            alone.execute(EXCLUSIVE)
            assert not keeping.watch_over(alone, insert(3), insert(4), insert(5))
            assert path.with_name("app.db-shm").exists()


def test_restarts_of_an_exclusive_writers_wal_are_proven(tmp_path: Path) -> None:
    """The rest of the old incarnation proves the restart, as long as an even older incarnation shows where the old
    one ended.
    """
    path = tmp_path / "app.db"
    with wal_database(path) as app, Keeping(path, tmp_path / "f") as keeping:
        app.execute(*(insert(value) for value in range(60)), CHECKPOINT, insert(100))
        app.kill()
        with SqliteProcess(path) as alone:
            alone.execute(EXCLUSIVE)
            keeping.note()
            for length in range(6, 1, -1):
                writes = [insert(1000 * length + value) for value in range(3 * length)]
                assert not keeping.watch_over(alone, *writes)
                alone.execute(insert(-length))
                keeping.note()
                assert not keeping.watch_over(alone, CHECKPOINT)


def test_rows_of_an_exclusive_writer_that_nobody_read_in_time_are_a_gap(tmp_path: Path) -> None:
    """The writer's commits are not counted, so the salts show that overwritten ones were missed."""
    path = tmp_path / "app.db"
    with SqliteProcess(path) as alone, Keeping(path, tmp_path / "f") as keeping:
        alone.execute(EXCLUSIVE, "PRAGMA journal_mode=WAL", "CREATE TABLE t (x)")
        keeping.note()
        assert not keeping.watch_over(alone, insert(1), insert(2))
        for value in range(3, 20):
            alone.execute(insert(value), CHECKPOINT)
            keeping.note()
        assert keeping.keep_up()
        assert not keeping.watch_over(alone, insert(20))
