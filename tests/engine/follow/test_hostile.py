"""Tests of the whole daemon when storage, spool and disk fail: what becomes visible is a prefix of history."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.running import Place, running, wait_for
from tests.fakes import Call, FakeObject, FakeStorage
from walsyncd.core.limits import Limits
from walsyncd.core.restore.plan import Head
from walsyncd.engine.follow import follower
from walsyncd.engine.restore.planner import find_plan
from walsyncd.engine.restore.replica import Replica
from walsyncd.engine.restore.restorer import restore
from walsyncd.errors import NothingToRestoreError, TransientError

WRITES = {"put", "put_if", "complete_upload", "delete"}
SNAPSHOTS_MAX = 25  # positions restored in full; a plan is made for all
DISK_BYTES = 12 << 20


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def restored(storage: FakeStorage, out: Path) -> list[int]:
    """Return the values in ``t`` of the restored head."""
    replica = Replica(storage, "app")
    restore(replica, find_plan(replica, Head()), out, force=True)
    with closing(sqlite3.connect(out)) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        return [x for (x,) in connection.execute("select x from t order by x")]


class Away:
    """A switch for a storage."""

    def __init__(self, storage: FakeStorage) -> None:
        self.now = False
        storage.before = self._refuse

    def _refuse(self, _call: Call) -> None:
        if self.now:
            raise TransientError("storage is away")


def test_after_every_request_of_a_hostile_run_a_prefix_of_history_is_restored(place: Place) -> None:
    """Requests fail before they have their effect, or after it. Whatever the bucket holds meanwhile has no hole."""
    chance, lock = random.Random(5), threading.Lock()
    storage = FakeStorage()
    seen: list[dict[str, FakeObject]] = []

    def fail(call: Call) -> None:
        with lock:
            if chance.random() < 0.12:
                raise TransientError(f"{call.name}: connection reset")

    def after(call: Call) -> None:
        if call.name in WRITES:
            seen.append(dict(storage.objects))
        fail(call)

    with wal_database(place.database()) as writer:
        storage.before, storage.after = fail, after
        with running(place.settings("app"), storage):
            for number in range(1, 25):
                writer.execute(f"insert into t values ({number})")
                if number % 8 == 0:
                    writer.execute("pragma wal_checkpoint(restart)")
                place.ask(op="sync", names=["app"])
            place.sync()
            storage.before = storage.after = lambda _call: None
    reached: list[int] = []
    step = max(1, len(seen) // SNAPSHOTS_MAX)
    for number, objects in enumerate(seen):
        frozen = FakeStorage()
        frozen.objects = objects
        try:
            if number % step and number != len(seen) - 1:
                find_plan(Replica(frozen, "app"), Head())
                continue
            values = restored(frozen, place.folder / "out.db")
        except NothingToRestoreError:
            assert not reached, "what could be restored once can be restored for ever"
            continue
        assert values == list(range(len(values)))
        reached.append(len(values))
    assert reached == sorted(reached)
    assert reached[-1] == 25


def test_a_spool_file_that_changed_is_read_again_from_the_wal(place: Place) -> None:
    """The generation continues, and the restored database is whole."""
    storage = FakeStorage()
    away = Away(storage)
    with wal_database(place.database()) as writer, running(place.settings("app"), storage):
        place.sync()
        generation = place.row().generation
        away.now = True
        writer.execute("create table junk (b)")
        wait_for(lambda: place.row().spooled_bytes)
        writer.execute("insert into junk values (randomblob(300000))")
        wait_for(lambda: list((place.state / "spool").glob("*.body")))
        writer.execute("insert into t values (1)")
        place.ask(op="sync", names=["app"])
        for file in (place.state / "spool").glob("*.body"):
            file.write_bytes(file.read_bytes()[::-1])
        away.now = False
        place.sync()
        assert place.row().rewinds >= 1
        assert place.row().generation == generation
        assert restored(storage, place.folder / "out.db") == [0, 1]


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of a few mebibytes, mounted at ``folder``."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> Path:
    """Fill the disk with another user's file."""
    path = folder / "somebody-elses"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            return path


@pytest.mark.root
def test_a_full_disk_under_the_state_directory_ends_a_generation_and_harms_nobody(place: Place) -> None:
    """Storage is away, and the spool grows until the disk is short.

    It is dropped before the application's disk is full.
    """
    storage = FakeStorage()
    away = Away(storage)
    with (
        small_disk(place.state),
        wal_database(place.database()) as writer,
        running(place.settings("app"), storage) as daemon,
    ):
        place.sync()
        old = place.row().generation
        away.now = True
        writer.execute("create table junk (b)")
        wait_for(lambda: daemon._destinations.all()[0].uploader.outage() is not None)

        def gave_way() -> bool:
            writer.execute("insert into junk values (randomblob(200000))")
            time.sleep(0.02)  # a writer that is faster than the looks fills the disk first, or leaves a gap
            return place.row().generation is None

        wait_for(gave_way)
        with place.journal() as journal:
            ended = journal.generations(place.row().id)[0].reason_ended
        assert "the disk under the state directory is full" in ended
        away.now = False
        writer.execute("insert into t values (1)")
        wait_for(lambda: place.row().generation is not None)
        place.sync()
        assert place.row().generation != old
        assert restored(storage, place.folder / "out.db") == [0, 1]


