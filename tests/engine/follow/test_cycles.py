"""Databases that are opened and closed all the time: each life of the WAL accepted and drained, or a gap."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.following import Following, closed_database, committed, insert, rows


@pytest.mark.parametrize("page_cache", [True, False])
def test_a_last_close_is_drained_through_the_descriptors(tmp_path: Path, *, page_cache: bool) -> None:
    """Commits of a WAL that is deleted by now; then the next WAL is accepted."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, Following(path, tmp_path / "f").begin() as follow:
        follow.look()
        app.execute(insert(1))
        if page_cache:
            follow.look()
        app.execute(insert(2))
        app.close()
        assert not follow.look().gap
        assert follow.state.cursor is None
        committed(path, 3, watch=follow.watch)
        assert not follow.look().gap
        assert follow.restored() == rows(path)


def test_many_cycles_each_looked_at(tmp_path: Path) -> None:
    """Open, commit, close: every one accepted and drained."""
    path = tmp_path / "app.db"
    closed_database(path)
    with Following(path, tmp_path / "f").begin() as follow:
        follow.look()
        for value in range(8):
            committed(path, value, value, watch=follow.watch)
            assert not follow.look().gap
        assert follow.restored() == rows(path)


def test_many_cycles_between_two_looks(tmp_path: Path) -> None:
    """As long as the queue is drained in time, the follower may be late: the lives are held."""
    path = tmp_path / "app.db"
    closed_database(path)
    with Following(path, tmp_path / "f").begin() as follow:
        follow.look()
        for value in range(6):
            committed(path, value, -value, watch=follow.watch)
        assert len(follow.tracked.wal_pairs.queue) == 6
        assert not follow.look().gap
        assert follow.restored() == rows(path)


def test_a_restart_of_the_wal_before_its_last_close_is_counted(tmp_path: Path) -> None:
    """The deletion of the -shm does not break its counter: the tail is recovered after the end."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, Following(path, tmp_path / "f").begin() as follow:
        app.execute(*(insert(value) for value in range(10)))
        follow.look()
        app.execute(insert(11), insert(12), "PRAGMA wal_checkpoint", insert(13))
        app.close()
        assert not follow.look().gap
        assert follow.restored() == rows(path)


def test_a_life_without_commits(tmp_path: Path) -> None:
    """Opened, read and closed: nothing is stored, nothing is in doubt."""
    path = tmp_path / "app.db"
    closed_database(path)
    with Following(path, tmp_path / "f").begin() as follow:
        follow.settled()
        before = follow.state
        committed(path, watch=follow.watch)
        assert not follow.look().gap
        assert follow.state == before
        committed(path, 1, watch=follow.watch)
        assert not follow.look().gap
        assert follow.restored() == rows(path)


def test_a_life_without_commits_that_nobody_saw(tmp_path: Path) -> None:
    """Opened, read and closed before its CREATE event was read: nothing can be missing."""
    path = tmp_path / "app.db"
    closed_database(path)
    with Following(path, tmp_path / "f").begin() as follow:
        follow.look()
        committed(path)
        assert not follow.look().gap
        committed(path)
        with SqliteProcess(path) as app:  # taken for the one before, of which the events are read first
            app.execute(insert(1))
            assert not follow.look().gap
            follow.proves(app)


def test_a_wal_that_nobody_saw_is_a_gap(tmp_path: Path) -> None:
    """It came and went before its CREATE event was read."""
    path = tmp_path / "app.db"
    closed_database(path)
    with Following(path, tmp_path / "f").begin() as follow:
        follow.look()
        committed(path, 1)
        assert "could not be opened" in follow.gap()
        assert follow.steps[-1].gap is not None
        assert "presence = true" in follow.steps[-1].gap.remedy


def test_a_wal_that_was_taken_for_the_one_before_is_a_gap(tmp_path: Path) -> None:
    """Two came between two drains: at the CREATE of the first the second was opened."""
    path = tmp_path / "app.db"
    closed_database(path)
    with Following(path, tmp_path / "f").begin() as follow:
        follow.look()
        committed(path, 1)
        with SqliteProcess(path) as app:
            app.execute(insert(2))
            assert "before it could be opened" in follow.gap()
            assert follow.state.stream.frame == 0


def test_a_write_in_rollback_mode_between_two_lives_is_a_gap(tmp_path: Path) -> None:
    """No WAL tells of it."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, Following(path, tmp_path / "f").begin() as follow:
        follow.look()
        app.close()
        follow.look()
        with SqliteProcess(path) as other:
            other.execute("PRAGMA journal_mode=DELETE", insert(1), "PRAGMA journal_mode=WAL", insert(2))
            follow.watch.drain()
            assert follow.gap()


def test_cycles_at_full_speed(tmp_path: Path) -> None:
    """Whatever is stored is right: either all of it, or a gap is said."""
    path = tmp_path / "app.db"
    closed_database(path)
    script = (
        "import sqlite3, sys\n"
        "for value in range(60):\n"
        "    connection = sqlite3.connect(sys.argv[1])\n"
        "    connection.execute('INSERT INTO t VALUES (?)', (value,))\n"
        "    connection.commit(); connection.close()\n"
    )
    with Following(path, tmp_path / "f").begin() as follow:
        follow.look()
        watcher = threading.Thread(target=follow.watch.run)
        watcher.start()
        with subprocess.Popen([sys.executable, "-c", script, str(path)]) as process:
            gap = None
            while process.poll() is None and not gap:
                gap = follow.look().gap
                time.sleep(0.002)
        gap = gap or follow.look().gap
        follow.watch.stop()
        watcher.join()
        found, expected = follow.restored(), rows(path)
        assert found == (expected if not gap else expected[: len(found)])
