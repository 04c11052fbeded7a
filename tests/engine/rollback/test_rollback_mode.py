"""Tests of switches between WAL and rollback modes, in a whole daemon: bridges continue the generation."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.rollback.rollback_replicas import TABLE, filled, objects, restored
from tests.engine.running import Place, running, wait_for


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def has_map(place: Place) -> bool:
    with place.journal() as journal:
        return journal.page_map(journal.databases()[0].id) is not None


@pytest.mark.parametrize("mode", ["DELETE", "PERSIST", "TRUNCATE", "MEMORY"])
def test_into_wal_mode_and_back(place: Place, mode: str) -> None:
    """Each switch is a bridge, and no commit on either side is missing."""
    path = place.database()
    with SqliteProcess(path) as app, running(place.settings("app")):
        app.execute(f"PRAGMA journal_mode={mode}", *TABLE, filled(50))
        place.sync()
        generation = place.row().generation
        for number in range(3):
            app.execute("PRAGMA journal_mode=WAL", f"UPDATE t SET y = 'wal' WHERE x = {10 + number}")
            place.sync()
            app.execute(f"PRAGMA journal_mode={mode}", f"UPDATE t SET y = 'rollback' WHERE x = {20 + number}")
            place.sync()
            assert restored(place) == path.read_bytes()
        assert place.row().generation == generation
        assert len(objects(place, "*.bridge.wal.zst")) >= 6
        assert len(objects(place, "*.db.zst")) == 1


def test_quick_switches_back_and_forth(place: Place) -> None:
    """However often the mode changes between two looks, the state at the end is exact, in the same generation."""
    path = place.database()
    with SqliteProcess(path) as app, running(place.settings("app")):
        app.execute(*TABLE, filled(50))
        place.sync()
        generation = place.row().generation
        for number in range(30):
            app.execute(
                "PRAGMA journal_mode=WAL",
                f"UPDATE t SET y = randomblob(100) WHERE x = {number}",
                "PRAGMA journal_mode=DELETE",
                f"UPDATE t SET y = randomblob(200) WHERE x = {number + 10}",
            )
        place.sync()
        assert place.row().generation == generation
        assert restored(place) == path.read_bytes()


def test_a_database_that_began_in_wal_mode(place: Place) -> None:
    """A scan beside the WAL made its map, and the bridge out of WAL mode uses it."""
    path = place.database()
    with SqliteProcess(path) as app, running(place.settings("app")):
        app.execute("PRAGMA journal_mode=WAL", *TABLE, filled(50))
        place.sync()
        app.execute("UPDATE t SET y = 1 WHERE x = 1")
        wait_for(lambda: has_map(place))
        generation = place.row().generation
        app.execute("PRAGMA journal_mode=DELETE", "UPDATE t SET y = 2 WHERE x = 2")
        place.sync()
        assert place.row().generation == generation
        assert restored(place) == path.read_bytes()


def test_another_page_size_begins_another_generation(place: Place) -> None:
    """A stored WAL has one page size."""
    path = place.database()
    with SqliteProcess(path) as app, running(place.settings("app")):
        app.execute(*TABLE, filled(20))
        place.sync()
        generation = place.row().generation
        app.execute("PRAGMA page_size=8192", "VACUUM")
        wait_for(lambda: place.row().generation not in {generation, None})
        place.sync()
        assert restored(place) == path.read_bytes()


def test_the_daemon_is_away_while_the_mode_changes(place: Place) -> None:
    """At its start the daemon finds a database in the other mode, and makes a bridge."""
    path = place.database()
    with SqliteProcess(path) as app:
        app.execute(*TABLE, filled(50))
        with running(place.settings("app")):
            place.sync()
            generation = place.row().generation
        app.execute("PRAGMA journal_mode=WAL", "UPDATE t SET y = 1 WHERE x = 1")
        with running(place.settings("app")):
            place.sync()
        app.execute("PRAGMA journal_mode=DELETE", "UPDATE t SET y = 2 WHERE x = 2")
        with running(place.settings("app")):
            place.sync()
            assert place.row().generation == generation
    assert restored(place) == path.read_bytes()


@pytest.mark.parametrize("is_away", [False, True])
def test_an_encrypted_database_leaves_wal_mode(place: Place, is_away: bool) -> None:
    """Without a WAL the file's page size can't be read, so there is no bridge.

    A base is taken, and following continues.
    """
    path = place.database()
    with SqliteProcess(path, module="apsw") as app:
        with running(place.settings("app")):
            app.execute("PRAGMA key='secret'", "PRAGMA journal_mode=WAL", *TABLE, filled(50))
            place.sync()
            app.execute("UPDATE t SET y = 1 WHERE x = 1")
            wait_for(lambda: has_map(place))
            if not is_away:
                app.execute("PRAGMA journal_mode=DELETE", "UPDATE t SET y = 2 WHERE x = 2")
                place.sync()
        if is_away:
            app.execute("PRAGMA journal_mode=DELETE", "UPDATE t SET y = 2 WHERE x = 2")
        with running(place.settings("app")):
            place.sync()
            assert restored(place) == path.read_bytes()
            app.execute("UPDATE t SET y = 3 WHERE x = 3")
            place.sync()
            assert restored(place) == path.read_bytes()


def test_a_database_is_encrypted_while_it_is_followed(place: Place) -> None:
    """No SQLite could apply the encrypted pages to a base that is not encrypted, so another generation begins."""
    path = place.database()
    with SqliteProcess(path, module="apsw") as app, running(place.settings("app")):
        app.execute(*TABLE, filled(50))
        place.sync()
        generation = place.row().generation
        app.execute("PRAGMA rekey='secret'")
        wait_for(lambda: place.row().generation not in {generation, None})
        for change in ("UPDATE t SET y = 1 WHERE x = 1", "PRAGMA journal_mode=WAL", "PRAGMA journal_mode=DELETE"):
            app.execute(change, "UPDATE t SET y = randomblob(9) WHERE x = 2")
            place.sync()
        assert restored(place) == path.read_bytes()
