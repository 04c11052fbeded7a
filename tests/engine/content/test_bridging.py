"""Tests of gaps in a whole daemon: they are bridged, the generation continues, and restores are exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.running import Place, running, wait_for
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.core.limits import Limits
from walsyncd.core.restore.plan import Head
from walsyncd.engine.content.bridge_body import BridgeBody
from walsyncd.engine.restore.replica import Replica
from walsyncd.engine.restore.restorer import find_plan, restore


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def filled(path: Path, rows: int) -> SqliteProcess:
    """Run an application with a database in WAL mode."""
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {rows - 1})"
    app = SqliteProcess(path)
    app.execute("PRAGMA journal_mode = WAL", "CREATE TABLE t (x, y)")
    app.execute(f"INSERT INTO t {numbers} SELECT i, zeroblob(3000) FROM n")
    return app


def has_map(place: Place) -> bool:
    with place.journal() as journal:
        (row,) = journal.databases()
        return journal.page_map(row.id) is not None and row.has_base


def restored(place: Place, name: str = "restored.db") -> Path:
    target = place.folder / name
    target.unlink(missing_ok=True)
    replica = Replica(DirectoryStorage(place.replica), "app")
    restore(replica, find_plan(replica, Head()), target)
    return target


def same_content(live: Path, copy: Path) -> None:
    """Return whether the files are equal, byte for byte, once the live one is closed and so checkpointed."""
    assert copy.read_bytes() == live.read_bytes()


def test_a_gap_is_bridged(place: Place) -> None:
    """The WAL restarted several times while the daemon was away.

    The generation stays, the restore is exact, and few pages are stored.
    """
    path = place.database()
    with filled(path, 500) as app:
        with running(place.settings("app")):
            place.sync()
            wait_for(lambda: has_map(place))
            generation = place.row().generation
        for number in range(5):
            app.execute(f"UPDATE t SET y = randomblob(3000) WHERE x % 100 = {number}")
            app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        app.execute("INSERT INTO t VALUES (1000, 'after')")
        with running(place.settings("app")):
            place.sync()
            app.execute("INSERT INTO t VALUES (1001, 'later')")
            place.sync()
            assert place.row().generation == generation
            bridges = list(place.replica.rglob("*.bridge.wal.zst"))
            assert len(bridges) == 1
        app.close()
    same_content(path, restored(place))


def test_a_fault_in_a_scan_costs_a_try_and_not_the_daemon(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any exception while a gap is bridged has it tried again, and the daemon continues."""
    path = place.database()
    with filled(path, 200) as app:
        with running(place.settings("app")):
            place.sync()
            wait_for(lambda: has_map(place))
            generation = place.row().generation
        for _ in range(3):
            app.execute("UPDATE t SET y = randomblob(3000) WHERE x < 3")
            app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        app.execute("INSERT INTO t VALUES (1000, 'after')")
        faults = iter([ZeroDivisionError("once")])
        take = BridgeBody.take_differing

        def fails_once(*arguments: Any) -> None:
            for fault in faults:
                raise fault
            take(*arguments)

        monkeypatch.setattr(BridgeBody, "take_differing", fails_once)
        with running(place.settings("app"), limits=Limits(bridge_retry_s=0.0)):
            place.sync()
            assert place.row().generation == generation
        app.close()
    same_content(path, restored(place))
