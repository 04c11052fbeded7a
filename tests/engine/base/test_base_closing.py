"""Tests of walsyncd.engine.base.base_closing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.following import spec_of
from tests.engine.running import Place, restored_values, running
from walsyncd.core.follow.follow_state import FileFacts, FollowState, Stream
from walsyncd.core.stored.base import shape_of
from walsyncd.core.stored.position import Position
from walsyncd.engine.base.base_closing import close_base, is_closed
from walsyncd.engine.base.base_copy import AbandonedError, FinishedBase
from walsyncd.engine.base.base_plan import BasePlan
from walsyncd.engine.base.copy_queue import CopyQueue
from walsyncd.engine.content.scan_queue import ScanSteps
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.step import BaseReading, Belief
from walsyncd.engine.follow.wal_pairs import WalPairs
from walsyncd.engine.rollback.database_scans import DatabaseScans
from walsyncd.engine.rollback.page_scan import PageScan

G1 = "20261122T105600Z-00000001"


class Closing:
    """A base whose scans end when the test says so."""

    def __init__(self) -> None:
        self.done: Future[None] = Future()

    def close_base(self, _reading: object, _start: object, _then: object) -> Future[None]:
        return self.done


def database(path: Path, frame: int = 3, epoch: int = 1) -> FollowedDatabase:
    tracked = FollowedDatabase(spec_of(path), 1, WalPairs(path))
    tracked.resume(FollowState(Stream(G1, epoch, frame), None, epoch, frame, FileFacts(1, 2, 3, "boot"), "rollback"))
    return tracked


def a_base(row: Any = None) -> FinishedBase:
    return FinishedBase(row, BasePlan(G1, 1, 2, shape_of(4096), 1, 2, 3, "boot"), 10, "etag", ())


@pytest.mark.parametrize("outcome", ["closed", "cancelled", "no generation"])
def test_it_waits_for_the_scan_and_for_what_the_follower_did(tmp_path: Path, outcome: str) -> None:
    """The base waits for its scan and the follower. If the scan is given up, the base is abandoned."""
    tracked, scans = database(tmp_path / "app.db"), Closing()
    reading: Any = object()
    tracked.scans = scans  # type: ignore[assignment]
    asked: list[Callable[[FollowedDatabase], object]] = []
    steps = close_base(
        lambda _tracked, then: asked.append(then),
        tracked,
        a_base(),
        reading,
        lambda _tracked: None,
    )
    wait = next(steps)
    assert wait.holds(0.0)
    if outcome == "no generation":
        tracked.belief = Belief()
    asked[0](tracked)
    assert not wait.holds(0.0)
    if outcome == "no generation":
        with pytest.raises(AbandonedError):
            next(steps)
        return
    next(steps)
    if outcome == "closed":
        scans.done.set_result(None)
    else:
        scans.done.cancel()
    with pytest.raises(StopIteration if outcome == "closed" else AbandonedError):
        next(steps)


def test_where_a_base_is_the_database(tmp_path: Path) -> None:
    """Without a scan, a base equals the database only at the base's own start.

    With a scan, it equals the database anywhere in the epoch in which it began.
    """
    state, other = database(tmp_path / "app.db").state, database(tmp_path / "app.db", 0, 2).state
    start = database(tmp_path / "app.db", 2).state
    assert state is not None
    assert other is not None
    assert start is not None
    reading: Any = object()
    assert is_closed(a_base(), start, None)
    assert not is_closed(a_base(), state, None)
    assert is_closed(a_base(), state, reading)
    assert not is_closed(a_base(), other, reading)


@pytest.mark.parametrize("is_first", [True, False])
def test_a_stop_while_a_base_without_a_wal_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_first: bool
) -> None:
    """The snapshotter's thread ends before the scan that closes the base. The last look ships base and scan."""
    place = Place(tmp_path)
    is_closing, has_ended, is_noted = threading.Event(), threading.Event(), threading.Event()
    close_base, steps, run = DatabaseScans.close_base, PageScan.steps, CopyQueue.run

    def closed(
        self: DatabaseScans, reading: BaseReading, start: Position, then: Callable[[FollowedDatabase], object]
    ) -> Future[None]:
        is_closing.set()
        return close_base(self, reading, start, then)

    def late(self: PageScan) -> ScanSteps:
        if is_closing.is_set():
            assert has_ended.wait(60)
        yield from steps(self)

    def noted(self: CopyQueue) -> None:
        run(self)
        if is_noted.is_set():
            has_ended.set()

    monkeypatch.setattr(CopyQueue, "run", noted)
    monkeypatch.setattr(PageScan, "steps", late)
    with SqliteProcess(place.database()) as writer:
        writer.execute("create table t (x)", "insert into t values (1)")
        if not is_first:
            with running(place.settings("app")):
                place.sync()
        before = None if is_first else place.row().base_key
        monkeypatch.setattr(DatabaseScans, "close_base", closed)
        with running(place.settings("app")):
            is_noted.set()
            if not is_first:
                place.sync()
                place.ask(op="snapshot", name="app")
            assert is_closing.wait(60)
            writer.execute("insert into t values (2)")
    assert place.row().base_key != before
    assert restored_values(place) == [1, 2]
