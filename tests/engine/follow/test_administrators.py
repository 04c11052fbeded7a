"""Tests of what an administrator does to the files of a database: the restore is the database, or a gap is reported.

They try sequences of up to three operations, in each state of the WAL, with the daemon watching, stopped or present. By
default these are a sample by seed, and with ``WALSYNCD_ENUMERATE=all`` all of them.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.files.sqlite_process import SqliteError, SqliteProcess, wal_database
from tests.engine.following import Following, insert
from walsyncd.errors import WalsyncdError

SAMPLE = int(os.environ.get("WALSYNCD_SAMPLE", "40"))
STEPS_MAX = 1000
QUIET_LOOKS = 5
SEED = int(os.environ.get("WALSYNCD_SEED", "1"))
STATES = ("frames", "copied back", "truncated", "idle", "running")
WATCHERS = ("watching", "stopped", "present")
ROWS = "SELECT x FROM t UNION ALL SELECT x FROM u UNION ALL SELECT x FROM v"
# These pages are not in the WAL, so it matters what the database file holds.
FILL = "INSERT INTO {table} SELECT printf('%08d', value) || hex(zeroblob(1000)) FROM json_each('[1,2,3,4,5,6]')"


class Files:
    """A database with an application, a backup of it, and what an administrator does to them."""

    def __init__(self, folder: Path, state: str) -> None:
        self.path = folder / "app.db"
        self.wal, self.shm = Path(f"{self.path}-wal"), Path(f"{self.path}-shm")
        self.backup = folder / "backup.db"
        self.state = state
        self.app: SqliteProcess | None = wal_database(self.path)
        self.app.execute("CREATE TABLE u (x)", "CREATE TABLE v (x)", FILL.format(table="u"), FILL.format(table="v"))
        self.app.execute("CREATE INDEX i ON t (x)", *(insert(value) for value in range(1, 4)))
        self.old_wal = self.wal.read_bytes()
        with closing(sqlite3.connect(self.path)) as source, closing(sqlite3.connect(self.backup)) as target:
            source.backup(target)
            with target:
                target.execute("DELETE FROM t WHERE x = 2")
                target.execute("INSERT INTO t VALUES (999), (1000)")
                target.execute("UPDATE u SET x = 'another ' || substr(x, 9)")
        self.app.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def enter(self) -> None:
        """Bring the database into the state in which the administrator finds it."""
        assert self.app is not None
        self.app.execute(insert(10), insert(11))
        self.earlier_wal = self.wal.read_bytes()
        self.app.execute(insert(12), insert(13))
        if self.state == "copied back":
            self.app.execute("PRAGMA wal_checkpoint")
        elif self.state == "truncated":
            self.app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if self.state not in {"idle", "running"}:
            self.app.kill()
            self.app = None

    def do(self, operation: str) -> None:
        match operation:
            case "remove -shm":
                self.shm.unlink(missing_ok=True)
            case "remove -wal":
                self.wal.unlink(missing_ok=True)
            case "copy over":
                shutil.copyfile(self.backup, self.path)
            case "truncate -wal":
                if self.wal.exists():
                    os.truncate(self.wal, 0)
            case "rename over":
                shutil.copyfile(self.backup, f"{self.path}.new")
                Path(f"{self.path}.new").rename(self.path)
            case "old -wal":
                self.wal.write_bytes(self.old_wal)
            case "earlier -wal":  # the backup is of the same incarnation
                self.wal.write_bytes(self.earlier_wal)
        if self.state == "running":
            self.write(20)

    def write(self, value: int) -> None:
        """Let the application continue, or somebody open the database and write."""
        with suppress(SqliteError):
            if self.app is not None:
                self.app.execute(insert(value))
                return
            with SqliteProcess(self.path) as other:
                other.execute(insert(value))
                other.close()

    def truth(self) -> list[Any] | str:
        """Return what the next process that opens the files finds, after all who have them open are gone."""
        copy = self.path.with_name("truth.db")
        shutil.copyfile(self.path, copy)
        for suffix in ("-wal", "-journal"):
            Path(f"{copy}{suffix}").unlink(missing_ok=True)
            if Path(f"{self.path}{suffix}").exists():
                shutil.copyfile(f"{self.path}{suffix}", f"{copy}{suffix}")
        return rows_of(copy)


def rows_of(path: Path) -> list[Any] | str:
    """Return the rows, or SQLite's error."""
    with closing(sqlite3.connect(path)) as connection:
        try:
            if connection.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
                return "malformed"
            return [list(row) for row in connection.execute(ROWS)]
        except sqlite3.Error as error:
            return str(error)


OPERATIONS = ("remove -shm", "remove -wal", "copy over", "truncate -wal", "rename over", "old -wal", "earlier -wal")


def sequences() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    operations = (some for count in (1, 2, 3) for some in itertools.product(OPERATIONS, repeat=count))
    for some, state, watcher in itertools.product(operations, STATES, WATCHERS):
        yield state, watcher, some


# Each of these once gave a wrong replica, and is tried in every run.
KNOWN = tuple(
    (state, "stopped", operations)
    for operations in (("copy over", "remove -shm"), ("remove -shm", "copy over"))
    for state in ("frames", "copied back", "idle", "running")
) + tuple((state, watcher, ("earlier -wal",)) for state in ("idle", "running") for watcher in WATCHERS)


def chosen() -> list[tuple[str, str, tuple[str, ...]]]:
    every = list(sequences())
    some = [*KNOWN, *random.Random(SEED).sample(every, SAMPLE)]
    return every if os.environ.get("WALSYNCD_ENUMERATE") == "all" else some


def reports(follow: Following) -> bool:
    """Return whether looks that continue until nothing waits any more find a gap, or report that they can't look."""
    quiet = 0
    for _ in range(STEPS_MAX):
        try:
            step = follow.step()
        except WalsyncdError:
            return True
        if step.gap is not None:
            return True
        if step.again_s != 0:
            follow.ahead_ms += 100
            time.sleep(0.001)
        quiet = quiet + 1 if step.caught_up and step.again_s != 0 else 0
        if quiet >= QUIET_LOOKS:
            return False
    raise AssertionError(f"looks do not come to an end: {step}")


def restored(follow: Following) -> list[Any] | str:
    try:
        return follow.restored(ROWS)
    except (sqlite3.Error, AssertionError) as error:
        return f"malformed: {error}"


@pytest.mark.parametrize(("state", "watcher", "operations"), chosen())
def test_what_an_administrator_does(tmp_path: Path, state: str, watcher: str, operations: tuple[str, ...]) -> None:
    """The restore is what the next process that opens the files finds, or the daemon reports that something
    was missed.
    """
    files = Files(tmp_path, state)
    with Following(files.path, tmp_path / "f", presence=watcher == "present").begin() as follow:
        assert not reports(follow)
        files.enter()
        told = reports(follow)
        if watcher == "stopped":
            follow.die()
        for operation in operations:
            files.do(operation)
            told = told or (watcher != "stopped" and reports(follow))
        if watcher == "stopped":
            follow.restart()
        told = told or reports(follow)
        files.write(30)
        told = told or reports(follow)
        if not told:
            truth = files.truth()
            assert restored(follow) == truth
        if files.app is not None:
            files.app.kill()
