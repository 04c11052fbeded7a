"""Tests of the uploader: order, pacing, failures, and a kill at any call to the outside."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest

from tests.fakes import Call, Deaths, FakeStorage, Killed
from tests.shipping import G1, G2, NAME, WAIT_S_MAX, Run, assert_alive, mortal, run_daemon, segment, wait_for
from walsyncd.adapters.journal import rows
from walsyncd.adapters.journal.deferred_changes import DeferredChanges
from walsyncd.adapters.journal.journal import Advance, NewObject, reader
from walsyncd.engine.ship import object_upload
from walsyncd.engine.ship.scheduler import Scheduler
from walsyncd.errors import ImpossibleError, RefusedError, TransientError, UsageError

LARGE = bytes(range(256)) * 1000  # four parts of at most 70,000 bytes


@pytest.fixture
def storage() -> FakeStorage:
    return FakeStorage()


@pytest.fixture
def daemon(tmp_path: Path, storage: FakeStorage) -> Iterator[Run]:
    with run_daemon(tmp_path, storage) as run:
        yield run
        assert_alive(run.told)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Upload everything over 100,000 bytes in parts of 70,000."""
    monkeypatch.setattr(rows, "PUT_SIZE_MAX", 100_000)
    monkeypatch.setattr(object_upload, "part_size", lambda _size: 70_000)


def wal_objects(storage: FakeStorage) -> dict[str, bytes]:
    """Return the objects by name below the generations' folders."""
    return {key: found.body for key, found in storage.objects.items() if "/wal/" in key}


def keys_of(*objects: NewObject) -> list[str]:
    return [f"{NAME}/{new.key}" for new in objects]


def is_stored(daemon: Run, count: int) -> bool:
    return len(daemon.told.stored) == count


def test_an_offered_object_is_stored_and_the_spool_is_empty(daemon: Run, storage: FakeStorage) -> None:
    """Body, metadata and position are right, and the row is gone."""
    daemon.uploader.start()
    (spooled,) = daemon.spool(segment(1, 4))
    wait_for(lambda: daemon.told.stored)
    found = storage.objects[f"{NAME}/{spooled.key}"]
    assert found.body == b"<1:1><1:2><1:3><1:4>"
    assert found.metadata == {"walsyncd-id": spooled.token}
    row = daemon.journal.database_by_id(daemon.database_id)
    assert (row.stored_generation, row.stored_epoch, row.stored_frame) == (G1, 1, 4)
    assert daemon.journal.pending() == []


def test_objects_become_visible_strictly_in_order(tmp_path: Path, storage: FakeStorage) -> None:
    """However many threads there are, one database's objects follow one another."""
    objects = [segment(1, 1, epoch=epoch) for epoch in range(1, 30)]
    with run_daemon(tmp_path, storage, uploads_max=4) as run:
        run.uploader.start()
        for new in objects:
            run.spool(new)
        run.uploader.stop(WAIT_S_MAX)
        assert_alive(run.told)
    assert [key for key in storage.visible if "/wal/" in key] == keys_of(*objects)


def test_an_idle_database_makes_no_request(daemon: Run, storage: FakeStorage) -> None:
    """Nothing is spooled, so nothing is requested."""
    daemon.flush()
    assert storage.calls == []


def test_a_burst_is_merged_when_the_tokens_are_used_up(daemon: Run, storage: FakeStorage) -> None:
    """Ten objects are sent one by one. The objects after them wait and are uploaded as one."""
    daemon.uploader.pace(daemon.database_id, 3600.0)
    daemon.uploader.start()
    for frame in range(1, 11):
        daemon.spool(segment(frame, frame))
        wait_for(partial(is_stored, daemon, frame))
    for frame in range(11, 31):
        daemon.spool(segment(frame, frame))
    assert not daemon.uploader.may_leave_at_once(daemon.database_id)
    daemon.uploader.urgent([daemon.database_id])
    wait_for(lambda: len(daemon.told.stored) == 11)
    assert daemon.told.stored[-1].first == 11
    assert daemon.told.stored[-1].last == 30
    assert len(wal_objects(storage)) == 11


