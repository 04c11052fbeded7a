"""Tests of walsyncd.engine.rollback.scanning."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.rollback.rollback_replicas import TABLE, filled, restored
from tests.engine.running import WAIT_S_MAX, Place, running, wait_for
from walsyncd.core.follow.follow_state import FileFacts, FollowState, Stream
from walsyncd.core.follow.gap import GapKind
from walsyncd.core.restore.plan import AtPosition
from walsyncd.core.stored.layout import SegmentKey, WholeKey, parse_key
from walsyncd.core.stored.position import Position
from walsyncd.engine.base.base_copy import FinishedBase
from walsyncd.engine.base.base_origin import BaseOrigin
from walsyncd.engine.base.snapshotter import Snapshotter
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.step import CommittedScan
from walsyncd.engine.rollback.committed_moment import Hindrance
from walsyncd.engine.rollback.database_scans import DatabaseScans
from walsyncd.engine.rollback.page_scan import ScanResult
from walsyncd.engine.rollback.scanning import after_scan, gap_of


@pytest.mark.parametrize("hindrance", [*Hindrance, None])
def test_only_what_the_database_has_become_is_a_gap(hindrance: Hindrance | None) -> None:
    """A writer, a journal or a change is waited for."""
    gap = gap_of(hindrance)
    assert (gap is not None) == (hindrance in {Hindrance.WAL, Hindrance.PAGE_SIZE, Hindrance.UNREADABLE})
    assert gap is None or gap.kind is GapKind.CHANGED


def test_a_base_may_begin_where_a_scan_left() -> None:
    """The file holds everything that was shipped, so the next base begins at that position."""
    facts = FileFacts(1, 2, 3, "boot", size=4096, mtime_ns=5, ctime_ns=6)
    stream = Stream("20261122T105600Z-00000001", epoch=3, frame=8)
    found = ScanResult(None, 0.1, 4096, None, stream, facts, CommittedScan(1, 0, 2.0, 3))
    state = after_scan(FollowState(Stream(stream.generation), None, 1, 0, facts.unknown(), "rollback"), found)
    assert state.start == stream.position
    assert (state.cursor, state.mode, state.file) == (None, "rollback", facts)


@pytest.mark.parametrize("is_noticed", [False, True])
def test_a_base_is_given_up_if_the_map_is_lost_before_it_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_noticed: bool
) -> None:
    """What was shipped since the base began is in no map then, and what the base took does not show it undone."""
    place = Place(tmp_path)
    path, app = place.database(), SqliteProcess(place.database())
    is_copied, may_close = threading.Event(), threading.Event()
    publish, close_base = Snapshotter._publish, DatabaseScans.close_base
    states: list[bytes] = []

    def execute(*statements: str) -> None:
        app.execute(*statements)
        states.append(path.read_bytes())

    def publish_later(self: Snapshotter, tracked: FollowedDatabase, base: FinishedBase, origin: BaseOrigin) -> Any:
        monkeypatch.setattr(Snapshotter, "_publish", publish)
        is_copied.set()
        assert may_close.wait(WAIT_S_MAX)
        yield from publish(self, tracked, base, origin)

    def close_without_map(self: DatabaseScans, *arguments: Any) -> Any:
        monkeypatch.setattr(DatabaseScans, "close_base", close_base)
        execute("UPDATE t SET y = zeroblob(3000) WHERE x = 20")  # as the base has it
        for file in (place.state / "maps").glob("*.map"):
            file.unlink()
        assert not is_noticed or self._tools.maps.open(self._tracked.row_id) is None
        return close_base(self, *arguments)

    with app, running(place.settings("app")):
        execute(*TABLE, filled(60), "UPDATE t SET y = zeroblob(3000) WHERE x = 20")
        place.sync()
        execute("UPDATE t SET y = randomblob(3000) WHERE x = 40")
        place.sync()
        monkeypatch.setattr(Snapshotter, "_publish", publish_later)
        monkeypatch.setattr(DatabaseScans, "close_base", close_without_map)
        place.ask(op="snapshot", name="app")
        assert is_copied.wait(WAIT_S_MAX)
        execute("UPDATE t SET y = randomblob(3000) WHERE x = 20")
        wait_for(lambda: restored(place) == states[-1])
        may_close.set()
        wait_for(lambda: DatabaseScans.close_base is close_base)
        place.sync()
        assert restored(place) == states[-1]
        for file in sorted((place.replica / "app").rglob("*.wal.zst")):
            key = parse_key(str(file.relative_to(place.replica / "app")))
            assert isinstance(key, SegmentKey | WholeKey)
            position = Position(key.generation, key.epoch, key.last)
            assert restored(place, target=AtPosition(position)) in states, f"{position} is no state of the database"
