"""Tests of pages that somebody writes over after a checkpoint copied them back: a restore has what a new
reader sees.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.running import Place, running, wait_for
from tests.engine.scrubbing import scrub
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.core.restore.plan import Head
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.follower import Follower
from walsyncd.engine.restore.replica import Replica
from walsyncd.engine.restore.restorer import find_plan, restore

ROWS = "SELECT substr(x, 1, 10) FROM t ORDER BY rowid"


def insert(mark: str) -> str:
    """Return a statement for a row that almost fills a page."""
    return f"INSERT INTO t VALUES (printf('{mark}%3000d', 1))"


class Scene:
    """An application that has the database open, with all its commits copied back, and a daemon's replica."""

    def __init__(self, folder: Path, app: SqliteProcess) -> None:
        self.place, self.app = Place(folder), app
        self.path = self.place.database()

    def overwrite(self, mark: str, by: str) -> None:
        """Write over the row ``mark`` in the file."""
        with self.path.open("r+b") as file:
            file.seek(self.path.read_bytes().index(mark.encode()))
            file.write(by.encode())

    def seen(self) -> list[str]:
        """Return what a new reader sees."""
        with SqliteProcess(self.path) as other:
            rows = [str(row[0]) for row in other.execute(ROWS)]
            other.close()
            return rows

    def restored(self) -> list[str]:
        """Return what the replica's head has, which is sound."""
        replica, out = Replica(DirectoryStorage(self.place.replica), "app"), self.place.folder / "restored.db"
        restore(replica, find_plan(replica, Head()), out, force=True)
        with closing(sqlite3.connect(out)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            return [str(row[0]) for row in connection.execute(ROWS)]

    def agrees(self, *rows: str) -> None:
        """Assert that the replica has these rows after a sync, and that a reader sees them."""
        self.place.sync()
        assert self.seen() == list(rows)
        assert self.restored() == list(rows)


@contextmanager
def followed(scene: Scene) -> Iterator[None]:
    with running(scene.place.settings("app")), scene.place.journal() as journal:
        scene.place.sync()
        wait_for(lambda: journal.page_map(1) is not None)
        yield


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    path = Place(tmp_path).database()
    with SqliteProcess(path) as app:
        app.execute("PRAGMA journal_mode = WAL", "CREATE TABLE t (x)", "CREATE TABLE other (x)")
        # With more pages than a small bridge has, one of most pages is dropped for a base.
        numbers = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 800)"
        app.execute(f"{numbers} INSERT INTO other SELECT zeroblob(3000) FROM n", "PRAGMA wal_checkpoint(TRUNCATE)")
        yield Scene(tmp_path, app)


def commit_and_copy_back(scene: Scene) -> None:
    scene.app.execute(insert("first....."), insert("second...."), "PRAGMA wal_checkpoint")
    scene.agrees("first.....", "second....")


def test_readers_read_the_file(scene: Scene) -> None:
    """All frames are copied back, so nobody reads them. The next commit begins the WAL again."""
    with followed(scene):
        commit_and_copy_back(scene)
        scene.overwrite("first.....", "another...")
        scene.agrees("another...", "second....")
        scene.app.execute(insert("third....."))
        scene.agrees("another...", "second....", "third.....")
        scene.app.close()
        scene.agrees("another...", "second....", "third.....")


def test_the_wal_cannot_restart(scene: Scene) -> None:
    """A lasting reader keeps the WAL, so commits are added to it. A page that is not copied back yet is not lost."""
    with followed(scene), SqliteProcess(scene.path) as reader:
        scene.app.execute(insert("first....."), insert("second...."))
        reader.execute("BEGIN", ROWS)
        scene.app.execute("PRAGMA wal_checkpoint")
        scene.agrees("first.....", "second....")
        scene.overwrite("first.....", "another...")
        scene.agrees("another...", "second....")
        scene.app.execute(insert("third....."))
        scene.agrees("another...", "second....", "third.....")
        scene.overwrite("another...", "different.")
        scene.agrees("different.", "second....", "third.....")
        reader.execute("COMMIT")
        scene.app.execute("PRAGMA wal_checkpoint")
        scene.agrees("different.", "second....", "third.....")
        scene.app.execute(insert("fourth...."))
        scene.agrees("different.", "second....", "third.....", "fourth....")


def test_the_wal_is_recovered(scene: Scene) -> None:
    """The application is killed.

    The next process that opens the database recovers the WAL, whose frames are copied back again.
    """
    with followed(scene):
        commit_and_copy_back(scene)
        scene.overwrite("first.....", "another...")
        scene.agrees("another...", "second....")
        scene.app.kill()
        scene.agrees("first.....", "second....")


def test_the_daemon_starts_again(scene: Scene) -> None:
    """The daemon remembers that the replica has the file's version, which is lost when the WAL is recovered."""
    with followed(scene):
        commit_and_copy_back(scene)
        scene.overwrite("first.....", "another...")
        scene.agrees("another...", "second....")
    scene.app.kill()
    with followed(scene):
        scene.agrees("first.....", "second....")


def recover_and_copy_back(scene: Scene, *more: str) -> SqliteProcess:
    """Kill the application. The next one recovers the WAL and copies back all its frames, and its own commits."""
    scene.app.kill()
    app = SqliteProcess(scene.path)
    app.execute(insert("third....."), "PRAGMA wal_checkpoint", *more)
    return app


