"""Tests of states that last: no base can be taken, or one that is due has to wait. Each is reported with its cause."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.running import Place, change, restored_values, running, wait_for
from walsyncd.cli import main
from walsyncd.core.follow.follow_state import parse_follow_state
from walsyncd.core.limits import Limits
from walsyncd.engine.daemon.database_status import WAITS_TOLD_S


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("mode", ["memory", "off", "delete"])
def test_half_a_transaction_is_shipped_by_nobody(place: Place, capsys: pytest.CaptureFixture[str], mode: str) -> None:
    """A writer without a journal is known by its lock. If its transaction takes long, the database is degraded."""
    path = place.database()
    with SqliteProcess(path) as writer:
        writer.execute(f"pragma journal_mode = {mode}", "create table t (x)", "pragma cache_size = 2", "begin")
        # the cache spills to the database
        writer.execute(*[f"insert into t values ({number * 10**9})" for number in range(3000)])
        with running(place.settings("app"), limits=Limits(busy_file_s=0.2)):
            wait_for(lambda: place.row().state == "degraded")
            assert "a writer is in the middle of a transaction" in place.row().cause
            assert place.row().base_key is None
            assert main(["status", *place.config(), "--max-lag", "10ms"]) == 1
            assert "app is behind by" in capsys.readouterr().err
            writer.execute("commit")
            place.sync()
            if mode == "delete":
                wait_for(lambda: place.row().state == "following")
            else:  # the base is stored, and status says what a crash would do to the file
                wait_for(lambda: "journal_mode MEMORY or OFF" in place.row().cause)
    assert len(restored_values(place)) == 3000


def test_lag_of_a_database_without_a_wal_is_the_age_of_what_is_not_shipped(place: Place) -> None:
    """The lag grows while a writer holds the file, and ends with the next scan."""
    path = place.database()

    def behind_s() -> float:
        (row,) = place.ask(op="status")["databases"]
        return max(float(row["unseen_s"]), float(row["unbased_s"]))

    with SqliteProcess(path) as writer, running(place.settings("app")):
        writer.execute("create table t (x)", "insert into t values (1)")
        place.sync()
        wait_for(lambda: behind_s() == 0)
        writer.execute("pragma locking_mode = exclusive", "insert into t values (2)")
        wait_for(lambda: behind_s() > 0.5)
        writer.execute("pragma locking_mode = normal", "select * from t")
        place.sync()
        wait_for(lambda: behind_s() == 0)
    assert restored_values(place) == [1, 2]


def commit_without_restart(place: Place, writer: SqliteProcess) -> None:
    """Commit more than an epoch, in a WAL that is not restarted."""
    place.sync()
    writer.execute("PRAGMA wal_autocheckpoint = 0")
    for number in range(40):
        writer.execute(f"insert into t values ({number})")
        place.ask(op="sync", names=["app"])
    place.sync()


def test_lag_counts_from_before_the_daemons_start(place: Place) -> None:
    """What was committed while no daemon ran is as old as the file's time says."""
    path = place.database()

    def unseen_s() -> float:
        (row,) = place.ask(op="status")["databases"]
        return float(row["unseen_s"])

    with SqliteProcess(path) as writer:
        writer.execute("create table t (x)", "insert into t values (1)")
        with running(place.settings("app")):
            place.sync()
            wait_for(lambda: parse_follow_state(place.row().follow or "").file.known)
        writer.execute("pragma locking_mode = exclusive", "insert into t values (2)")
        committed_s = time.monotonic()
        time.sleep(1.5)
        with running(place.settings("app")):

            def is_as_old() -> bool:
                age_s = time.monotonic() - committed_s
                return unseen_s() > age_s - 0.2  # the file's times are those of the last clock tick

            wait_for(is_as_old)
            writer.execute("pragma locking_mode = normal", "select * from t")
            place.sync()
            wait_for(lambda: unseen_s() == 0)


