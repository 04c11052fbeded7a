"""Tests of databases that are opened and closed all the time: each life of the WAL is read to its end, or there is a
gap.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.following import CHECKPOINT, Following, closed_database, committed, insert, rows


@pytest.mark.parametrize("page_cache", [True, False])
def test_a_last_close_is_drained_through_the_descriptors(
    app: SqliteProcess, follow: Following, *, page_cache: bool
) -> None:
    """There are commits in a WAL that is deleted by now. Then the next WAL is accepted."""
    path = follow.path
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


def test_many_cycles_each_looked_at(follow: Following) -> None:
    """After each open, commit and close, the WAL is accepted and read to its end."""
    follow.look()
    for value in range(8):
        committed(follow.path, value, value, watch=follow.watch)
        assert not follow.look().gap
    assert follow.restored() == rows(follow.path)


def test_many_cycles_between_two_looks(follow: Following) -> None:
    """As long as the queue is drained in time, the follower may be late, because the WALs are held open."""
    follow.look()
    for value in range(6):
        committed(follow.path, value, -value, watch=follow.watch)
    assert len(follow.tracked.wal_pairs.queue) == 6
    assert not follow.look().gap
    assert follow.restored() == rows(follow.path)


def test_a_restart_of_the_wal_before_its_last_close_is_counted(app: SqliteProcess, follow: Following) -> None:
    """The deletion of the -shm does not reset its counter, so the tail is recovered after the end."""
    app.execute(*(insert(value) for value in range(10)))
    follow.look()
    app.execute(insert(11), insert(12), CHECKPOINT, insert(13))
    app.close()
    assert not follow.look().gap
    assert follow.restored() == rows(follow.path)


def test_a_wal_without_commits(follow: Following) -> None:
    """The database is opened, read and closed. Nothing is stored, and there is no doubt."""
    path = follow.path
    follow.settled()
    before = follow.state
    committed(path, watch=follow.watch)
    assert not follow.look().gap
    assert follow.state == before
    committed(path, 1, watch=follow.watch)
    assert not follow.look().gap
    assert follow.restored() == rows(path)


def test_a_wal_without_commits_that_nobody_saw(follow: Following) -> None:
    """The WAL was opened, read and closed before its CREATE event was read. Nothing can be missing."""
    path = follow.path
    follow.look()
    committed(path)
    assert not follow.look().gap
    committed(path)
    with SqliteProcess(path) as app:  # taken for the WAL before, whose events are read first
        app.execute(insert(1))
        follow.sees_all(app)


def test_a_wal_that_nobody_saw_is_a_gap(follow: Following) -> None:
    """The WAL came and went before its CREATE event was read."""
    follow.look()
    committed(follow.path, 1)
    follow.finds_gap("could not be opened")
    assert follow.steps[-1].gap is not None
    assert "presence = true" in follow.steps[-1].gap.remedy


def test_a_wal_that_was_taken_for_the_one_before_is_a_gap(follow: Following) -> None:
    """Two WALs came between two drains. At the CREATE of the first WAL, the file that was opened was the second."""
    follow.look()
    committed(follow.path, 1)
    with SqliteProcess(follow.path) as app:
        app.execute(insert(2))
        follow.finds_gap("before it could be opened")
        assert follow.state.stream.frame == 0


def test_a_write_in_rollback_mode_between_two_wals_is_a_gap(app: SqliteProcess, follow: Following) -> None:
    """No WAL shows the write."""
    follow.look()
    app.close()
    follow.look()
    with SqliteProcess(follow.path) as other:
        other.execute("PRAGMA journal_mode=DELETE", insert(1), "PRAGMA journal_mode=WAL", insert(2))
        follow.watch.drain()
        assert follow.gap()


def test_cycles_at_full_speed(tmp_path: Path) -> None:
    """Either everything is stored, or a gap is reported."""
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
