"""Tests of walsyncd.engine.follow.no_wal: a database that nobody has open, and one that never has a WAL."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.following import Following, closed_database, insert
from walsyncd.core.follow.follow_state import FileFacts
from walsyncd.engine.follow.file_facts import SETTLED_MS
from walsyncd.engine.follow.look import take_step
from walsyncd.engine.follow.no_wal import is_unchanged
from walsyncd.engine.follow.wal_pair import LATE_EVENT_MS, UNTOLD

LOOK = FileFacts(1, 2, 3, "boot", 0, 4096, 1000, 1000)


def test_a_closed_database_goes_on(tmp_path: Path) -> None:
    """The database is untouched, also across a restart of the daemon and of the machine."""
    path = tmp_path / "app.db"
    closed_database(path)
    with Following(path, tmp_path / "f").begin() as follow:
        assert not follow.settled().gap
        assert follow.state.file.known
        before = follow.state
        follow.die()
        assert not follow.restart().look().gap
        assert follow.state == before
        follow.die()
        follow.reboot()
        assert not follow.restart().look().gap


def test_a_look_that_changed_nothing_writes_nothing(tmp_path: Path) -> None:
    """An idle database costs no transaction of the journal."""
    path = tmp_path / "app.db"
    closed_database(path)
    with Following(path, tmp_path / "f").begin() as follow:
        follow.settled()
        step = follow.look()
        assert (step.state, step.again_s) == (None, None)


def test_a_look_too_young_is_not_taken_down(tmp_path: Path) -> None:
    """Within the grain of file times a later write could leave them unchanged, so the file is looked at again."""
    path = tmp_path / "app.db"
    closed_database(path)
    with Following(path, tmp_path / "f").begin() as follow:
        follow.ahead_ms = -SETTLED_MS
        step = follow.look()
        assert not follow.state.file.known
        assert step.again_s is not None
        follow.die()
        assert follow.restart().gap() == "the database was changed while it had no WAL"


def test_a_write_shows_in_the_times_of_a_settled_file(tmp_path: Path) -> None:
    """A write after the look was recorded changes them, on the file system that is used here."""
    path = tmp_path / "app.db"
    closed_database(path)
    with Following(path, tmp_path / "f").begin() as follow:
        follow.look(until=lambda _: follow.state.file.known)
        before = follow.state.file
        with path.open("r+b") as file:
            file.seek(60)
            file.write(b"1234")
        now = path.stat()
        assert (now.st_mtime_ns, now.st_ctime_ns) != (before.mtime_ns, before.ctime_ns)


def test_a_change_while_the_daemon_was_away(tmp_path: Path) -> None:
    """The database was opened, written and closed, so there is a gap."""
    path = tmp_path / "app.db"
    closed_database(path)
    with Following(path, tmp_path / "f").begin() as follow:
        follow.settled()
        follow.die()
        with SqliteProcess(path) as app:
            app.execute(insert(1))
            app.close()
        assert follow.restart().gap() == "the database was changed while it had no WAL"


def test_a_look_after_a_close_proves_nothing_of_the_next_wal(tmp_path: Path) -> None:
    """The first WAL's end is noted when a second one has been written already.

    A crash then must not hide the second.
    """
    path = tmp_path / "app.db"
    with wal_database(path) as app, Following(path, tmp_path / "f").begin() as follow:
        follow.look()
        app.close()
        follow.watch.drain()
        with SqliteProcess(path) as other:
            other.execute("SELECT * FROM t")
            follow.watch.drain()
            other.execute(insert(1))
            other.close()
        follow.ahead_ms += 10 * SETTLED_MS
        follow.look(until=lambda step: step.life_ended)
        follow.die()
        assert follow.restart().gap() == "the database was changed while it had no WAL"


def test_a_write_past_sqlite_is_a_gap(tmp_path: Path) -> None:
    """The write is a MODIFY without a WAL."""
    path = tmp_path / "app.db"
    closed_database(path)
    with Following(path, tmp_path / "f").begin() as follow:
        follow.settled()
        with path.open("r+b") as file:
            file.write(b"SQLite")
        assert follow.gap() == "the database was changed while it had no WAL"


def test_a_write_through_another_name_is_a_gap(tmp_path: Path) -> None:
    """No event reports a hard link elsewhere, but size and mtime do."""
    folder = tmp_path / "data"
    folder.mkdir()
    path = folder / "app.db"
    closed_database(path)
    os.link(path, tmp_path / "link")
    with Following(path, tmp_path / "f").begin() as follow:
        follow.settled()
        with (tmp_path / "link").open("r+b") as file:
            file.write(b"SQLite")
        assert follow.gap() == "the database was changed while it had no WAL"


@pytest.mark.parametrize("is_open", [False, True])
def test_a_write_through_another_name_before_the_next_wal_is_looked_at(tmp_path: Path, *, is_open: bool) -> None:
    """An application opens the database, and no look at the file alone comes in between."""
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "app.db"
    closed_database(path)
    os.link(path, tmp_path / "link")
    with Following(path, tmp_path / "f").begin() as follow:
        follow.settled()
        with SqliteProcess(path) as app:
            if is_open:
                app.execute("SELECT * FROM t")
            with (tmp_path / "link").open("r+b") as file:
                file.write(b"SQLite")
            app.execute(insert(1))
            follow.step()
            follow.ahead_ms += LATE_EVENT_MS
            follow.finds_gap(UNTOLD)


def test_a_mode_that_changes_is_no_gap(tmp_path: Path) -> None:
    """chmod changes only ctime. Where events are watched it is known to be no write."""
    path = tmp_path / "app.db"
    closed_database(path)
    with Following(path, tmp_path / "f").begin() as follow:
        follow.settled()
        path.chmod(0o600)
        assert not follow.look().gap


def test_a_database_in_rollback_mode(tmp_path: Path) -> None:
    """Every change begins an epoch and asks for a base. Without a change nothing happens."""
    path = tmp_path / "app.db"
    with SqliteProcess(path) as app:
        app.execute("CREATE TABLE t (x)")
        with Following(path, tmp_path / "f").begin() as follow:
            assert follow.state.mode == "rollback"
            assert not follow.settled().gap
            epoch = follow.state.stream.epoch
            assert not follow.look().base_wanted
            app.execute(insert(1))
            step = follow.look()
            assert step.base_wanted == "the database changed"
            assert follow.state.stream.epoch == epoch + 1
            assert not follow.settled().base_wanted


def test_a_change_in_rollback_mode_that_was_not_made_durable(tmp_path: Path) -> None:
    """The step is lost but the change is not, because the next look finds it again."""
    path = tmp_path / "app.db"
    with SqliteProcess(path) as app:
        app.execute("CREATE TABLE t (x)")
        with Following(path, tmp_path / "f").begin() as follow:
            follow.look()
            app.execute(insert(1))
            assert take_step(follow.tracked, follow.environment).base_wanted
            assert follow.look().base_wanted
            assert not follow.look().base_wanted


def test_a_change_in_rollback_mode_while_the_daemon_was_away(tmp_path: Path) -> None:
    """The file's facts show the change."""
    path = tmp_path / "app.db"
    with SqliteProcess(path) as app:
        app.execute("CREATE TABLE t (x)")
        with Following(path, tmp_path / "f").begin() as follow:
            follow.settled()
            follow.die()
            app.execute(insert(1))
            assert follow.restart().look().base_wanted


def test_what_says_that_nothing_changed() -> None:
    """Where events are watched, the events show it, and size and mtime confirm it.

    Where no events are watched, every fact must be equal to that of a known look.
    """
    assert is_unchanged(LOOK, LOOK, is_unwritten=False)
    assert is_unchanged(LOOK, LOOK.unknown(), is_unwritten=True)
    assert not is_unchanged(LOOK, LOOK.unknown(), is_unwritten=False)
    assert is_unchanged(replace(LOOK, ctime_ns=5), LOOK, is_unwritten=True)
    assert not is_unchanged(replace(LOOK, ctime_ns=5), LOOK, is_unwritten=False)
    assert not is_unchanged(replace(LOOK, mtime_ns=5), LOOK, is_unwritten=True)
    assert not is_unchanged(replace(LOOK, size=5), LOOK, is_unwritten=True)
    assert not is_unchanged(replace(LOOK, inode=5), LOOK, is_unwritten=False)
