"""Tests of the daemon as a whole, in this process."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.running import Place, opening, running, wait_for
from tests.fakes import Call, FakeStorage
from walsyncd.adapters.journal.journal import Journal
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.adapters.storage.interface import Storage
from walsyncd.core.limits import Limits
from walsyncd.core.restore.plan import AtPosition, Head
from walsyncd.core.stored.position import parse_position
from walsyncd.engine.content.map_making import MapMaker
from walsyncd.engine.daemon.daemon import EXIT_SPOOLED, Daemon
from walsyncd.engine.restore.replica import Replica
from walsyncd.engine.restore.restorer import find_plan, restore
from walsyncd.errors import TransientError


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def restored(place: Place, name: str = "app", storage: Storage | None = None) -> list[int]:
    """Return the values in ``t`` of the restored head."""
    replica = Replica(storage or DirectoryStorage(place.replica), name)
    out = place.folder / "restored.db"
    restore(replica, find_plan(replica, Head()), out, force=True)
    connection = sqlite3.connect(out)
    try:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        return [x for (x,) in connection.execute("select x from t order by x")]
    finally:
        connection.close()


def insert(writer: SqliteProcess, *values: int) -> None:
    for value in values:
        writer.execute(f"insert into t values ({value})")


def test_what_is_committed_is_restored(place: Place) -> None:
    """Commits come before the start, while the daemon runs, across checkpoints, and after a restart of the daemon."""
    with wal_database(place.database()) as writer:
        insert(writer, 1, 2)
        with running(place.settings("app")):
            insert(writer, 3, 4)
            writer.execute("pragma wal_checkpoint(restart)")
            insert(writer, 5)
            place.sync()  # what is truncated before it was read is lost for everybody
            writer.execute("pragma wal_checkpoint(truncate)")
            insert(writer, 6)
            place.sync()
            assert restored(place) == [0, 1, 2, 3, 4, 5, 6]
        generation = place.row().generation
        insert(writer, 7)
        with running(place.settings("app")):
            insert(writer, 8)
            place.sync()
            assert place.row().generation == generation, "nothing happened that would end it"
            assert restored(place) == [0, 1, 2, 3, 4, 5, 6, 7, 8]


def test_a_database_that_is_missing_is_picked_up_when_it_appears(place: Place) -> None:
    """The database's state is "missing" with a remedy, then following. The other database is not affected."""
    with wal_database(place.database("there")) as writer, running(place.settings("there", "later")):
        wait_for(lambda: place.row("later").state == "missing")
        assert "does not exist" in place.row("later").cause
        insert(writer, 1)
        place.sync("there")
        with wal_database(place.database("later")) as late:
            insert(late, 5)
            place.sync("later")
        assert restored(place, "later") == [0, 5]
        assert place.row("there").state == "following"


def test_the_socket_refuses_what_it_does_not_know(place: Place) -> None:
    """Unknown names and requests are answered by an error with a hint."""
    with wal_database(place.database()), running(place.settings("app")):
        assert "it follows: app" in place.ask(op="sync", names=["other"])["hint"]
        assert "does not know" in place.ask(op="dance")["error"]
        assert place.ask(op="ping")["pid"] > 0


def test_a_base_is_taken_when_somebody_asks(place: Place) -> None:
    """The new base begins where the WAL's incarnation did, and the head is restored from it."""
    with wal_database(place.database()) as writer, running(place.settings("app")):
        place.sync()
        before = place.row().base_key
        insert(writer, *range(1, 20))
        place.ask(op="snapshot", name="app")
        wait_for(lambda: place.row().base_key != before)
        insert(writer, 20)
        place.sync()
        assert restored(place) == list(range(21))


def test_another_file_in_its_place_is_a_gap(place: Place) -> None:
    """If a restored backup is moved over the database, the gap is bridged, or a new generation begins.

    No position is lost.
    """
    with wal_database(place.database()) as writer:
        insert(writer, 1)
        writer.close()
    with running(place.settings("app")):
        position = place.sync()
        old = place.row().generation
        with wal_database(place.folder / "other.db") as writer:
            insert(writer, 100)
            writer.close()
        (place.folder / "other.db").rename(place.database())
        wait_for(lambda: place.row().generation != old or list(place.replica.rglob("*.bridge.wal.zst")))
        place.sync()
    assert restored(place) == [0, 100]
    out = place.folder / "before.db"
    replica = Replica(DirectoryStorage(place.replica), "app")
    restore(replica, find_plan(replica, AtPosition(parse_position(position))), out)
    with closing(sqlite3.connect(out)) as connection:
        assert connection.execute("SELECT x FROM t ORDER BY x").fetchall() == [(0,), (1,)]


