"""Tests of databases in rollback mode in a whole daemon: what changed is shipped, and restores are exact."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import apsw
import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.rollback.rollback_replicas import TABLE, filled, objects, restored
from tests.engine.running import Place, running, wait_for
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.cli import main
from walsyncd.core.limits import Limits
from walsyncd.core.restore.plan import AtPosition
from walsyncd.core.stored.position import parse_position
from walsyncd.engine.restore.read_replica import ReadReplica
from walsyncd.engine.restore.replica import Replica
from walsyncd.engine.restore.restorer import RestoreOptions
from walsyncd.engine.rollback import database_scans
from walsyncd.engine.rollback.committed_moment import FileLooks, Hindrance, MomentStart, begin_moment
from walsyncd.engine.rollback.database_scans import again_in_s
from walsyncd.engine.rollback.page_scan import ScanResult
from walsyncd.engine.rollback.scanning import Scanning

MODES = ["DELETE", "TRUNCATE", "PERSIST", "MEMORY", "OFF"]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_each_change_is_one_transaction_of_the_same_generation(place: Place, mode: str, page_size: int) -> None:
    """There are updates, growth, shrinking and VACUUM. Every state that was synced can be restored, byte for byte."""
    path = place.database()
    states: dict[str, bytes] = {}
    with SqliteProcess(path) as app, running(place.settings("app")):
        app.execute(f"PRAGMA page_size={page_size}", f"PRAGMA journal_mode={mode}", *TABLE, filled(60))
        place.sync()
        generation = place.row().generation
        for change in (
            "UPDATE t SET y = randomblob(3000) WHERE x % 20 = 1",
            filled(60, 5000),
            "DELETE FROM t WHERE x > 30",
            "VACUUM",
            "PRAGMA user_version = 7",
        ):
            app.execute(change)
            states[place.sync()] = path.read_bytes()
            assert restored(place) == path.read_bytes()
        assert place.row().generation == generation
        assert len(objects(place, "*.db.zst")) == 1
        for position, content in states.items():
            assert restored(place, target=AtPosition(parse_position(position))) == content


def test_what_did_not_change_is_not_stored_again(place: Place) -> None:
    """A commit in a database of some megabytes stores only its own pages."""
    path = place.database()
    with SqliteProcess(path) as app, running(place.settings("app")):
        app.execute(*TABLE, filled(2000))
        place.sync()
        before = place.row().bucket_bytes
        for number in range(5):
            app.execute(f"UPDATE t SET y = randomblob(3000) WHERE x = {100 * number + 1}")
            place.sync()
        assert place.row().bucket_bytes - before < 5 * 20_000
        assert restored(place) == path.read_bytes()


def test_a_scan_of_another_file_is_not_taken(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file was replaced between the look that ordered the scan and the scan's opening of it, so there is a gap."""
    path = place.database()
    taken: list[ScanResult] = []
    original = Scanning.take

    def take(scanning: Scanning) -> ScanResult:
        found = original(scanning)
        if found.committed is None or found.committed.facts is None or taken:
            return found
        facts = replace(found.committed.facts, inode=found.committed.facts.inode + 1)
        taken.append(replace(found, committed=replace(found.committed, facts=facts)))
        return taken[0]

    with SqliteProcess(path) as app, running(place.settings("app")):
        app.execute(*TABLE, filled(10))
        place.sync()
        monkeypatch.setattr(Scanning, "take", take)
        app.execute("UPDATE t SET y = 1 WHERE x = 5")
        place.sync()
        assert taken
        assert taken[0].new is not None
        assert objects(place, "*.bridge.wal.zst")
        assert restored(place) == path.read_bytes()


def test_a_restart_of_the_daemon_scans_and_goes_on(place: Place) -> None:
    """What was committed meanwhile is one transaction, in the same generation, without another base."""
    path = place.database()
    with SqliteProcess(path) as app:
        app.execute(*TABLE, filled(100))
        with running(place.settings("app")):
            place.sync()
            generation = place.row().generation
        app.execute("UPDATE t SET y = 1 WHERE x = 5", "UPDATE t SET y = 1 WHERE x = 50")
        with running(place.settings("app")):
            place.sync()
            assert place.row().generation == generation
            assert len(objects(place, "*.db.zst")) == 1
    assert restored(place) == path.read_bytes()


def test_a_spilled_and_rolled_back_transaction_ships_no_mixture(place: Place) -> None:
    """While it is open nothing is shipped. After the rollback the database is as it was."""
    path = place.database()
    with SqliteProcess(path) as app, running(place.settings("app")):
        app.execute(*TABLE, filled(200))
        place.sync()
        content = restored(place)
        app.execute("PRAGMA cache_size=3", "BEGIN", "UPDATE t SET y = randomblob(3000)")
        assert path.read_bytes() != content
        app.execute("ROLLBACK")
        place.sync()
        assert restored(place) == path.read_bytes()


