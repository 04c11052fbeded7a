"""Tests that presence never comes first on DMS. Over a stale wal-index, that would lose committed transactions."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.applications import NOTHING, ROWS, locks_of, run_sql
from tests.engine.following import insert
from walsyncd.adapters.files.source import Role, open_file, side_path, take_database, take_dms
from walsyncd.engine.follow.presence import Presence


def power_cut(folder: Path) -> tuple[Path, str]:
    """Make files as after a power cut: the WAL reached the disk, and the wal-index is as it was before the last
    commits.
    """
    live, dead = folder / "live.db", folder / "dead.db"
    with wal_database(live) as app:
        copy(live, dead, Role.SHM)
        app.execute(*map(insert, range(1, 6)))
        copy(live, dead, Role.DATABASE, Role.WAL)
    return dead, "[0, 1, 2, 3, 4, 5]"


def rsynced(folder: Path) -> tuple[Path, str]:
    """Copy a folder in the order of its names while an application commits and checkpoints."""
    live, dead = folder / "live.db", folder / "dead.db"
    with wal_database(live) as app:
        app.execute(*map(insert, range(1, 9)), "PRAGMA wal_checkpoint")
        copy(live, dead, Role.DATABASE, Role.SHM)
        app.execute(insert(100), insert(101))
        copy(live, dead, Role.WAL)
    return dead, "[0, 1, 2, 3, 4, 5, 6, 7, 8, 100, 101]"


def restored(folder: Path) -> tuple[Path, str]:
    """Restore database and WAL of a backup beside a wal-index that the backup did not have."""
    live, dead = folder / "live.db", folder / "dead.db"
    with wal_database(live) as app:
        app.execute(*map(insert, range(1, 6)))
        copy(live, dead, Role.DATABASE, Role.WAL)
        app.execute("PRAGMA wal_checkpoint(TRUNCATE)", insert(6))
        copy(live, dead, Role.SHM)
    return dead, "[0, 1, 2, 3, 4, 5]"


def copy(source: Path, target: Path, *roles: Role) -> None:
    for role in roles:
        shutil.copyfile(side_path(source, role), side_path(target, role))


STALE = pytest.mark.parametrize("stale", [power_cut, rsynced, restored])


@STALE
def test_a_lock_over_a_stale_wal_index_loses_committed_rows(
    tmp_path: Path, stale: Callable[[Path], tuple[Path, str]]
) -> None:
    """If a process that came first holds DMS, the application does not recover. So presence is never first."""
    path, rows = stale(tmp_path)
    with first_on_dms(path):
        seen = run_sql(path, ROWS)
        run_sql(path, insert(7))
    assert seen != rows
    assert run_sql(path, ROWS) != f"{rows[:-1]}, 7]", "the next recovery does not bring them back"


@contextmanager
def first_on_dms(path: Path) -> Iterator[None]:
    shm, database = open_file(side_path(path, Role.SHM)), open_file(path)
    assert shm is not None
    assert database is not None
    with shm, database:
        assert take_dms(shm)
        assert take_database(database)
        yield


@STALE
def test_the_rule_loses_none(tmp_path: Path, stale: Callable[[Path], tuple[Path, str]]) -> None:
    """With looks before, while and after the application has the database open, it recovers, and everything is
    there.
    """
    path, rows = stale(tmp_path)
    presence = Presence(path, wanted=True)
    presence.update()
    assert locks_of(path) == NOTHING
    with SqliteProcess(path) as app:
        assert str([x for (x,) in app.execute(ROWS)]) == rows
        presence.update()
        assert presence.held
        app.execute(insert(7))
        app.close()
    presence.update()
    assert run_sql(path, ROWS) == f"{rows[:-1]}, 7]"
    presence.want(wanted=False)
    assert run_sql(path, ROWS, "PRAGMA integrity_check") == "['ok']"