@pytest.mark.parametrize("restarts", [False, True])
def test_the_wal_is_recovered_while_the_daemon_is_away(scene: Scene, *, restarts: bool) -> None:
    """As many frames are copied back as before, or the WAL has restarted, so nothing shows the recovery."""
    with followed(scene):
        commit_and_copy_back(scene)
        scene.overwrite("first.....", "another...")
        scene.agrees("another...", "second....")
    fourth = ["fourth...."] * restarts
    with recover_and_copy_back(scene, *map(insert, fourth)), followed(scene):
        scene.agrees("first.....", "second....", "third.....", *fourth)


@pytest.mark.parametrize("restarts", [False, True])
def test_the_wal_is_recovered_between_two_looks(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, *, restarts: bool
) -> None:
    """No look sees that the application is gone, nor that less is copied back."""
    begins, goes_on, take_round = threading.Event(), threading.Event(), Follower.round

    def late(self: Follower, taken: list[FollowedDatabase]) -> None:
        begins.set()
        goes_on.wait(60)
        take_round(self, taken)

    with followed(scene):
        commit_and_copy_back(scene)
        scene.overwrite("first.....", "another...")
        scene.agrees("another...", "second....")
        monkeypatch.setattr(Follower, "round", late)
        asks = threading.Thread(target=scene.place.sync)
        asks.start()
        try:
            wait_for(begins.is_set)
            fourth = ["fourth...."] * restarts
            app = recover_and_copy_back(scene, *map(insert, fourth))
        finally:
            goes_on.set()
            asks.join()
        with app:
            scene.agrees("first.....", "second....", "third.....", *fourth)


@pytest.mark.parametrize("is_small", [True, False])
def test_a_backup_is_copied_over(scene: Scene, *, is_small: bool) -> None:
    """The replica has the backup, even if a new generation begins. The frames would hide what readers see."""
    backup = scene.place.folder / "backup.db"
    with followed(scene):
        commit_and_copy_back(scene)
        shutil.copyfile(scene.path, backup)
        with closing(sqlite3.connect(backup)) as connection, connection:
            connection.execute("UPDATE t SET x = 'another...' || substr(x, 11) WHERE rowid = 1")
            if not is_small:
                connection.execute("UPDATE other SET x = randomblob(3000)")
        shutil.copyfile(backup, scene.path)
        scene.agrees("another...", "second....")
        scene.app.execute(insert("third....."))
        scene.agrees("another...", "second....", "third.....")
        with scene.place.journal() as journal:
            assert is_small or len(journal.generations(1)) > 1  # a look may come during the copying


def copy_longer_over(scene: Scene) -> list[str]:
    """Copy a backup that has more rows over the database. Return the backup's rows."""
    backup, rows = scene.place.folder / "backup.db", [f"longer..{number:02}" for number in range(20)]
    shutil.copyfile(scene.path, backup)
    with closing(sqlite3.connect(backup)) as connection, connection:
        for row in rows:
            connection.execute(insert(row))
    shutil.copyfile(backup, scene.path)
    scene.place.sync()
    return rows


@pytest.mark.parametrize("is_away", [False, True])
def test_a_backup_that_is_longer_is_copied_over(scene: Scene, *, is_away: bool) -> None:
    """As long as there is a WAL, SQLite believes its size. Once the application has ended, that of the file counts."""
    with followed(scene):
        commit_and_copy_back(scene)
        rows = copy_longer_over(scene)
        if not is_away:
            scene.app.close()
            scene.agrees("first.....", "second....", *rows)
    if is_away:
        scene.app.close()
        with followed(scene):
            scene.agrees("first.....", "second....", *rows)


@pytest.mark.parametrize("is_seen", [True, False])
@pytest.mark.parametrize("ends", [SqliteProcess.close, SqliteProcess.kill])
def test_the_wal_is_emptied_after_a_longer_backup(
    scene: Scene, ends: Callable[[SqliteProcess], None], *, is_seen: bool
) -> None:
    """The wal-index still has the old size, which counts until the application has ended."""
    with followed(scene):
        commit_and_copy_back(scene)
        rows = copy_longer_over(scene)
        scene.app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if is_seen:
            scene.place.sync()
        ends(scene.app)
        scene.agrees("first.....", "second....", *rows)


def test_a_longer_backup_that_has_the_pages_of_the_wal_as_they_are(scene: Scene) -> None:
    """None of the WAL's pages was overwritten, but the file is longer than the WAL says."""
    with followed(scene):
        commit_and_copy_back(scene)
        scene.app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        scene.place.sync()
        scene.app.execute("UPDATE other SET x = randomblob(3000) WHERE rowid = 5", "PRAGMA wal_checkpoint")
        scene.place.sync()
        rows = copy_longer_over(scene)
        scene.app.close()
        scene.agrees("first.....", "second....", *rows)


def test_a_scrub_compares_pages_that_were_copied_back(scene: Scene) -> None:
    """No event and no time shows the change, because the daemon was away and the file's times were restored."""
    with followed(scene):
        commit_and_copy_back(scene)
    times = scene.path.stat()
    scene.overwrite("first.....", "another...")
    os.utime(scene.path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with followed(scene):
        scrub(scene.place)
        scene.agrees("another...", "second....")
        assert scrub(scene.place)["differing"] == 0


def test_a_map_that_is_lost_has_the_version_of_the_file(scene: Scene) -> None:
    """The map's rows are lost with it.

    The WAL's frames, from which a map could be made, do not show what the file has.
    """
    with followed(scene):
        commit_and_copy_back(scene)
        scene.overwrite("first.....", "another...")
        scene.agrees("another...", "second....")
    (scene.place.state / "maps" / "1.map").unlink(missing_ok=True)
    with followed(scene):
        assert scrub(scene.place)["differing"] == 0
        scene.agrees("another...", "second....")
