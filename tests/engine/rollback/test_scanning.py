"""Tests of walsyncd.engine.rollback.scanning."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.rollback.rollback_replicas import TABLE, filled, objects, restored
from tests.engine.running import WAIT_S_MAX, Place, running, wait_for
from walsyncd.adapters.journal.journal import ObjectKind
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.core.follow.follow_state import FileFacts, FollowState, Stream
from walsyncd.core.follow.gap import GapKind
from walsyncd.core.restore.plan import AtPosition
from walsyncd.core.stored.layout import SegmentKey, WholeKey, parse_key
from walsyncd.core.stored.position import Position
from walsyncd.engine.base.base_copy import FinishedBase
from walsyncd.engine.base.base_origin import BaseOrigin
from walsyncd.engine.base.snapshotter import Snapshotter
from walsyncd.engine.content.bridge_body import BridgeImpossibleError
from walsyncd.engine.content.scan_queue import ScanSteps, ScanWait
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.step import CommittedScan, Step
from walsyncd.engine.rollback.committed_moment import Hindrance
from walsyncd.engine.rollback.database_scans import DatabaseScans
from walsyncd.engine.rollback.page_scan import ScanResult
from walsyncd.engine.rollback.pages_to_read import AllPages
from walsyncd.engine.rollback.scanning import Scanning, after_scan, gap_of
from walsyncd.errors import TransientError


@pytest.mark.parametrize("hindrance", [*Hindrance, None])
def test_only_what_the_database_has_become_is_a_gap(hindrance: Hindrance | None) -> None:
    """For a writer, a journal or a change, the scan waits."""
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


@pytest.mark.parametrize(("has_map", "other"), [(True, True), (True, False), (False, False)])
def test_what_a_base_took_is_no_map_where_one_was_lost(*, has_map: bool, other: bool) -> None:
    """Only the map has what was shipped since the base began."""
    fake: Any = SimpleNamespace(row_id=1, maps=SimpleNamespace(open=lambda _row_id: None))
    opened = Scanning(fake, fake)._opener(Stream("20261122T105600Z-00000001"), fake if other else None, has_map=has_map)
    with pytest.raises(BridgeImpossibleError):
        opened(0)


@pytest.mark.parametrize("waits", [0, 1])
def test_a_short_scan_is_over_when_it_was_ordered(monkeypatch: pytest.MonkeyPatch, waits: int) -> None:
    """The scan's first step is taken at once, and wakes nobody. The scan thread takes the steps that are left."""

    class Short:
        def __init__(
            self, _environment: Any, _order: Any, answer: Future[ScanResult], done: Callable[[], None]
        ) -> None:
            self.answer, self.done = answer, done

        def steps(self) -> ScanSteps:
            for _ in range(waits):
                yield ScanWait()
            self.answer.set_result(ScanResult(Hindrance.WRITER, 0.0, 0))
            self.done()

    woken: list[int] = []
    fake: Any = SimpleNamespace(row_id=1, mailbox=SimpleNamespace(ticket=int))
    fake.schedule = SimpleNamespace(at=lambda *_: woken.append(1))
    fake.environment, fake.queue = None, SimpleNamespace(add=lambda steps, urgent: left.append(steps))
    left: list[ScanSteps] = []
    monkeypatch.setattr("walsyncd.engine.rollback.scanning.PageScan", Short)
    scanning = Scanning(fake, fake)
    scanning.begin(Stream("20261122T105600Z-00000001"), 4096, AllPages(), is_short=True)
    assert (scanning.is_done, len(left), woken) == (not waits, waits, [])
    for steps in left:
        assert list(steps) == []
    assert (scanning.is_done, len(woken)) == (True, waits)


def test_the_follower_opens_no_map_that_the_scan_thread_has_to_open() -> None:
    """The follower asks what can be read, and leaves the scan to the scan thread if nothing can."""
    fake: Any = SimpleNamespace(row_id=1, maps=SimpleNamespace(peek=lambda _row_id: None))
    scanning = Scanning(fake, fake)
    scanning._is_here = True
    assert scanning._opener(Stream("20261122T105600Z-00000001"), None, has_map=True)(0) is None