def test_a_claimed_idle_queue_lets_the_next_object_leave_at_once(daemon: Run, storage: FakeStorage) -> None:
    """A row that is written as begun is sent without checking whether its object exists."""
    daemon.uploader.start()
    assert not daemon.uploader.may_leave_at_once(daemon.database_id)
    daemon.spool(segment(1, 1))
    wait_for(lambda: daemon.uploader.may_leave_at_once(daemon.database_id))
    storage.calls.clear()
    daemon.spool(segment(2, 2), begin=True)
    wait_for(lambda: len(daemon.told.stored) == 2)
    assert storage.names() == ["put"]


def test_what_is_deferred_becomes_durable_though_nothing_else_happens(
    daemon: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody writes to the journal any more, and nobody reads it through the daemon's own connection."""
    monkeypatch.setattr(DeferredChanges, "is_worthwhile", lambda _self: True)
    daemon.uploader.start()
    daemon.spool(segment(1, 1))
    wait_for(lambda: daemon.told.stored)
    with closing(reader(tmp_path)) as journal:
        wait_for(lambda: not journal.pending())
        assert journal.databases()[0].stored_frame == 1


def test_an_object_that_leaves_at_once_is_not_read_from_the_journal(
    daemon: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that spooled it hands over its row and its body."""
    daemon.uploader.start()
    daemon.spool(segment(1, 1))
    wait_for(lambda: daemon.uploader.may_leave_at_once(daemon.database_id))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("it was read")

    with monkeypatch.context() as patch:
        patch.setattr(type(daemon.journal), "_rows", refuse)
        daemon.spool(segment(2, 2), begin=True)
        wait_for(lambda: len(daemon.told.stored) == 2 or daemon.told.crashes)
    assert_alive(daemon.told)
    assert daemon.journal.pending() == []


def test_an_object_that_was_dropped_before_it_left_is_not_sent(daemon: Run, storage: FakeStorage) -> None:
    """The object is not sent, although it was written as begun and its body is in memory."""
    daemon.uploader.start()
    daemon.spool(segment(1, 1))
    wait_for(lambda: daemon.uploader.may_leave_at_once(daemon.database_id))
    rows = daemon.journal.advance([Advance(daemon.database_id, "{}", (segment(2, 2),), begin=True)])
    daemon.journal.drop_spool(daemon.database_id)
    daemon.uploader.offer(rows)
    daemon.uploader.stop(WAIT_S_MAX)
    assert_alive(daemon.told)
    assert len(wal_objects(storage)) == 1


@pytest.mark.parametrize("body", [b"small", LARGE], ids=["put", "multipart"])
def test_a_kill_at_any_call_loses_nothing(
    body: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_parts: None
) -> None:
    """After each kill the next run has the same objects in order, no part is sent twice, and nothing is left open."""
    objects = (segment(1, 3), segment(1, 2, epoch=2, body=body), segment(1, 1, epoch=3))
    expected = {f"{NAME}/{new.key}": new.body if isinstance(new.body, bytes) else b"" for new in objects}
    deaths = Deaths(0)
    for at in range(1, 1000):
        storage = FakeStorage()
        state_dir = tmp_path / str(at)
        with run_daemon(state_dir, storage) as run:
            run.spool(*objects)
            deaths = Deaths(at)
            with mortal(monkeypatch, storage, deaths), suppress(Killed):
                run.flush()
            assert_alive(run.told)
        if not deaths.is_dead:
            break
        acknowledged = [dict(enumerate(object_upload.parts)) for object_upload in storage.uploads.values()]
        storage.calls.clear()
        with run_daemon(state_dir, storage) as run:
            run.flush()
            assert_alive(run.told)
            assert run.told.lost == [], at
            assert run.journal.pending() == []
            assert list((state_dir / "spool").iterdir()) == []
        assert wal_objects(storage) == expected, at
        assert [key for key in storage.visible if "/wal/" in key] == keys_of(*objects), at
        assert storage.uploads == {}, at
        sent_again = sum(len(parts) for parts in acknowledged) + storage.names().count("upload_part")
        assert sent_again <= 4, at
    assert deaths.passed > 20
    assert not deaths.is_dead


def test_a_kill_while_merging_keeps_every_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever had been merged at the kill, each frame exists once, and all are concatenated in order."""
    objects = [segment(frame, frame, body=bytes([frame]) * 30_000) for frame in range(1, 6)]
    for at in range(1, 1000):
        storage = FakeStorage()
        with run_daemon(tmp_path / str(at), storage) as run:
            run.spool(*objects)
            deaths = Deaths(at)
            with mortal(monkeypatch, storage, deaths), suppress(Killed):
                run.flush()
        if not deaths.is_dead:
            break
        with run_daemon(tmp_path / str(at), storage) as run:
            run.flush()
            assert_alive(run.told)
            assert run.journal.pending() == []
        whole = b"".join(body for _, body in sorted(wal_objects(storage).items()))
        assert whole == b"".join(bytes([frame]) * 30_000 for frame in range(1, 6)), at


def test_an_outage_is_outlasted_and_then_merged(daemon: Run, storage: FakeStorage) -> None:
    """While the storage is away, one request at a time probes. What gathered is uploaded in few objects."""
    away = threading.Event()
    away.set()
    running, together = [0], [0]

    def fail(_call: Call) -> None:
        running[0] += 1
        together[0] = max(together[0], running[0])
        running[0] -= 1
        if away.is_set():
            raise TransientError("put: connection refused")

    storage.before = fail
    daemon.uploader.start()
    for frame in range(1, 41):
        daemon.spool(segment(frame, frame))
    wait_for(lambda: daemon.uploader.outage() is not None)
    assert daemon.told.stored == []
    away.clear()
    wait_for(lambda: daemon.told.stored and daemon.told.stored[-1].last == 40)
    wait_for(lambda: daemon.uploader.outage() is None)
    assert len(daemon.told.stored) <= 3
    assert daemon.told.lost == []


def test_a_refusal_is_noted_at_the_database_and_the_others_go_on(tmp_path: Path, storage: FakeStorage) -> None:
    """One database may not be written, and reports that. The objects of the other one are stored."""

    def refuse(call: Call) -> None:
        if call.key.startswith("other/"):
            raise RefusedError("put other/owner.json: AccessDenied")

    storage.before = refuse
    with run_daemon(tmp_path, storage) as run:
        other = run.journal.database("other", "/srv/other.db")
        run.journal.begin_generation(other.id, G1, "test", "{}", 0)
        refused = Run(run.journal, storage, run.uploader, run.told, other.id)
        run.uploader.start()
        refused.spool(segment(1, 1))
        run.spool(segment(1, 1))
        wait_for(lambda: run.told.stored)
        wait_for(lambda: run.journal.database_by_id(other.id).error)
        assert "AccessDenied" in run.journal.database_by_id(other.id).error
        assert run.uploader.outage() is None
        assert [row.database_id for row in run.told.stored] == [run.database_id]
        assert_alive(run.told)


def test_an_object_that_is_never_taken_ends_the_generation(daemon: Run, storage: FakeStorage) -> None:
    """Objects after it are dropped too, nothing is added after the hole, and the reason names the object."""

    def refuse(call: Call) -> None:
        if call.name == "put" and "00000002/" in call.key:
            raise ImpossibleError(f"put {call.key}: EntityTooLarge")

    storage.before = refuse
    daemon.spool(segment(1, 1), segment(1, 1, epoch=2), segment(1, 1, epoch=3))
    daemon.flush()
    ((database_id, reason),) = daemon.told.lost
    assert database_id == daemon.database_id
    assert "EntityTooLarge" in reason
    assert list(wal_objects(storage)) == keys_of(segment(1, 1))
    assert daemon.spool(segment(2, 2, epoch=3)) == []
    assert daemon.journal.database_by_id(database_id).generation is None
    assert daemon.journal.generations(database_id)[0].reason_ended == reason


def test_the_end_of_one_generation_is_shipped_before_the_next(daemon: Run, storage: FakeStorage) -> None:
    """A generation that ended stays restorable up to its last commit."""
    daemon.spool(segment(1, 1), segment(2, 2))
    daemon.journal.begin_generation(daemon.database_id, G2, "a gap", "{}", 0)
    daemon.spool(segment(1, 1, generation=G2))
    daemon.flush()
    assert [key.split("/")[1] for key in storage.visible if "/wal/" in key] == [G1, G2]


def test_a_task_runs_after_the_claim_and_queues_go_first(daemon: Run, storage: FakeStorage) -> None:
    """A base's part is never the first write to a database's folder."""
    future = daemon.uploader.submit(daemon.database_id, lambda: storage.names()[:])
    daemon.uploader.start()
    calls = future.result(WAIT_S_MAX)
    assert isinstance(calls, list)
    assert "put_if" in calls


def test_a_task_gets_its_error_back(daemon: Run) -> None:
    """The snapshotter handles the error that a base's part gets from the storage."""

    def fail() -> None:
        raise RefusedError("upload part: AccessDenied")

    future = daemon.uploader.submit(daemon.database_id, fail)
    daemon.uploader.start()
    with pytest.raises(RefusedError):
        future.result(WAIT_S_MAX)


@pytest.mark.parametrize("error", [ZeroDivisionError("fault"), UsageError("this key can't be stored here: fault")])
def test_a_fault_in_the_work_for_an_object_is_told_by_its_database(
    tmp_path: Path, storage: FakeStorage, error: Exception
) -> None:
    """The work is tried again, and the fault ends no thread."""

    def fail(_call: Call) -> None:
        raise error

    storage.before = fail
    with run_daemon(tmp_path, storage, uploads_max=2) as run:
        run.uploader.start()
        run.spool(segment(1, 1))
        wait_for(lambda: "fault" in run.journal.database_by_id(run.database_id).error)
        storage.before = lambda _call: None
        wait_for(lambda: run.told.stored)
    assert run.told.crashes == []


def test_a_bug_in_a_thread_is_handed_on(tmp_path: Path, storage: FakeStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that ends the process is notified, and the other threads stop."""

    def fail(*_args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Scheduler, "settle", fail)
    with run_daemon(tmp_path, storage, uploads_max=2) as run:
        run.uploader.start()
        run.spool(segment(1, 1))
        wait_for(lambda: run.told.crashes)
    assert [type(error) for error in run.told.crashes] == [ZeroDivisionError]


def test_a_dropped_spool_aborts_what_was_open(
    tmp_path: Path, storage: FakeStorage, monkeypatch: pytest.MonkeyPatch, small_parts: None
) -> None:
    """No upload is left behind when the application's disk comes first."""

    def die(call: Call) -> None:
        if call.name == "complete_upload":
            raise TransientError("complete: timeout")

    storage.before = die
    with run_daemon(tmp_path, storage) as run:
        run.spool(segment(1, 1, body=LARGE))
        run.flush()
        assert len(storage.uploads) == 1
        storage.before = lambda _call: None
        assert run.uploader.drop_spool(run.database_id) == len(LARGE)
    with run_daemon(tmp_path, storage) as run:
        run.uploader.start()
        wait_for(lambda: not storage.uploads)
        wait_for(lambda: not run.journal.leftovers())
        assert list((tmp_path / "spool").iterdir()) == []