@pytest.mark.root
def test_a_disk_that_somebody_else_fills_stops_nothing_for_good(place: Place) -> None:
    """While the disk is full, the daemon waits. When there is room, the daemon continues."""
    storage = FakeStorage()
    with (
        small_disk(place.state),
        wal_database(place.database()) as writer,
        running(place.settings("app"), storage) as daemon,
    ):
        place.sync()
        junk = fill(place.state)
        writer.execute("create table junk (b)")
        for number in range(1, 6):
            writer.execute(f"insert into t values ({number})")
            writer.execute("insert into junk values (randomblob(400000))")
        wait_for(_asked_meanwhile(daemon.follower, place))
        assert daemon.crash is None
        junk.unlink()
        place.sync()
        assert restored(storage, place.folder / "out.db") == [0, 1, 2, 3, 4, 5]


def _asked_meanwhile(watched: follower.Follower, place: Place) -> Callable[[], bool]:
    """Return whether the daemon has met the full disk, in the journal or in a spool file."""

    def met() -> bool:
        return bool(watched.journal_problem) or place.row().state == "failing"

    return met


def assert_given_up_and_begun_anew(place: Place, storage: FakeStorage, writer: SqliteProcess, size: int) -> None:
    """Assert that a too large transaction ends the generation, once.

    With the next WAL another one begins, with a base.
    """
    place.sync()
    old = place.row().generation
    writer.execute("create table junk (b)")
    place.sync()
    writer.execute(f"insert into junk values (randomblob({size}))")
    wait_for(lambda: place.row().generation is None)
    wait_for(lambda: place.row().state == "degraded")
    wait_for(lambda: not list((place.state / "spool").iterdir()))
    writer.execute("pragma wal_checkpoint")
    writer.execute("insert into t values (1)")
    wait_for(lambda: place.row().generation)
    place.sync()
    assert place.row().generation != old
    with place.journal() as journal:
        assert len(journal.generations(place.row().id)) == 2
    assert restored(storage, place.folder / "out.db") == [0, 1]


SOON = Limits(generation_delay_s=0.01, begin_look_s=0.05, memory_bytes_max=1 << 20)
"""By these limits generations begin again after a moment, and spool files are used early."""


def test_a_transaction_larger_than_the_spool_ends_the_generation(place: Place) -> None:
    """The transaction would never fit.

    Status says so with the remedy, and the transaction is not tried again and again.
    """
    storage = FakeStorage()
    settings = place.settings("app", spool_bytes_max=3 << 20)
    with wal_database(place.database()) as writer, capture_logs() as said, running(settings, storage, limits=SOON):
        assert_given_up_and_begun_anew(place, storage, writer, 5 << 20)
    (ended,) = [line for line in said if line["event"] == "generation_ended"]
    assert ended["reason"] == "a transaction takes more of the spool than spool_bytes_max, 3.0 MiB"


def test_what_helps_against_a_transaction_that_is_too_large_is_said(place: Place) -> None:
    """The database's status has the remedy as long as the WAL has not restarted, also after a restart of the daemon."""
    storage = FakeStorage()
    settings = place.settings("app", spool_bytes_max=3 << 20)

    def is_said() -> bool:
        row = place.row()
        helps = "raise spool_bytes_max above the largest transaction"
        return "once the WAL has restarted" in row.remedy and helps in row.remedy and "spool_bytes_max" in row.cause

    with wal_database(place.database()) as writer:
        for start in range(2):
            with running(settings, storage, limits=SOON):
                if start == 0:
                    place.sync()  # otherwise the generation may begin after the transaction
                    writer.execute("create table if not exists junk (b)", "insert into junk values (zeroblob(9))")
                    writer.execute("insert into junk values (randomblob(5000000))")
                wait_for(lambda: place.row().generation is None)
                wait_for(is_said)  # what the earlier run wrote is there until the first look


@pytest.mark.root
def test_a_transaction_larger_than_the_disk_ends_the_generation(place: Place) -> None:
    """What was written of it is removed at once, so the disk is not filled again and again."""
    storage = FakeStorage()
    with (
        small_disk(place.state),
        wal_database(place.database()) as writer,
        capture_logs() as said,
        running(place.settings("app"), storage, limits=SOON),
    ):
        assert_given_up_and_begun_anew(place, storage, writer, 2 * DISK_BYTES)
    (ended,) = [line for line in said if line["event"] == "generation_ended"]
    assert "than the disk under the state directory has room for" in ended["reason"]
