"""Tests of what a folder's owner may put in the place of his database's files: no file of another user is read."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.applications import locks_of
from tests.engine.following import Following, insert
from walsyncd.adapters.files.source import Role, hot_journal, side_path
from walsyncd.errors import UsageError

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def linked(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def fifo(path: Path, _victim: Path) -> None:
    os.mkfifo(path)


def folder(path: Path, _victim: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [linked, fifo, folder])
@pytest.mark.parametrize("role", [Role.WAL, Role.SHM, Role.JOURNAL])
def test_side_files_that_are_none(tmp_path: Path, role: Role, make: Callable[[Path, Path], None]) -> None:
    """SQLite opens no -wal and no -shm through a link, so we do not either. The look reports what is wrong."""
    path, other = tmp_path / "app.db", tmp_path / "victim"
    other.mkdir()
    with wal_database(path) as app:
        app.close()
    with wal_database(other / "app.db") as victim, Following(path, tmp_path / "f").begin() as follow:
        victim.execute(insert(42))
        make(side_path(path, role), side_path(other / "app.db", role if role is not Role.JOURNAL else Role.WAL))
        if role is Role.SHM:
            side_path(path, Role.WAL).touch()
        if role is Role.JOURNAL:
            with pytest.raises(UsageError, match=r"app\.db-journal"):
                hot_journal(path)
            return
        with pytest.raises(UsageError, match=f"app.db{role.value}"):
            follow.look()
        assert not follow.epochs()


@pytest.mark.parametrize("target", ["victim/app.db", "secret"])
@pytest.mark.parametrize("presence", [False, True])
def test_a_database_that_becomes_a_link(tmp_path: Path, target: str, *, presence: bool) -> None:
    """The generation ends, nothing of the link's target is read, and no lock is taken there."""
    path, victim = tmp_path / "app.db", tmp_path / "victim" / "app.db"
    victim.parent.mkdir()
    (tmp_path / "secret").write_text("root's")
    following = Following(path, tmp_path / "f", presence=presence)
    with wal_database(path) as app, wal_database(victim) as other, following.begin() as follow:
        app.execute(insert(1))
        follow.look()
        app.close()
        path.unlink()
        path.symlink_to(tmp_path / target)
        assert "database's place" in follow.gap()
        with pytest.raises(UsageError, match="there is a symbolic link in its place"):
            follow.begin()
        other.execute(insert(42))
        follow.tracked.presence.update()
        assert locks_of(victim) == (False, False)


@needs_root
@pytest.mark.root
@pytest.mark.parametrize("role", [Role.DATABASE, Role.WAL])
def test_a_match_that_is_somebody_elses_file_by_another_name(tmp_path: Path, role: Role) -> None:
    """If a pattern's match or its side files have several names, they must belong to the folder's owner."""
    path, victim = tmp_path / "his" / "app.db", tmp_path / "victim" / "app.db"
    for number, each in enumerate((path, victim), 5001):
        each.parent.mkdir()
        with wal_database(each) as app:
            app.close()
        os.chown(each.parent, number, number)
        os.chown(each, number, number)
    with SqliteProcess(victim) as other, Following(path, tmp_path / "f").begin() as follow:
        other.execute(insert(42))
        os.chown(side_path(victim, Role.WAL), 5002, 5002)
        follow.tracked.spec = replace(follow.tracked.spec, is_match=True)
        follow.tracked.wal_pairs.own_only = True
        side_path(path, role).unlink(missing_ok=True)
        side_path(path, role).hardlink_to(side_path(victim, role))
        if role is Role.DATABASE:
            assert "database's place" in follow.gap()
            with pytest.raises(UsageError, match="its owner is not its folder's owner"):
                follow.begin()
        else:
            with pytest.raises(UsageError, match="its owner is not its folder's owner"):
                follow.look()
        assert not follow.epochs()