def test_a_full_spool_gives_way_and_begins_anew_when_storage_is_back(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application's disk is more important than the oldest promise.

    What was stored stays restorable. There is no map.
    """
    monkeypatch.setattr(MapMaker, "due", lambda *_: None)
    storage = FakeStorage()
    is_away = [False]

    def before(_call: Call) -> None:
        if is_away[0]:
            raise TransientError("storage is away")

    storage.before = before
    with (
        wal_database(place.database()) as writer,
        running(
            place.settings("app", spool_bytes_max=200_000),
            storage,
            limits=Limits(generation_delay_s=0.01, begin_look_s=0.05),
        ),
    ):
        insert(writer, 1)
        place.sync()
        old = place.row().generation
        is_away[0] = True
        writer.execute("create table junk (b)")

        def gave_way() -> bool:
            writer.execute("insert into junk values (randomblob(20000))")
            return place.row().generation is None

        wait_for(gave_way)
        wait_for(lambda: "the spool reached its limit" in place.row().cause and place.row().spooled_bytes == 0)
        is_away[0] = False
        insert(writer, 2)
        wait_for(lambda: place.row().generation is not None)
        place.sync()
        assert place.row().generation != old
        assert restored(place, storage=storage) == [0, 1, 2]


def test_a_full_spool_costs_a_bridge(place: Place) -> None:
    """The database still has what was dropped, and few of its pages differ.

    Objects that were begun reach storage first.
    """
    storage = FakeStorage()
    is_away = [False]

    def before(_call: Call) -> None:
        if is_away[0]:
            raise TransientError("storage is away")

    storage.before = before
    with (
        wal_database(place.database()) as writer,
        running(place.settings("app", spool_bytes_max=400_000), storage, limits=Limits(begin_look_s=0.05)),
    ):
        writer.execute("create table hot (y)", *["insert into hot values (randomblob(2000))"] * 20)
        insert(writer, 1)
        place.sync()
        wait_for(lambda: has_map(place))
        old = place.row().generation
        is_away[0] = True
        tried = len(storage.calls)
        writer.execute("update hot set y = randomblob(2000)")
        wait_for(lambda: any(call.name == "put" and "/wal/" in call.key for call in storage.calls[tried:]))

        def gave_way() -> bool:
            writer.execute("update hot set y = randomblob(2000)")
            return "the spool reached its limit" in place.row().cause

        wait_for(gave_way)
        assert place.row().spooled_bytes < 200_000
        insert(writer, 2)
        is_away[0] = False
        wait_for(lambda: any(".bridge." in key for key in list(storage.objects)))
        insert(writer, 3)
        place.sync()
        assert place.row().generation == old
        assert restored(place, storage=storage) == [0, 1, 2, 3]


def has_map(place: Place) -> bool:
    with place.journal() as journal:
        (row,) = journal.databases()
        return journal.page_map(row.id) is not None and row.has_base


def test_what_is_left_of_a_database_no_longer_configured_goes_up_all_the_same(place: Place) -> None:
    """Such a database's spool is shipped.

    If another daemon took over the replica meanwhile, others are not affected.
    """
    storage = FakeStorage()
    with wal_database(place.database("old")) as writer, wal_database(place.database("new")):
        with running(place.settings("old"), storage):
            insert(writer, 1)
            place.sync("old")
            storage.before = lambda _call: (_ for _ in ()).throw(TransientError("storage is away"))
            insert(writer, 2)
            wait_for(lambda: place.row("old").spooled_bytes)
        storage.before = lambda _call: None
        storage.put("old/owner.json", b'{"host": "other", "machine_id": "m", "run_id": "r"}', metadata={})
        with running(place.settings("new"), storage):
            place.sync("new")
            wait_for(lambda: place.row("old").generation is None or not place.row("old").spooled_bytes)


def test_a_stop_never_hangs(place: Place) -> None:
    """A store takes a request and never answers.

    The exit code says that something is left, and the next start ships it.
    """
    storage, answer = FakeStorage(), threading.Event()

    def hold(call: Call) -> None:
        if call.name == "put" and "/wal/" in call.key:
            answer.wait()

    with wal_database(place.database()) as writer:
        daemon = Daemon(place.settings("app"), opening(storage), limits=Limits(stop_linger_s=0.05))
        daemon.start()
        try:
            place.sync()
            storage.before = hold
            tried = len(storage.calls)
            insert(writer, 1)
            wait_for(lambda: any(call.name == "put" and "/wal/" in call.key for call in storage.calls[tried:]))
            assert daemon.stop(0.05) == EXIT_SPOOLED
            assert daemon.crash is None
        finally:
            answer.set()
        storage.before = lambda _call: None
        with running(place.settings("app"), storage):
            place.sync()
        assert restored(place, storage=storage) == [0, 1]


@pytest.mark.parametrize(
    ("before", "after", "goes_on"),
    [
        (("boot-1", "host-5f2d"), ("boot-1", "host-81aa"), True),
        (("boot-1", "host-5f2d"), ("boot-2", "host-81aa"), True),
        (("boot-1", "machine-1"), ("boot-1", "machine-2"), True),
        (("boot-1", "machine-1"), ("boot-2", "machine-2"), False),
    ],
)
def test_a_new_container_with_the_same_state_goes_on(
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    before: tuple[str, str],
    after: tuple[str, str],
    *,
    goes_on: bool,
) -> None:
    """The container's host name, or its machine id, differs.

    A clone of a disk with another machine id does not continue.
    """

    def become(boot: str, machine: str) -> None:
        monkeypatch.setattr("walsyncd.engine.ship.ownership.machine_id", lambda: machine)
        note = Journal.note_machine
        monkeypatch.setattr(Journal, "note_machine", lambda self, _boot, machine: note(self, boot, machine))

    with wal_database(place.database()) as writer:
        become(*before)
        with running(place.settings("app")):
            place.sync()
            first = place.row().generation
        monkeypatch.undo()
        become(*after)
        writer.execute("insert into t values (1)")
        with running(place.settings("app")):
            place.sync()
            assert (place.row().generation == first) == goes_on
