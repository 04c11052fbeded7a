"""Tests of a database without a WAL that is written by a second name in another folder, where no event comes from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.following import CHECKPOINT, Following, closed_database, insert
from walsyncd.engine.follow.file_facts import SETTLED_MS
from walsyncd.engine.follow.wal_pair import UNTOLD

CHANGED = "the database was changed while it had no WAL"


@pytest.fixture
def link(tmp_path: Path) -> Path:
    """Return the database's second name."""
    path = tmp_path / "other" / "link.db"
    path.parent.mkdir()
    closed_database(tmp_path / "app.db")
    path.hardlink_to(tmp_path / "app.db")
    return path


def put_an_older_one_there(follow: Following, link: Path, known: Callable[[Following], object]) -> None:
    """Copy a backup over the database after it was written, closed and looked at."""
    backup = follow.path.with_name("backup.db")
    shutil.copyfile(follow.path, backup)
    with SqliteProcess(follow.path) as app:
        app.execute(*(insert(number) for number in range(30)))
        assert not follow.look().gap
        app.close()
    known(follow)
    assert not any(step.gap for step in follow.steps)
    shutil.copyfile(backup, link)


@pytest.mark.parametrize("known", [Following.settled, Following.look])
@pytest.mark.parametrize("then", [(), (CHECKPOINT,), ("close",)])
def test_the_next_application_finds_another_database(
    tmp_path: Path, link: Path, known: Callable[[Following], object], then: tuple[str, ...]
) -> None:
    """The write is noticed even if the application copies its WAL back before any look at the database."""
    with Following(tmp_path / "app.db", tmp_path / "f").begin() as follow:
        assert not follow.settled().gap
        put_an_older_one_there(follow, link, known)
        with SqliteProcess(follow.path) as app:
            app.execute("SELECT * FROM t")
            follow.watch.drain()  # the daemon learns of the WAL before anything is copied back
            app.execute(insert(99))
            if then == ("close",):
                app.close()
            else:
                app.execute(*then)
            assert follow.gap() == UNTOLD


def too_young(follow: Following) -> None:
    """Look at a file that may still be written within the grain of its times, so that they are not recorded."""
    follow.ahead_ms = -SETTLED_MS
    follow.look()
    assert not follow.state.file.known


@pytest.mark.parametrize("known", [Following.settled, too_young])
def test_nobody_uses_it_then(tmp_path: Path, link: Path, known: Callable[[Following], object]) -> None:
    """The write is noticed even if the file's times had not been recorded yet."""
    with Following(tmp_path / "app.db", tmp_path / "f").begin() as follow:
        assert not follow.settled().gap
        put_an_older_one_there(follow, link, known)
        assert follow.gap() == CHANGED


def test_a_checkpoint_whose_event_is_still_to_be_read(tmp_path: Path) -> None:
    """The checkpoint comes after its WAL, and causes no doubt, however late the daemon learns of both."""
    path = tmp_path / "app.db"
    closed_database(path)
    with Following(path, tmp_path / "f").begin() as follow:
        for number in range(5):
            assert not follow.settled().gap
            with SqliteProcess(path) as app:
                app.execute(insert(number), CHECKPOINT)
                assert not follow.look().gap
                app.execute(insert(number), CHECKPOINT)
                app.close()
        assert not follow.settled().gap


def test_in_rollback_mode_one_change_is_one_base(tmp_path: Path) -> None:
    """The change is dealt with, and the next look finds none."""
    path, link = tmp_path / "app.db", tmp_path / "other" / "link.db"
    link.parent.mkdir()
    with SqliteProcess(path) as app:
        app.execute("CREATE TABLE t (v)", insert(1))
    link.hardlink_to(path)
    backup = tmp_path / "backup.db"
    shutil.copyfile(path, backup)
    with Following(path, tmp_path / "f").begin() as follow:
        follow.look()
        shutil.copyfile(backup, link)
        count = len(follow.steps)
        follow.look(until=lambda step: bool(step.base_wanted))
        follow.settled()
        assert sum(bool(step.base_wanted) for step in follow.steps[count:]) == 1
