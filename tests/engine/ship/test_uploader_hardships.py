"""Tests of the uploader in trouble: outages, a full disk of our own, spooled bytes that changed, and many threads."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.fakes import Call, FakeStorage
from tests.shipping import G1, T0, Run, assert_alive, run_daemon, segment, wait_for
from walsyncd.adapters.journal.journal import Advance, ObjectRow
from walsyncd.core.send.merge import MERGED_SIZE_MAX
from walsyncd.engine.ship.scheduler import Job
from walsyncd.engine.ship.shipper import REWINDS_MAX
from walsyncd.errors import StateError, TransientError

LARGE = bytes(range(256)) * 1000  # a file of the spool


@pytest.fixture
def storage() -> FakeStorage:
    return FakeStorage()


def wal_objects(storage: FakeStorage) -> dict[str, bytes]:
    return {key: found.body for key, found in storage.objects.items() if "/wal/" in key}


def rows_of(run: Run) -> int:
    return int(run.journal._rows("SELECT count(*) FROM object")[0][0])


def test_many_threads_are_not_all_woken_by_one_commit(tmp_path: Path, storage: FakeStorage) -> None:
    """An event wakes one or two of them, however many sleep."""
    with run_daemon(tmp_path, storage, uploads_max=16) as run:
        run.uploader.pace(run.database_id, 0.001)
        run.uploader.start()
        asked = [0]
        ask = run.uploader._scheduler.next

        def counted(now_ms: float, deferred_s: float | None = None) -> Job:
            asked[0] += 1
            return ask(now_ms, deferred_s)

        run.uploader._scheduler.next = counted  # type: ignore[method-assign]
        for frame in range(1, 101):
            run.spool(segment(frame, frame))
            wait_for(lambda: run.journal.pending() == [])
        assert_alive(run.told)
        assert asked[0] < 100 * 6, "with all of them woken it would be 1,600 at least"


def test_after_an_outage_a_request_brings_eight_mebibytes(tmp_path: Path, storage: FakeStorage) -> None:
    """Thousands of segments are sent in as few objects as their bytes fill, and none is missing."""
    away = [True]

    def fail(_call: Call) -> None:
        if away[0]:
            raise TransientError("put: connection refused")

    storage.before = fail
    bodies = [frame.to_bytes(4, "big") * 750 for frame in range(1, 9001)]
    with run_daemon(tmp_path, storage, uploads_max=2) as run:
        run.uploader.start()
        for start in range(0, 9000, 500):
            run.spool(*(segment(frame + 1, frame + 1, body=bodies[frame]) for frame in range(start, start + 500)))
        wait_for(lambda: rows_of(run) < 2000)  # they are merged while the storage is away
        assert_alive(run.told)
    away[0] = False
    storage.calls.clear()
    with run_daemon(tmp_path, storage, uploads_max=2) as run:
        run.flush()
        assert run.journal.pending() == []
        assert_alive(run.told)
    spooled = sum(map(len, bodies))
    assert b"".join(body for _, body in sorted(wal_objects(storage).items())) == b"".join(bodies)
    assert storage.names().count("put") <= spooled / MERGED_SIZE_MAX + 3


def test_a_base_that_the_store_does_not_take_holds_nobody_back(tmp_path: Path, storage: FakeStorage) -> None:
    """Each request of the base fails, and those of other databases succeed.

    Their commits are stored, and there is no outage.
    """

    def fail() -> None:
        raise TransientError("upload part 7: read timeout")

    with capture_logs() as said, run_daemon(tmp_path, storage, uploads_max=2) as run:
        run.uploader.pace(run.database_id, 0.001)
        run.uploader.start()
        other = run.journal.database("other", "/srv/other.db").id
        run.journal.begin_generation(other, G1, "test", "{}", T0)
        for frame in range(1, 20):
            failing = run.uploader.submit(other, fail)
            wait_for(failing.done)
            assert run.uploader.outage() is None
            run.spool(segment(frame, frame))
            wait_for(lambda: run.journal.pending() == [])
        assert_alive(run.told)
    assert "storage_went_away" not in [line["event"] for line in said]


@pytest.mark.parametrize("begun", [False, True], ids=["never sent", "perhaps sent"])
def test_spooled_bytes_that_changed_are_read_again_if_they_never_left(
    tmp_path: Path, storage: FakeStorage, begun: bool
) -> None:
    """Changed bytes are never sent.

    A segment that may have reached the store can't be cut again, so its generation ends.
    """
    with run_daemon(tmp_path, storage) as run:
        run.journal.advance([Advance(run.database_id, "before", ())])
        (row,) = run.journal.advance([Advance(run.database_id, "after", (segment(1, 1, body=LARGE),), begin=begun)])
        run.spool(segment(2, 2))
    (file,) = (path for path in (tmp_path / "spool").iterdir() if path.name == row.body_path)
    file.write_bytes(b"x" + LARGE[1:])
    with run_daemon(tmp_path, storage) as run:
        run.flush()
        database = run.journal.database_by_id(run.database_id)
        assert wal_objects(storage) == {}
        assert run.journal.pending() == []
        if begun:
            assert "changed on disk" in run.told.lost[0][1]
            assert database.generation is None
        else:
            assert "changed on disk" in run.told.rewound[0]
            assert run.told.lost == []
            assert (database.follow, database.rewinds) == ("before", 1)
            stale = Advance(run.database_id, "stale", (segment(3, 3),), rewinds=0)
            assert run.journal.advance([stale]) == [], "what follows on from what was dropped is not taken"


def test_a_disk_that_spoils_everything_is_given_up(tmp_path: Path, storage: FakeStorage) -> None:
    """Reading again and again would never end."""
    with run_daemon(tmp_path, storage) as run:
        for _ in range(REWINDS_MAX + 1):
            run.spool(segment(1, 1, body=LARGE))
            (file,) = (tmp_path / "spool").iterdir()
            file.write_bytes(b"x")
            run.uploader._shipper.drain(run.uploader._queue(run.database_id), is_urgent=True, check_ownership=False)
        assert len(run.told.rewound) == REWINDS_MAX
        assert len(run.told.lost) == 1


def test_a_stop_does_not_wait_for_an_answer_that_never_comes(tmp_path: Path, storage: FakeStorage) -> None:
    """Requests under way stay in the journal. Whatever happens to them later disturbs nobody."""
    answer = threading.Event()

    def hold(call: Call) -> None:
        if call.name == "put":
            answer.wait()

    storage.before = hold
    with run_daemon(tmp_path, storage, uploads_max=2) as run:
        run.uploader.start()
        run.spool(segment(1, 1))
        wait_for(lambda: "put" in storage.names())
        assert not run.uploader.stop(0.05, linger_s=0.05)
        assert len(run.journal.pending()) == 1
        run.journal.close()
        answer.set()
        assert run.uploader.stop(linger_s=30.0)
        assert run.told.crashes == []
    with run_daemon(tmp_path, storage) as run:
        run.flush()
        assert run.journal.pending() == []
        assert len(wal_objects(storage)) == 1


def test_our_own_full_disk_is_no_outage(tmp_path: Path, storage: FakeStorage) -> None:
    """The full disk is reported once as what it is.

    Nothing crashes, and nothing stored is sent again when there is room.
    """
    with capture_logs() as said, run_daemon(tmp_path, storage) as run:
        run.spool(segment(1, 1), segment(1, 1, epoch=2))
        full = [True]
        stored = run.journal.stored_deferred

        def refuse(row: ObjectRow, *, now_ms: int, tokens: float) -> bool:
            if full[0]:
                raise StateError("write journal: database or disk is full")
            return stored(row, now_ms=now_ms, tokens=tokens)

        run.journal.stored_deferred = refuse  # type: ignore[method-assign]
        assert (tmp_path / "reserve").exists()
        run.uploader.start()
        wait_for(lambda: storage.names().count("head") >= 2)
        assert run.uploader.outage() is None
        assert not (tmp_path / "reserve").exists(), "given up to make room"
        full[0] = False
        wait_for(lambda: run.journal.pending() == [])
        wait_for((tmp_path / "reserve").exists)
        assert_alive(run.told)
    assert storage.names().count("put") == 2
    events = [line["event"] for line in said]
    assert events.count("state_dir_not_writable") == 1
    assert "storage_went_away" not in events


def test_after_a_merged_object_failed_the_next_one_is_smaller(tmp_path: Path, storage: FakeStorage) -> None:
    """The failed object itself stays as it was, because its name may be in the store. All arrives, in order."""
    failures = [1]

    def fail(call: Call) -> None:
        if call.name == "put" and "/wal/" in call.key and failures[0]:
            failures[0] -= 1
            raise TransientError("the line broke off")

    storage.before = fail
    with run_daemon(tmp_path, storage, uploads_max=2) as run:
        frames = range(1, 65)
        run.spool(*[segment(frame, frame, body=b"%08d" % frame * (64 << 10)) for frame in frames])
        run.uploader.start()
        wait_for(lambda: run.journal.pending() == [])
    sizes = [len(storage.objects[key].body) for key in storage.visible if "/wal/" in key]
    assert sizes[:3] == [MERGED_SIZE_MAX, MERGED_SIZE_MAX // 2, MERGED_SIZE_MAX]
    assert sum(sizes) == 64 * (512 << 10)