def test_a_hot_journal_is_reported_and_waited_for(place: Place) -> None:
    """A writer is killed in the middle. Nothing is shipped until somebody has opened the database."""
    path = place.database()
    with running(place.settings("app")):
        with SqliteProcess(path) as app:
            app.execute(*TABLE, filled(200))
            place.sync()
            app.execute("PRAGMA cache_size=3", "BEGIN", "UPDATE t SET y = randomblob(3000)")
            app.kill()
        wait_for(lambda: "journal waits to be played back" in place.row().cause)
        assert place.row().state == "degraded"
        assert "sqlite3" in place.row().remedy
        with SqliteProcess(path) as other:
            other.execute("SELECT count(*) FROM t", "UPDATE t SET y = 3 WHERE x = 3")
            place.sync()
            wait_for(lambda: place.row().state == "following")
            assert restored(place) == path.read_bytes()


def test_an_exclusive_holder_is_reported_once_it_lasts(place: Place) -> None:
    """Nothing can be proven while a process holds the file exclusively. When that ends, everything is shipped."""
    path = place.database()
    with SqliteProcess(path) as app, running(place.settings("app"), limits=Limits(busy_file_s=0.5)):
        app.execute(*TABLE, filled(20))
        place.sync()
        app.execute("PRAGMA locking_mode=EXCLUSIVE", "UPDATE t SET y = 1 WHERE x = 1")
        wait_for(lambda: "in the middle of a transaction" in place.row().cause)
        assert "locking_mode" in place.row().remedy
        app.execute("PRAGMA locking_mode=NORMAL", "SELECT * FROM t LIMIT 1")
        place.sync()
        assert restored(place) == path.read_bytes()


def test_a_lock_that_stays_is_reported_when_it_is_time() -> None:
    """The lock is reported in time, however long the pause until the next scan is."""
    assert again_in_s(9.0, Hindrance.WRITER, 4.0) == 4.0
    assert again_in_s(2.0, Hindrance.WRITER, 4.0) == 2.0
    assert again_in_s(9.0, Hindrance.WRITER, -1.0) == 9.0
    assert again_in_s(9.0, None, 4.0) == 9.0


def test_a_base_is_taken_while_the_database_is_written(place: Place) -> None:
    """A base needs no quiet time, because the scan that closes the base ships the changes that the base lacks."""
    path = place.database()
    with SqliteProcess(path) as app, running(place.settings("app")):
        app.execute(*TABLE, filled(100))
        place.sync()
        app.execute("UPDATE t SET y = randomblob(3000) WHERE x < 30")
        position = place.sync()
        answer = place.ask(op="snapshot", name="app")
        assert "error" not in answer, json.dumps(dict(answer))
        app.execute("UPDATE t SET y = randomblob(3000) WHERE x > 60")
        wait_for(lambda: len(objects(place, "*.json.zst")) == 2)
        place.sync()
        assert place.row().generation == position.split("/")[0]
        assert restored(place) == path.read_bytes()


def test_a_base_of_many_parts_is_closed_too(place: Place) -> None:
    """Ranges that do not fit a part are read again before they count as copied."""
    path = place.database()
    with SqliteProcess(path) as app, running(place.settings("app")):
        app.execute("PRAGMA page_size=8192", *TABLE, filled(7000))
        place.sync()
        app.execute("UPDATE t SET y = randomblob(3000) WHERE x % 1000 = 1")
        place.sync()
        assert restored(place) == path.read_bytes()
        assert len(objects(place, "*.db.zst")) == 1