@pytest.mark.parametrize("is_noticed", [False, True])
def test_a_base_is_given_up_if_the_map_is_lost_before_it_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_noticed: bool
) -> None:
    """Without the map nothing has what was shipped since the base began, and the base does not show whether it was
    undone.
    """
    place = Place(tmp_path)
    path, app = place.database(), SqliteProcess(place.database())
    is_copied, may_close = threading.Event(), threading.Event()
    publish, close_base, step = Snapshotter._publish, DatabaseScans.close_base, DatabaseScans.step
    states: list[bytes] = []

    def execute(*statements: str) -> None:
        app.execute(*statements)
        states.append(path.read_bytes())

    def publish_later(self: Snapshotter, tracked: FollowedDatabase, base: FinishedBase, origin: BaseOrigin) -> Any:
        monkeypatch.setattr(Snapshotter, "_publish", publish)
        is_copied.set()
        assert may_close.wait(WAIT_S_MAX)
        yield from publish(self, tracked, base, origin)

    def close_after_commit(self: DatabaseScans, *arguments: Any) -> Any:
        monkeypatch.setattr(DatabaseScans, "step", step_without_map)
        monkeypatch.setattr(DatabaseScans, "close_base", close_base)
        monkeypatch.setattr(Scanning, "wait_s", lambda *_arguments, **_named: 0.0)
        execute("UPDATE t SET y = zeroblob(3000) WHERE x = 20")  # the value that the base has
        return close_base(self, *arguments)

    def step_without_map(self: DatabaseScans, *arguments: Any) -> Step:
        monkeypatch.setattr(DatabaseScans, "step", step)
        for file in (place.state / "maps").glob("*.map"):
            file.unlink()
        assert not is_noticed or self._tools.maps.open(self._tracked.row_id) is None
        return step(self, *arguments)

    with app, running(place.settings("app")):
        execute(*TABLE, filled(60), "UPDATE t SET y = zeroblob(3000) WHERE x = 20")
        place.sync()
        execute("UPDATE t SET y = randomblob(3000) WHERE x = 40")
        place.sync()
        generation = place.row().generation
        monkeypatch.setattr(Snapshotter, "_publish", publish_later)
        monkeypatch.setattr(DatabaseScans, "close_base", close_after_commit)
        place.ask(op="snapshot", name="app")
        assert is_copied.wait(WAIT_S_MAX)
        execute("UPDATE t SET y = randomblob(3000) WHERE x = 20")
        wait_for(lambda: restored(place) == states[-1])
        may_close.set()
        # Not even a look for a waiting client comes between the loss and what follows from it.
        wait_for(lambda: place.row().generation != generation or len(objects(place, "*.json.zst")) > 1)
        place.sync()
        assert restored(place) == states[-1]
        for file in sorted((place.replica / "app").rglob("*.wal.zst")):
            key = parse_key(str(file.relative_to(place.replica / "app")))
            assert isinstance(key, SegmentKey | WholeKey)
            position = Position(key.generation, key.epoch, key.last)
            assert restored(place, target=AtPosition(position)) in states, f"{position} is no state of the database"


class NoManifests(DirectoryStorage):
    """Storage that goes away, while ``is_away``, just before it gets the manifest of a base."""

    is_away = False

    def put(self, key: str, body: bytes, *, metadata: Mapping[str, str]) -> str:
        if self.is_away and key.endswith(".json.zst"):
            raise TransientError("storage is away")
        return super().put(key, body, metadata=metadata)


def test_after_a_lost_map_the_base_before_is_not_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next base is closed by its own difference from the file.

    Until the base is stored, a restore gives the last state before it.
    """
    place = Place(tmp_path)
    path, app = place.database(), SqliteProcess(place.database())
    storage, is_copied, may_close = NoManifests(place.replica), threading.Event(), threading.Event()
    publish = Snapshotter._publish

    def publish_later(self: Snapshotter, tracked: FollowedDatabase, base: FinishedBase, origin: BaseOrigin) -> Any:
        is_copied.set()
        assert may_close.wait(WAIT_S_MAX)
        yield from publish(self, tracked, base, origin)

    with app:
        with running(place.settings("app"), storage):
            app.execute(*TABLE, filled(60))
            place.sync()
            app.execute("UPDATE t SET y = randomblob(3000) WHERE x = 20")
            place.sync()
            before = path.read_bytes()
        app.execute("UPDATE t SET y = randomblob(3000) WHERE x = 20")
        for file in (place.state / "maps").glob("*.map"):
            file.unlink()
        monkeypatch.setattr(Snapshotter, "_publish", publish_later)
        storage.is_away = True
        with running(place.settings("app"), storage):
            assert is_copied.wait(WAIT_S_MAX)
            app.execute("UPDATE t SET y = randomblob(3000) WHERE x = 40")
            may_close.set()
            wait_for(lambda: _waits_for_manifest(place))
            assert restored(place) == before
            storage.is_away = False
            place.sync()
            assert restored(place) == path.read_bytes()


def _waits_for_manifest(place: Place) -> bool:
    with place.journal() as journal:
        return [row.kind for row in journal.pending(place.row().id)] == [ObjectKind.MANIFEST]
