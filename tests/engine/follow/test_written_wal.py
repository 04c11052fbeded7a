"""Tests of an older copy that somebody writes over the -wal of a database in use: committed frames are lost."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.files.sqlite_process import SqliteError, SqliteProcess
from tests.engine.following import CHECKPOINT, TRUNCATE, Following, closed_database, insert
from tests.engine.running import Place, restored_values, running, wait_for
from walsyncd.core.follow.database_state import DatabaseState
from walsyncd.core.follow.decision import Cursor
from walsyncd.engine.follow.source_reader import SourceReader

Act = Callable[[Path, Path], object]
WORDS = "written over the -wal of a database in use"
PAUSE_MS = 100
LOOKS_MAX = 200


def copy(old: Path, wal: Path) -> None:
    """Copy like cp: the file is cut to nothing, and written."""
    shutil.copyfile(old, wal)


def truncate(old: Path, wal: Path) -> None:
    """Truncate the WAL without a CLOSE_WRITE."""
    os.truncate(wal, old.stat().st_size)


def write_in_place(old: Path, wal: Path) -> None:
    """Write like dd conv=notrunc, and rsync --inplace."""
    with wal.open("r+b") as file:
        file.write(old.read_bytes())


def side(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return tmp_path / "old-wal"


@pytest.mark.parametrize("commits", [0, 2])
@pytest.mark.parametrize(("act", "is_long"), [(copy, False), (copy, True), (truncate, False), (write_in_place, True)])
def test_an_older_copy_of_the_same_incarnation(
    app: SqliteProcess, follow: Following, old: Path, act: Act, *, is_long: bool, commits: int
) -> None:
    """The copy is shorter, or it is as long and ends with another incarnation.

    The application may commit after the copying.
    """
    wal = side(follow.path, "-wal")
    if is_long:
        app.execute(*(insert(value) for value in range(20)), CHECKPOINT)
        assert not follow.settled().gap
    app.execute(insert(1))
    assert not follow.settled().gap
    shutil.copyfile(wal, old)
    app.execute(insert(2))
    assert not follow.settled().gap
    act(old, wal)
    for value in range(commits):
        app.execute(insert(value))
    follow.finds_gap(WORDS)


def test_a_copy_that_has_all_that_was_shipped(app: SqliteProcess, follow: Following, old: Path) -> None:
    """Commits after the copied state are not shipped, although SQLite continues to commit."""
    wal = side(follow.path, "-wal")
    app.execute(insert(1))
    assert not follow.settled().gap
    shutil.copyfile(wal, old)
    app.execute(insert(2))
    copy(old, wal)
    app.execute(insert(3))
    follow.finds_gap(WORDS)


def test_a_copy_that_changes_nothing(app: SqliteProcess, follow: Following, old: Path) -> None:
    """A prefix is written over itself, or a whole copy."""
    wal = side(follow.path, "-wal")
    app.execute(insert(1))
    shutil.copyfile(wal, old)
    app.execute(insert(2))
    assert not follow.settled().gap
    write_in_place(old, wal)
    assert not follow.settled().gap
    shutil.copyfile(wal, old)
    copy(old, wal)
    assert not follow.settled().gap
    app.execute(insert(3))
    follow.sees_all(app)


@pytest.mark.parametrize("has_index", [False, True])
@pytest.mark.parametrize("commits", [0, 1, 2])
def test_a_copy_of_another_incarnation(
    app: SqliteProcess, follow: Following, old: Path, *, has_index: bool, commits: int
) -> None:
    """The -shm of that time may be copied with the WAL, too."""
    wal, shm, old_shm = side(follow.path, "-wal"), side(follow.path, "-shm"), old.with_name("old-shm")
    app.execute(insert(1))
    assert not follow.settled().gap
    shutil.copyfile(wal, old)
    shutil.copyfile(shm, old_shm)
    app.execute(CHECKPOINT, insert(2))
    assert not follow.settled().gap
    copy(old, wal)
    if has_index:
        shutil.copyfile(old_shm, shm)
    for value in range(commits):
        try:
            app.execute(insert(value))
        except SqliteError:
            break
    for _ in range(LOOKS_MAX):
        if follow.step().gap is not None:
            return
        follow.ahead_ms += PAUSE_MS
    raise AssertionError("nothing was reported")


def test_status_reports_it_and_the_next_application_is_followed(tmp_path: Path, old: Path) -> None:
    """The state is degraded, with the cause, until the WAL is recovered without the frames that were written over."""
    place = Place(tmp_path)
    path = place.database()
    wal = side(path, "-wal")
    with SqliteProcess(path) as app, running(place.settings("app")), place.journal() as journal:
        app.execute("PRAGMA journal_mode=WAL", "CREATE TABLE t (x)", insert(1))
        place.sync()
        wait_for(lambda: journal.page_map(1) is not None)
        shutil.copyfile(wal, old)
        app.execute(insert(2))
        place.sync()
        copy(old, wal)
        app.execute(insert(3))
        # A look may come during the copying, when the file is short.
        wait_for(lambda: place.row().state is DatabaseState.DEGRADED and WORDS in place.row().cause)
        app.kill()
        with SqliteProcess(path) as other:
            assert other.execute("SELECT x FROM t") == [[1]]
            place.sync()
            assert restored_values(place) == [1]
            other.execute(insert(4))
            place.sync()
            assert restored_values(place) == [1, 4]


@pytest.mark.parametrize("is_idle", [True, False])
def test_a_wal_that_is_emptied_during_a_look(
    app: SqliteProcess, follow: Following, monkeypatch: pytest.MonkeyPatch, *, is_idle: bool
) -> None:
    """The last close empties a persistent WAL (SQLITE_FCNTL_PERSIST_WAL), before the close releases its locks."""
    app.execute(insert(1))
    assert not follow.settled().gap
    holds, wal = SourceReader.holds, side(follow.path, "-wal")
    if not is_idle:
        app.execute(insert(2))

    def late(self: SourceReader, cursor: Cursor) -> bool:
        os.truncate(wal, 0)
        return holds(self, cursor)

    monkeypatch.setattr(SourceReader, "holds", late)
    assert not follow.step().gap


@pytest.mark.parametrize(("method", "call"), [("still_holds", 1), ("read", 2), ("holds", 2)])
def test_an_exclusive_application_empties_its_wal_during_a_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, call: int
) -> None:
    """Only the WAL itself shows that it was emptied.

    The first call of ``read`` is the scan. The first call of ``holds`` asks whether what was shipped is there.
    """
    path, real, begun = tmp_path / "app.db", getattr(SourceReader, method), list[int]()
    closed_database(path)
    with SqliteProcess(path) as app, Following(path, tmp_path / "f").begin() as follow:
        app.execute("PRAGMA locking_mode = EXCLUSIVE", insert(1))
        assert not follow.settled().gap
        app.execute(insert(2))

        def late(self: SourceReader, *arguments: Any) -> Any:
            begun.append(1)
            if len(begun) == call:
                app.execute(TRUNCATE)
            return real(self, *arguments)

        monkeypatch.setattr(SourceReader, method, late)
        follow.finds_gap("the WAL was emptied")
