"""Tests of writers that are killed, and of what later applications do with the WAL: nothing is missed, or there is a
gap.
"""

from __future__ import annotations

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.following import CHECKPOINT, TRUNCATE, Following, insert


@pytest.mark.parametrize("commit", [True, False])
def test_a_rebuilt_count_does_not_hide_what_was_cut_off(follow: Following, *, commit: bool) -> None:
    """The WAL was truncated, its writer killed, and recovered with iChange 0.

    As many commits as counted came again, but not all.
    """
    follow.look()
    with follow.opened() as app:
        app.execute(insert(1), TRUNCATE)
        app.kill()
    with SqliteProcess(follow.path) as other:
        other.execute(insert(2) if commit else "SELECT * FROM t")
        follow.finds_gap("had restarted already")


def test_a_wal_whose_writer_was_killed_is_scanned(follow: Following) -> None:
    """No process uses the WAL's wal-index.

    Nothing was overwritten, so the chain holds what the next opener will recover.
    """
    follow.look()
    with SqliteProcess(follow.path) as app:
        app.execute(insert(1))
        follow.watch.drain()
        app.execute(insert(2))
        app.kill()
    assert not follow.look().gap
    with SqliteProcess(follow.path) as other:
        follow.proves(other)
        other.execute(insert(3))
        follow.sees_all(other)


def test_a_wal_whose_writer_was_killed_after_a_restart_is_a_gap(follow: Following) -> None:
    """Frames may have been overwritten, and nothing counts them."""
    follow.look()
    with follow.opened() as app:
        app.execute(insert(1), CHECKPOINT, insert(2))
        app.kill()
        follow.finds_gap("can't be counted")


def test_a_wal_that_was_recovered_before_it_was_looked_at(follow: Following) -> None:
    """The WAL's count began again, but the WAL holds everything. So that count proves the next restart anyway."""
    follow.look()
    with follow.opened() as app:
        app.execute(insert(1), insert(2))
        app.kill()
    with SqliteProcess(follow.path) as other:
        other.execute(insert(3))
        follow.sees_all(other)
        other.execute(insert(4), CHECKPOINT, insert(5))
        assert not follow.look().gap
        assert follow.recovered() == [1]
        follow.proves(other)


def test_a_writer_that_is_killed_after_a_truncation(app: SqliteProcess, follow: Following) -> None:
    """The wal-index shows that nothing came after our last commit. The next opener begins a new WAL."""
    path = follow.path
    for value in range(3):
        app.execute(insert(value))
        follow.look()
        app.execute(TRUNCATE)
        app.kill()
        assert not follow.look().gap
        assert follow.state.cursor is None
        with SqliteProcess(path) as other:
            other.execute(insert(-value))
            follow.sees_all(other)
            other.kill()
        app = SqliteProcess(path)
        app.execute("SELECT * FROM t")
        follow.look()
    app.kill()


def test_a_commit_before_such_a_truncation_is_a_gap(app: SqliteProcess, follow: Following) -> None:
    """The commit was counted, and no frame of it is left."""
    follow.look()
    app.execute(insert(1), TRUNCATE)
    app.kill()
    follow.finds_gap("was emptied")


def test_commits_between_two_truncations_are_a_gap(app: SqliteProcess, follow: Following) -> None:
    """Our position is before frame 1 of an incarnation that came and went.

    That nothing is left of it proves nothing.
    """
    follow.look()
    app.execute(TRUNCATE)
    assert not follow.look().gap
    assert follow.cursor.frames == 0
    app.execute(insert(1), TRUNCATE)
    app.kill()
    follow.finds_gap("was emptied")


def test_a_writer_that_is_killed_beside_an_empty_wal(app: SqliteProcess, follow: Following) -> None:
    """Nothing was committed since the WAL was emptied.

    The next opener begins a new WAL, which is followed as a whole.
    """
    follow.look()
    app.execute(TRUNCATE)
    assert not follow.look().gap
    app.kill()
    assert not follow.look().gap
    assert follow.state.cursor is None
    with SqliteProcess(follow.path) as other:
        other.execute(insert(1))
        follow.sees_all(other)


def test_a_commit_after_such_a_truncation_that_left_no_trace_is_a_gap(app: SqliteProcess, follow: Following) -> None:
    """After the truncation an exclusive writer came. It uses no wal-index, and emptied the WAL again."""
    path = follow.path
    follow.look()
    app.execute(TRUNCATE)
    app.kill()
    with SqliteProcess(path) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE", insert(1), TRUNCATE)
        other.kill()
    assert path.with_name("app.db-wal").stat().st_size == 0
    follow.finds_gap("was emptied")
