"""Tests of when bases are taken, and what their manifests say."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.following import spec_of
from tests.engine.rollback.rollback_replicas import restored
from tests.engine.running import Place, restored_values, running, wait_for
from walsyncd.adapters.journal.journal import Base, Journal, ObjectKind, ObjectRow, ObjectState
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.core.limits import Limits
from walsyncd.core.stored.base import PackedPart, Shape
from walsyncd.core.stored.layout import ManifestKey, parse_key
from walsyncd.core.stored.manifest import Manifest
from walsyncd.core.stored.position import Position
from walsyncd.engine.base import base_copy, snapshotter
from walsyncd.engine.base.base_copy import BaseCopy, CopyWait, FinishedBase, Steps
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.wal_pairs import WalPairs
from walsyncd.engine.restore.replica import Replica
from walsyncd.engine.ship.uploader import Uploader


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def manifest(place: Place) -> Manifest:
    """Return the newest manifest."""
    key = parse_key(place.row().base_key or "")
    assert isinstance(key, ManifestKey)
    return Replica(DirectoryStorage(place.replica), "app").manifest(key)


def stopped_at_part(number: int, place: Place, monkeypatch: pytest.MonkeyPatch, *, is_sent: bool = False) -> Base:
    """Return the base of a daemon that stopped before it sent this part.

    ``is_sent`` means that the parts before it have arrived.
    """
    send, halted = BaseCopy._send, threading.Event()

    def halt(self: BaseCopy, part: PackedPart) -> Steps[None]:
        if part.number == number:
            if is_sent:
                yield from self._await_all()
            halted.set()
            yield CopyWait(until_s=math.inf)
        yield from send(self, part)

    with monkeypatch.context() as patched:
        patched.setattr(BaseCopy, "_send", halt)
        with running(place.settings("app")):
            assert halted.wait(60)
    with place.journal() as journal:
        (begun,) = journal.bases()
    return begun


def test_the_first_base_counts_from_the_first_frame_of_the_wal(place: Place) -> None:
    """S is before every frame that the WAL held when the copy began, N at or after the last."""
    with wal_database(place.database()), running(place.settings("app")):
        place.sync()
        told = manifest(place)
    assert (told.start.epoch, told.start.frame) == (1, 0)
    assert (told.database, told.page_size, told.predecessor) == ("app", 4096, "")
    assert told.consistent_from.generation == told.generation


def test_a_later_base_counts_from_the_incarnation_it_was_copied_in(place: Place) -> None:
    """After a restart of the WAL S is at that restart, and older frames are not needed to restore."""
    with wal_database(place.database()) as writer, running(place.settings("app")):
        place.sync()
        writer.execute("insert into t values (1)", "pragma wal_checkpoint(restart)", "insert into t values (2)")
        place.sync()
        writer.execute("insert into t values (3)")
        before = place.row().base_key
        place.ask(op="snapshot", name="app")
        wait_for(lambda: place.row().base_key != before)
        told = manifest(place)
        writer.execute("insert into t values (4)")
        place.sync()
    assert told.start.frame > 0
    assert told.start < told.consistent_from
    assert restored_values(place) == [0, 1, 2, 3, 4]


def test_a_base_that_waits_for_the_wal_asks_nobody(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no epoch can be begun for the base, the base comes when the WAL restarts, and no thread wakes before."""
    asked: list[float] = []
    due = snapshotter.Snapshotter.due

    def noted(self: snapshotter.Snapshotter, tracked: FollowedDatabase, delay_s: float = 0.0) -> None:
        asked.append(delay_s)
        due(self, tracked, delay_s)

    with (
        wal_database(place.database()) as writer,
        running(place.settings("app"), limits=Limits(epoch_bytes=1, spool_share=1 << 40)),
    ):
        place.sync()
        writer.execute("insert into t values (1)")
        assert int(place.sync().split("/")[1], 16) > 1
        before = place.row().base_key
        place.ask(op="snapshot", name="app")
        wait_for(lambda: place.ask(op="status")["databases"][0]["base_hindrance"])
        place.sync()  # looks that ended meanwhile may ask once more
        monkeypatch.setattr(snapshotter.Snapshotter, "due", noted)
        for value in range(2, 8):
            writer.execute(f"insert into t values ({value})")
            place.sync()
        assert asked == []
        assert place.row().base_key == before
        writer.execute("pragma wal_checkpoint(restart)", "insert into t values (8)")
        wait_for(lambda: place.row().base_key != before)
        place.sync()
        assert restored_values(place) == list(range(9))


