"""Tests of an application that uses the database by another path: real mounts, real SQLite in other processes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.following import Following, insert
from tests.engine.running import Place, serving, wait_for
from walsyncd.adapters.files.source import open_file, posix_lock_holder
from walsyncd.cli import main
from walsyncd.core.follow.other_path import DELETED, ELSEWHERE

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@contextmanager
def bind_mounted(path: Path, at: Path) -> Iterator[Path]:
    """Mount the single file at another path, as ``-v ./app.db:/app/app.db`` does."""
    at.parent.mkdir()
    at.touch()
    subprocess.run(["mount", "--bind", path, at], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", at], check=True)


def closed_database(path: Path) -> Path:
    with wal_database(path) as app:
        app.close()
    return path


def error_after(follow: Following, *seconds: float) -> str:
    """Return the error after looks that far apart."""
    for each in seconds:
        follow.ahead_ms += round(each * 1000)
        follow.step()
    error = follow.tracked.other_path_error()
    return error.message if error is not None else ""


@needs_root
@pytest.mark.root
def test_a_file_that_is_mounted_elsewhere(tmp_path: Path) -> None:
    """The error is certain after three seconds, and over when the application uses this path."""
    path = closed_database(tmp_path / "app.db")
    mounted = bind_mounted(path, tmp_path / "container" / "app.db")
    with mounted as other, Following(path, tmp_path / "f").begin() as follow, SqliteProcess(other) as app:
        follow.step()
        assert error_after(follow, 0) == "", "it is closed"
        app.execute("SELECT * FROM t")
        assert error_after(follow, 0, 1, 1) == ""
        assert error_after(follow, 1) == ELSEWHERE
        app.close()
        with SqliteProcess(path) as here:
            here.execute("SELECT * FROM t")
            follow.watch.drain()
            assert error_after(follow, 1) == ""


@needs_root
@pytest.mark.root
def test_status_sync_and_check_report_it(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands give the cause and the remedy. A monitoring check fails."""
    path = closed_database(place.database())
    place.replica.mkdir()
    with bind_mounted(path, place.folder / "container" / "app.db") as other, SqliteProcess(other) as app:
        app.execute("INSERT INTO t VALUES (1)")
        with serving(place.settings("app")):
            wait_for(lambda: place.row().state == "degraded" and place.row().cause == ELSEWHERE)
            assert "the folder, not the single file" in place.row().remedy
            answer = place.ask(op="sync", names=["app"])["databases"]["app"]
            assert ELSEWHERE in answer["error"]
        assert main(["check", *place.config()]) == 1
        assert ELSEWHERE in capsys.readouterr().out


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_wal_that_was_deleted_beside_a_running_application(place: Place) -> None:
    """The signs are the same, but the cause differs: the application's commits are in a file without a name."""
    with wal_database(place.database()) as app, serving(place.settings("app")):
        place.sync()
        app.execute("INSERT INTO t VALUES (1)")
        place.sync()
        for suffix in ("-wal", "-shm"):
            Path(f"{place.database()}{suffix}").unlink()
        wait_for(lambda: place.row().cause in {DELETED, ELSEWHERE})
        assert (place.row().state, place.row().cause) == ("degraded", DELETED)


def test_an_application_that_is_used_by_this_path_shows_none(tmp_path: Path) -> None:
    """The application opens, reads, writes, closes, and is killed, with a look at every point."""
    path = closed_database(tmp_path / "app.db")
    with Following(path, tmp_path / "f").begin() as follow:
        for number in range(6):
            with SqliteProcess(path) as app:
                app.execute(insert(number))
                follow.watch.drain()
                follow.look()
                if number % 2:
                    app.close()
                    follow.watch.drain()
                    follow.look()
            assert error_after(follow, 1.5) == ""
        file = open_file(path)
        assert file is not None
        with file:
            assert posix_lock_holder(file) is None


def test_rollback_databases_are_none_of_these(tmp_path: Path) -> None:
    """A reader holds a lock, and there is no WAL, as it should be."""
    path = tmp_path / "app.db"
    with SqliteProcess(path) as app:
        app.execute("CREATE TABLE t (x)", "INSERT INTO t VALUES (1)")
        with Following(path, tmp_path / "f").begin() as follow:
            app.execute("BEGIN", "SELECT * FROM t")
            assert error_after(follow, 0, 1.5, 1.5, 1.5) == ""
