"""Tests of bridges into rollback mode: what they say, and that the other mode takes over."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.rollback.rollback_replicas import TABLE, filled, objects, restored
from tests.engine.running import Place, running, wait_for
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.core.stored.layout import SegmentKey, parse_key
from walsyncd.engine.restore.bridge_reader import read_bridge
from walsyncd.engine.restore.replica import Replica


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_it_waits_for_a_committed_moment(place: Place) -> None:
    """A writer has spilled when the WAL is deleted, so the bridge is made after the writer's rollback."""
    path = place.database()
    with SqliteProcess(path) as app, running(place.settings("app")):
        app.execute("PRAGMA journal_mode=WAL", *TABLE, filled(300))
        place.sync()
        with place.journal() as journal:
            wait_for(lambda: journal.page_map(journal.databases()[0].id) is not None)
        generation = place.row().generation
        app.execute("PRAGMA journal_mode=DELETE", "PRAGMA cache_size=3", "BEGIN", "UPDATE t SET y = zeroblob(3000)")
        wait_for(lambda: place.row().state == "degraded")
        assert not objects(place, "*.bridge.wal.zst")
        app.execute("ROLLBACK")
        place.sync()
        assert place.row().generation == generation
        assert len(objects(place, "*.bridge.wal.zst")) == 1
        assert restored(place) == path.read_bytes()


def test_it_says_what_was_missed(place: Place) -> None:
    """The bridge has the old position and the reason."""
    path = place.database()
    with SqliteProcess(path) as app, running(place.settings("app")):
        app.execute(*TABLE, filled(20))
        place.sync()
        old = path.read_bytes()
        app.execute("PRAGMA journal_mode=WAL", "PRAGMA journal_mode=DELETE", "UPDATE t SET y = 1 WHERE x = 1")
        place.sync()
        assert restored(place) == path.read_bytes() != old
        folder = place.replica / "app"
        for path_of_bridge in folder.rglob("*.bridge.wal.zst"):
            key = parse_key(str(path_of_bridge.relative_to(folder)))
            assert isinstance(key, SegmentKey)
            span = read_bridge(Replica(DirectoryStorage(place.replica), "app"), key).span
            assert "WAL" in span.reason or "written" in span.reason or "changed" in span.reason
            assert (span.epoch, span.frame) < (key.epoch, key.first)
