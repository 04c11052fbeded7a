"""Writers that are killed, and what those who come after them make of the WAL: nothing missed, or a gap."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.following import Following, closed_database, insert


@pytest.mark.parametrize("commit", [True, False])
def test_a_rebuilt_count_does_not_hide_what_was_cut_off(tmp_path: Path, *, commit: bool) -> None:
    """Truncated, killed, recovered with iChange 0 and written again: as many commits as counted, but not all."""
    path = tmp_path / "app.db"
    closed_database(path)
    with Following(path, tmp_path / "f").begin() as follow:
        follow.look()
        with SqliteProcess(path) as app:
            app.execute("SELECT * FROM t")
            follow.watch.drain()
            app.execute(insert(1), "PRAGMA wal_checkpoint(TRUNCATE)")
            app.kill()
        with SqliteProcess(path) as other:
            other.execute(insert(2) if commit else "SELECT * FROM t")
            assert "had restarted already" in follow.gap()


def test_a_wal_whose_writer_was_killed_is_scanned(tmp_path: Path) -> None:
    """Nobody uses its wal-index; nothing was overwritten, so the chain holds what the next opener will recover."""
    path = tmp_path / "app.db"
    closed_database(path)
    with Following(path, tmp_path / "f").begin() as follow:
        follow.look()
        with SqliteProcess(path) as app:
            app.execute(insert(1))
            follow.watch.drain()
            app.execute(insert(2))
            app.kill()
        assert not follow.look().gap
        with SqliteProcess(path) as other:
            follow.proves(other)
            other.execute(insert(3))
            assert not follow.look().gap
            follow.proves(other)


def test_a_wal_whose_writer_was_killed_after_a_restart_is_a_gap(tmp_path: Path) -> None:
    """Frames may have been overwritten, and nobody counts."""
    path = tmp_path / "app.db"
    closed_database(path)
    with Following(path, tmp_path / "f").begin() as follow:
        follow.look()
        with SqliteProcess(path) as app:
            app.execute("SELECT * FROM t")
            follow.watch.drain()
            app.execute(insert(1), "PRAGMA wal_checkpoint", insert(2))
            app.kill()
            assert "can't be counted" in follow.gap()


def test_a_wal_that_was_recovered_before_it_was_looked_at(tmp_path: Path) -> None:
    """Its count began anew, but it holds everything; the next restart is proven by that count all the same."""
    path = tmp_path / "app.db"
    closed_database(path)
    with Following(path, tmp_path / "f").begin() as follow:
        follow.look()
        with SqliteProcess(path) as app:
            app.execute("SELECT * FROM t")
            follow.watch.drain()
            app.execute(insert(1), insert(2))
            app.kill()
        with SqliteProcess(path) as other:
            other.execute(insert(3))
            assert not follow.look().gap
            follow.proves(other)
            other.execute(insert(4), "PRAGMA wal_checkpoint", insert(5))
            assert not follow.look().gap
            assert [step.recovered for step in follow.steps if step.recovered] == [1]
            follow.proves(other)


def test_a_writer_that_is_killed_after_a_truncation(tmp_path: Path) -> None:
    """It left in the wal-index that nothing came after our last commit; the next opener begins a new WAL."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, Following(path, tmp_path / "f").begin() as follow:
        for value in range(3):
            app.execute(insert(value))
            follow.look()
            app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            app.kill()
            assert not follow.look().gap
            assert follow.state.cursor is None
            with SqliteProcess(path) as other:
                other.execute(insert(-value))
                assert not follow.look().gap
                follow.proves(other)
                other.kill()
            app = SqliteProcess(path)  # noqa: PLW2901
            app.execute("SELECT * FROM t")
            follow.look()
        app.kill()


def test_a_commit_before_such_a_truncation_is_a_gap(tmp_path: Path) -> None:
    """It was counted, and no frame of it is left."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, Following(path, tmp_path / "f").begin() as follow:
        follow.look()
        app.execute(insert(1), "PRAGMA wal_checkpoint(TRUNCATE)")
        app.kill()
        assert "was emptied" in follow.gap()


def test_commits_between_two_truncations_are_a_gap(tmp_path: Path) -> None:
    """We stand before frame 1 of an incarnation that came and went; that nothing is left of it says nothing."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, Following(path, tmp_path / "f").begin() as follow:
        follow.look()
        app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert not follow.look().gap
        assert follow.cursor.frames == 0
        app.execute(insert(1), "PRAGMA wal_checkpoint(TRUNCATE)")
        app.kill()
        assert "was emptied" in follow.gap()


def test_a_writer_that_is_killed_beside_an_empty_wal(tmp_path: Path) -> None:
    """Nothing was committed since it was emptied: the next opener begins a new WAL, and all of it is there."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, Following(path, tmp_path / "f").begin() as follow:
        follow.look()
        app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert not follow.look().gap
        app.kill()
        assert not follow.look().gap
        assert follow.state.cursor is None
        with SqliteProcess(path) as other:
            other.execute(insert(1))
            assert not follow.look().gap
            follow.proves(other)


def test_a_commit_after_such_a_truncation_that_left_no_trace_is_a_gap(tmp_path: Path) -> None:
    """An exclusive writer came after: it uses no wal-index, and emptied the WAL again."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, Following(path, tmp_path / "f").begin() as follow:
        follow.look()
        app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        app.kill()
        with SqliteProcess(path) as other:
            other.execute("PRAGMA locking_mode=EXCLUSIVE", insert(1), "PRAGMA wal_checkpoint(TRUNCATE)")
            other.kill()
        assert path.with_name("app.db-wal").stat().st_size == 0
        assert "was emptied" in follow.gap()