def test_an_idle_database_is_not_read(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its last change nothing scans it. Transactions that write nothing are no change."""
    path = place.database()
    with SqliteProcess(path) as app, running(place.settings("app")):
        app.execute(*TABLE, filled(20))
        place.sync()
        scans: list[object] = []
        monkeypatch.setattr("walsyncd.engine.rollback.page_scan.PageScan.steps", scans.append)
        for _ in range(3):
            app.execute("BEGIN IMMEDIATE", "COMMIT", "SELECT count(*) FROM t")
            place.sync()
        assert not scans


@pytest.mark.parametrize("mode", ["MEMORY", "OFF"])
def test_a_database_without_a_journal_is_reported_for_what_a_crash_does_to_it(place: Place, mode: str) -> None:
    """Each state is shipped. The state of the database is degraded until a change comes with a journal."""
    path = place.database()
    with SqliteProcess(path) as app, running(place.settings("app")):
        app.execute(*TABLE, filled(20))
        place.sync()
        app.execute(f"PRAGMA journal_mode={mode}", "UPDATE t SET y = 1 WHERE x = 1")
        place.sync()
        wait_for(lambda: "journal_mode MEMORY or OFF" in place.row().cause)
        assert restored(place) == path.read_bytes()
        app.execute("PRAGMA journal_mode=DELETE", "UPDATE t SET y = 2 WHERE x = 1")
        place.sync()
        wait_for(lambda: place.row().state == "following")


def test_the_first_base_shows_a_writer_without_a_journal(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The base begins in the middle of the writer's transaction, before the first look has noted anything."""
    monkeypatch.setattr(database_scans.DatabaseScans, "note_known", lambda *_: None)
    path = place.database()
    with SqliteProcess(path) as app:
        app.execute("PRAGMA journal_mode=MEMORY", *TABLE, filled(200))
        app.execute("PRAGMA cache_size=3", "BEGIN", "UPDATE t SET y = randomblob(3000)")
        with running(place.settings("app"), limits=Limits(busy_file_s=0.0)):
            wait_for(lambda: "a writer is in the middle of a transaction" in place.row().cause)
            app.execute("COMMIT")
            place.sync()
            wait_for(lambda: "journal_mode MEMORY or OFF" in place.row().cause)
    assert restored(place) == path.read_bytes()


@pytest.mark.parametrize("mode", ["DELETE", "TRUNCATE", "PERSIST"])
def test_journals_are_seen(place: Place, mode: str) -> None:
    """No mode with a journal is mistaken for a mode without one, however the transactions come."""
    path = place.database()
    with SqliteProcess(path) as app, running(place.settings("app")):
        app.execute(f"PRAGMA journal_mode={mode}", *TABLE, filled(20))
        for number in range(15):
            app.execute(f"UPDATE t SET y = {number} WHERE x = {number}", "BEGIN IMMEDIATE", "COMMIT")
            app.execute("BEGIN", f"UPDATE t SET y = 'x' WHERE x = {number}")
            place.sync()
            app.execute("COMMIT", "VACUUM")
            place.sync()
            assert place.row().state in {"following", "copying base"}, place.row().cause


def test_how_it_is_followed_is_said(place: Place) -> None:
    """Status says that the database is followed by its WAL, or by its pages, with the reason."""
    path = place.database()
    with SqliteProcess(path) as app, running(place.settings("app")):
        app.execute(*TABLE, filled(20))
        place.sync()
        (row,) = place.ask(op="status")["databases"]
        assert "by its pages, because its journal mode is not WAL" in row["followed"]
        app.execute("PRAGMA journal_mode=WAL", "UPDATE t SET y = 2 WHERE x = 1")
        place.sync()
        (row,) = place.ask(op="status")["databases"]
        assert row["followed"].startswith("by its WAL")


def test_an_encrypted_file_is_said_to_be_copied_whole(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """The message has a remedy, which is true: in WAL mode its commits are shipped."""
    if not hasattr(apsw, "mc_version"):
        pytest.skip("another apsw than that of apsw-sqlite3mc is installed")
    with SqliteProcess(place.database(), module="apsw") as app, running(place.settings("app")):
        app.execute("PRAGMA cipher = 'aes256cbc'", "PRAGMA key = 'a key'", *TABLE, filled(20))
        place.sync()
        assert main(["status", *place.config()]) == 0
        assert "all of the file is copied when it has changed, and rests after that" in capsys.readouterr().out
        app.execute("PRAGMA journal_mode=WAL", "UPDATE t SET y = 2 WHERE x = 1")
        place.sync()
        assert main(["status", *place.config()]) == 0
        assert "all of the file" not in capsys.readouterr().out


def test_a_copy_for_readers_follows_each_state(place: Place) -> None:
    """`restore --follow` of a source in rollback mode has what was synced, page by page, except for the copy's own
    mode.
    """
    path, copy = place.database(), place.folder / "copy.db"
    with SqliteProcess(path) as app, running(place.settings("app")):
        app.execute(*TABLE, filled(60))
        place.sync()
        reader = ReadReplica(Replica(DirectoryStorage(place.replica), "app"), copy, RestoreOptions())
        with closing(reader):
            reader.look()
            for change in ("UPDATE t SET y = 1 WHERE x < 9", "DELETE FROM t WHERE x > 30", "VACUUM", filled(90)):
                app.execute(change)
                place.sync()
                reader.look()
                with closing(sqlite3.connect(copy)) as connection:
                    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                    copied = connection.execute("SELECT x, hex(y) FROM t").fetchall()
                assert [list(row) for row in copied] == app.execute("SELECT x, hex(y) FROM t")


@pytest.mark.parametrize("size", [0, 50, 4096 * 8])
def test_a_file_that_was_cut_is_reported_until_it_is_filled_again(
    place: Place, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then nothing is shipped, and the file is not scanned again and again. Then the generation continues."""
    path = place.database()
    with SqliteProcess(path) as app:
        app.execute(*TABLE, filled(20))
    content = path.read_bytes()
    scans: list[object] = []

    def begin(looks: FileLooks) -> MomentStart | Hindrance:
        scans.append(looks)
        return begin_moment(looks)

    with running(place.settings("app")):
        place.sync()
        generation = place.row().generation
        monkeypatch.setattr("walsyncd.engine.rollback.page_scan.begin_moment", begin)
        os.truncate(path, size)
        wait_for(lambda: "the file is" in place.row().cause)
        assert place.row().state == "degraded"
        time.sleep(2)
        assert 1 <= len(scans) < 30
        assert restored(place) == content
        os.truncate(path, 0)
        with SqliteProcess(path) as app:
            app.execute(*TABLE, filled(30))
            place.sync()
        assert place.row().generation == generation
    assert restored(place) == path.read_bytes()