def test_a_base_that_waits_for_the_wal_says_so(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """If the WAL's pages have no room in the spool, commands say what the base waits for, and what ends that."""
    with (
        wal_database(place.database()) as writer,
        running(place.settings("app"), limits=Limits(epoch_bytes=10_000, spool_share=1 << 40)) as daemon,
    ):
        commit_without_restart(place, writer)
        assert main(["snapshot", *place.config(), "app", "--timeout", "300ms"]) == 1
        assert "(let the application checkpoint" in capsys.readouterr().err
        wait_for(lambda: place.ask(op="status")["databases"][0]["base_hindrance"])
        assert main(["snapshot", *place.config(), "app", "--timeout", "300ms"]) == 1
        assert "waits for the WAL to restart" in capsys.readouterr().err
        long_ago_s = time.monotonic() - WAITS_TOLD_S - 60.0
        daemon.follower.interrupt(daemon.databases[0], lambda tracked: tracked.note_base(waits_since_s=long_ago_s))
        wait_for(lambda: place.ask(op="status")["databases"][0]["base_waits_s"] > WAITS_TOLD_S)
        assert main(["status", *place.config()]) == 0
        assert "wal_checkpoint(TRUNCATE)" in capsys.readouterr().out
        (row,) = place.ask(op="status")["databases"]
        assert row["base_waits_s"] > 0
        assert main(["check", *place.config()]) == 1
        out = capsys.readouterr().out
        assert f"problem database {place.database()}: the daemon says: a base has been due for" in out
        assert out.count("wal_checkpoint(TRUNCATE)") == 1
        writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        writer.execute("insert into t values (41)")
        assert main(["snapshot", *place.config(), "app", "--timeout", "60s"]) == 0
        wait_for(lambda: place.ask(op="status")["databases"][0]["base_waits_s"] == 0)


def test_a_wal_that_never_restarts_gets_its_bases(place: Place) -> None:
    """`snapshot` succeeds again and again, also after a restart of the daemon. Nothing older is needed after that."""
    with wal_database(place.database()) as writer:
        for count in (1, 2):
            with running(place.settings("app"), limits=Limits(epoch_bytes=10_000)):
                commit_without_restart(place, writer)
                assert main(["snapshot", *place.config(), "app", "--timeout", "60s"]) == 0
                (row,) = place.ask(op="status")["databases"]
                assert row["base_waits_s"] == 0
                assert row["wal_bytes"] > count * 40 * 4096
                writer.execute("insert into t values (99)")
                place.sync()
            base_key = place.row().base_key
            assert base_key is not None
            generation, name = base_key.split("/base/")
            pruned = Place(place.folder / f"pruned {count}")
            shutil.copytree(place.replica, pruned.replica)
            older = [
                epoch
                for epoch in (pruned.replica / "app" / generation / "wal").iterdir()
                if int(epoch.name, 16) < int(name[:8], 16)
            ]
            assert len(older) > 2 * count
            for epoch in older:
                shutil.rmtree(epoch)
            assert len(restored_values(pruned)) == 1 + count * 41


def takes_a_base_that_begins_an_epoch(place: Place, writer: SqliteProcess) -> None:
    """Take a base. The WAL never restarts, so what it holds is stored again for the base."""
    place.sync()
    writer.execute("PRAGMA wal_autocheckpoint = 0", "create table blob (x)")
    for _ in range(10):  # more than an epoch
        writer.execute("insert into blob values (randomblob(20000))")
        place.sync()
    assert main(["snapshot", *place.config(), "app", "--timeout", "60s"]) == 0


def test_what_is_stored_again_for_a_base_asks_for_no_other_base(place: Place) -> None:
    """A file into which nothing was ever copied is tiny, but its WAL's pages are not.

    These pages count as the base's.
    """
    limits = Limits(epoch_bytes=10_000)
    with wal_database(place.database()) as writer, running(place.settings("app"), limits=limits):
        takes_a_base_that_begins_an_epoch(place, writer)
        first = place.row().base_key
        change(limits, base_work_bytes=1_000, base_work_pause_s=0.0)
        for _ in range(20):
            writer.execute("insert into blob values (randomblob(1000))")
            place.sync()
        assert place.row().base_key == first


def test_what_was_stored_again_counts_as_the_bases_after_a_restart(place: Place) -> None:
    """The journal has the count, so a daemon that starts again takes no unnecessary base."""
    limits = Limits(epoch_bytes=10_000)
    with wal_database(place.database()) as writer:
        with running(place.settings("app"), limits=limits):
            takes_a_base_that_begins_an_epoch(place, writer)
        first = place.row().base_key
        small = Limits(base_work_bytes=1_000, base_work_pause_s=0.0)
        with running(place.settings("app"), limits=small) as daemon:
            for _ in range(20):
                writer.execute("insert into blob values (randomblob(1000))")
                place.sync()
            (tracked,) = daemon.databases
            assert not daemon._destinations.of(tracked.row_id).snapshotter.is_due(tracked)
        assert place.row().base_key == first