def test_a_base_comes_by_the_clock_only_if_something_was_committed(place: Place) -> None:
    """If nothing was committed since the last base, there is no other, whatever the interval."""
    settings = place.settings("app")
    hasty = replace(settings, databases=tuple(replace(entry, snapshot_interval_s=0.2) for entry in settings.databases))
    with wal_database(place.database()) as writer, running(hasty) as daemon:
        place.sync()
        bases = {place.row().base_key}
        for value in range(1, 4):
            writer.execute(f"insert into t values ({value})")
            wait_for(lambda: place.row().base_key not in bases)
            bases.add(place.row().base_key)
        last = place.row().base_key
        assert daemon.crash is None
        place.sync()
        for _ in range(20):  # several intervals without a commit
            place.ask(op="sync", names=["app"])
        assert place.row().base_key == last


def test_a_base_that_is_resumed_is_consistent_from_after_its_end(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges are read again, so the earlier N is void.

    A commit that was made while the daemon was away is before the new N.
    """
    monkeypatch.setattr(base_copy, "shape_of", lambda size: Shape(size, 4096, 3 * 4096))
    with wal_database(place.database()) as writer:
        writer.execute("insert into t select hex(randomblob(50000)) from t", "pragma wal_checkpoint")
        writer.execute("insert into t values (1)")  # the WAL has restarted before the base does
        begun = stopped_at_part(3, place, monkeypatch)
        writer.execute("insert into t values (2)")
        with running(place.settings("app")):
            position = place.sync()
            told = manifest(place)
    assert told.key == begun.row.key
    assert str(told.consistent_from) == position


def test_a_base_without_a_wal_is_resumed_by_reading_it_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """No kept part has what changed while the daemon was away, and the end is exact."""
    monkeypatch.setattr(base_copy, "shape_of", lambda size: Shape(size, 4096, 3 * 4096))
    with SqliteProcess(place.database()) as app:
        app.execute("create table t (k integer primary key, x)", "insert into t (x) values (hex(randomblob(100000)))")
        app.execute("insert into t (x) select hex(randomblob(100000)) from t")
        begun = stopped_at_part(6, place, monkeypatch, is_sent=True)
        app.execute("update t set x = hex(randomblob(100000)) where k = 2", "pragma user_version = 7")
        with running(place.settings("app")):
            place.sync()
            told = manifest(place)
        assert told.key == begun.row.key
        assert restored(place) == place.database().read_bytes()


def test_a_rollback_database_is_based_once_and_its_changes_are_segments(place: Place) -> None:
    """There is no WAL to follow. Each change is a transaction after the base, which is consistent from its start."""
    with SqliteProcess(place.database()) as writer:
        writer.execute("pragma journal_mode=delete", "create table t (x)", "insert into t values (0)")
        with running(place.settings("app")):
            first = place.sync()
            before = manifest(place)
            assert before.start == before.consistent_from
            for value in (1, 2):
                writer.execute(f"insert into t values ({value})")
                assert place.sync() != first
            assert manifest(place) == before
            assert before.time_ms > 1_700_000_000_000
    assert restored_values(place) == [0, 1, 2]


def test_a_rollback_database_that_is_written_while_it_is_copied(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan ships what the copy lacks, and corrects what it has of a transaction that was rolled back."""
    finished, states = BaseCopy.run, list[bytes]()
    with SqliteProcess(place.database()) as writer:
        writer.execute("create table t (x)", "insert into t select 0 from (values (1), (2))", "create table big (y)")
        writer.execute(f"insert into big values {', '.join(['(randomblob(3000))'] * 100)}")

        def written(self: BaseCopy) -> Steps[FinishedBase]:
            spilled = len(states) == 1
            if spilled:  # the copy has pages of a transaction that never commits
                writer.execute("pragma cache_size = 2", "begin", "update big set y = randomblob(3000)")
            base = yield from finished(self)
            writer.execute("rollback") if spilled else writer.execute(f"insert into t values ({len(states) + 1})")
            states.append(place.database().read_bytes())
            return base

        monkeypatch.setattr(BaseCopy, "run", written)
        with running(place.settings("app")):
            place.sync()
            assert restored_values(place) == [0, 0, 1]
            place.ask(op="snapshot", name="app")
            wait_for(lambda: len([*(place.replica / "app").glob("*/base/*.json.zst")]) == 2)
            place.sync()
    assert len(states) == 2
    assert restored_values(place) == [0, 0, 1]
    assert (place.folder / "restored.db").read_bytes() == states[-1]


def test_a_base_of_an_earlier_run_is_not_taken_again(place: Place) -> None:
    """A restart of the daemon costs no base."""
    with wal_database(place.database()) as writer:
        with running(place.settings("app")):
            place.sync()
            key = place.row().base_key
        writer.execute("insert into t values (1)")
        with running(place.settings("app")):
            place.sync()
            assert place.row().base_key == key
    assert restored_values(place) == [0, 1]


def test_a_base_comes_by_work(place: Place) -> None:
    """When more WAL was stored since the last base than the base takes, another one comes long before its interval."""
    with (
        wal_database(place.database()) as writer,
        running(place.settings("app"), limits=Limits(base_work_bytes=100_000, base_work_pause_s=0.0)),
    ):
        place.sync()
        first = place.row().base_key
        writer.execute("create table blob (x)", "insert into blob values (randomblob(50000))")
        place.sync()
        assert place.row().base_key == first
        assert 50_000 < place.row().wal_bytes < 100_000
        writer.execute("insert into blob values (randomblob(60000))")
        wait_for(lambda: place.row().base_key != first)
        second = place.row()
        assert second.base_bytes > 0
        writer.execute("insert into blob values (randomblob(50000))")
        place.sync()
        assert place.row().base_key == second.base_key


def test_without_deletion_a_base_is_renewed_by_the_clock(place: Place) -> None:
    """A store that removes objects by age needs a recent base of a database that does not change."""
    settings = place.settings("app")
    hasty = replace(
        settings,
        storage=replace(settings.storage, delete=False, expire_after_s=3600.0),
        databases=tuple(replace(entry, snapshot_interval_s=0.2) for entry in settings.databases),
    )
    with wal_database(place.database()), running(hasty):
        place.sync()
        first = place.row().base_key
        wait_for(lambda: place.row().base_key != first)


def test_a_database_that_leaves_when_its_base_is_complete_has_no_next_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path leads to another file at that moment. The base counts, and no other is tried."""
    let_go: list[str] = []

    def copied_and_left(self: snapshotter.Snapshotter, tracked: FollowedDatabase) -> Steps[bool]:
        yield CopyWait()
        self._timing.taken(tracked, Position("20261122T105600Z-00000001", 1, 0))
        self.forget(tracked)
        return True

    monkeypatch.setattr(snapshotter.Snapshotter, "_copy", copied_and_left)
    monkeypatch.setattr(snapshotter.Snapshotter, "_let_go", lambda _self, _tracked, error: let_go.append(str(error)))
    never: Callable[..., Any] = pytest.fail
    tracked = FollowedDatabase(spec_of(place.database()), 1, WalPairs(place.database()))
    with closing(Journal.open(place.state)) as journal:
        taker = snapshotter.Snapshotter(
            journal,
            DirectoryStorage(place.replica),
            request=never,
            interrupt=never,
            submit=never,
            offer=never,
            abort_leftovers=never,
            now_ms=lambda: 0,
            boot_id="boot",
        )
        for _ in taker._take(tracked):
            pass
        assert let_go == []
        assert not taker.is_due(tracked)


class HeldParts(DirectoryStorage):
    """A storage that takes no part of a base before ``go_on``."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.go_on = threading.Event()
        self.held = 0

    def upload_part(self, key: str, upload_id: str, number: int, body: bytes) -> str:
        self.held += 1
        assert self.go_on.wait(60)
        return super().upload_part(key, upload_id, number, body)


def test_small_databases_do_not_wait_for_a_large_one(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store delays the large database's parts. The others get their bases first, and then the large one does."""
    monkeypatch.setattr(base_copy, "shape_of", lambda size: Shape(size, 4096, 12 * 4096))
    storage = HeldParts(place.replica)
    small = [f"small-{number}" for number in range(6)]
    settings = place.settings("app", *small)
    settings = replace(settings, daemon=replace(settings.daemon, uploads_max=4))
    with ExitStack() as stack:
        writer = stack.enter_context(wal_database(place.database()))
        writer.execute("insert into t select hex(randomblob(200000)) from t", "pragma wal_checkpoint")
        for name in small:
            stack.enter_context(wal_database(place.database(name)))
        stack.enter_context(running(settings, storage, limits=Limits(small_base_bytes=12 * 4096)))
        stack.callback(storage.go_on.set)  # before the daemon stops
        wait_for(lambda: storage.held)
        wait_for(lambda: all(place.row(name).base_key for name in small))
        assert place.row().base_key is None
        storage.go_on.set()
        wait_for(lambda: place.row().base_key)


@pytest.mark.parametrize(("at_once", "state"), [(True, ObjectState.BEGUN), (False, ObjectState.SPOOLED)])
def test_a_manifest_that_leaves_at_once_is_begun_with_its_row(
    place: Place, monkeypatch: pytest.MonkeyPatch, *, at_once: bool, state: ObjectState
) -> None:
    """Beginning it with its row saves one transaction for each base."""
    offer, states = Uploader.offer, list[ObjectState]()

    def noted(self: Uploader, rows: Sequence[ObjectRow]) -> None:
        states.extend(row.state for row in rows if row.kind is ObjectKind.MANIFEST)
        offer(self, rows)

    monkeypatch.setattr(Uploader, "offer", noted)
    monkeypatch.setattr(Uploader, "may_leave_at_once", lambda _self, _database_id: at_once)
    with wal_database(place.database()) as writer:
        writer.execute("insert into t values (1)")
        with running(place.settings("app")):
            place.sync()
            wait_for(lambda: place.row().base_key is not None)
    assert states == [state]
    assert restored_values(place) == [0, 1]
