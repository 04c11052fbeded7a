"""Tests of walsyncd.engine.content.page_content: maps are made when a base is stored, and their files written."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.running import Place, running, wait_for
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.core.limits import Limits
from walsyncd.core.restore.plan import Head
from walsyncd.engine.content.scrubs import Scrubs
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.wal_pair import WalPair
from walsyncd.engine.restore.replica import Replica
from walsyncd.engine.restore.restorer import find_plan, restore


def test_a_daemon_keeps_the_map_of_its_database(tmp_path: Path) -> None:
    """What is stored reaches the map's file. A missing file is made again, whatever the WAL does."""
    limits = Limits(map_segments=1, map_redo_bytes=1, map_retry_s=0.2)
    place = Place(tmp_path)
    with SqliteProcess(place.database()) as app:
        app.execute("PRAGMA journal_mode = WAL", "CREATE TABLE t (x)")
        with running(place.settings("app"), limits=limits):
            place.sync()
            with place.journal() as journal:
                wait_for(lambda: journal.page_map(1) is not None)
                for value in range(5):
                    app.execute(f"INSERT INTO t VALUES ({value})")
                    place.sync()
                wait_for(lambda: journal.redo_rows(1) == [])
                made = journal.page_map(1)
                assert made is not None
                assert made.counter > 0
        (tmp_path / "state" / "maps" / "1.map").unlink()
        with running(place.settings("app"), limits=limits), place.journal() as journal:
            place.sync()
            wait_for(lambda: journal.page_map(1) not in {None, made})


def restored(place: Path) -> list[bytes]:
    """Return the values of the table at the replica's head."""
    replica, out = Replica(DirectoryStorage(place / "replica"), "app"), place / "restored.db"
    restore(replica, find_plan(replica, Head()), out, force=True)
    with closing(sqlite3.connect(out)) as connection:
        return [bytes(x[:10]) for (x,) in connection.execute("SELECT x FROM t ORDER BY rowid")]


def test_what_was_written_over_a_page_that_was_copied_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If nothing shows that the page was copied back, its frame hides it from the scan until the WAL restarts."""
    monkeypatch.setattr(WalPair, "live_index", lambda _wal_pair: None)
    place = Place(tmp_path)
    path = place.database()
    with SqliteProcess(path) as app:
        insert = "INSERT INTO t VALUES (CAST(printf('{mark}%3000d', 1) AS BLOB))"
        app.execute("PRAGMA journal_mode = WAL", "CREATE TABLE t (x)")
        with running(place.settings("app")), place.journal() as journal:
            place.sync()
            wait_for(lambda: journal.page_map(1) is not None)
            app.execute(insert.format(mark="first....."), insert.format(mark="second...."), "PRAGMA wal_checkpoint")
            place.sync()
            with path.open("r+b") as file:
                file.seek(path.read_bytes().index(b"first....."))
                file.write(b"another...")
            place.sync()
            asked, now = list[str](), Scrubs.now

            def noted(scrubs: Scrubs, tracked: FollowedDatabase) -> int:
                asked.append(tracked.name)
                return now(scrubs, tracked)

            monkeypatch.setattr(Scrubs, "now", noted)
            rows = [b"another...", b"second....", b"third.....", b"fourth....", b"fifth....."]
            for row in rows[2:]:  # when the last one is stored, all that follows from the first has been requested
                app.execute(insert.format(mark=row.decode()))
                place.sync()
            assert asked == ["app"]
            wait_for(lambda: restored(tmp_path) == rows)
