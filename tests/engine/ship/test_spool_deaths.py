"""Tests of a kill, or a power cut, at every call that the spool and the journal make: nothing that was
noted is lost.
"""

from __future__ import annotations

import shutil
import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from tests.fakes import Deaths, FakeStorage, Killed
from tests.power import PowerCuts, deadly_files
from tests.shipping import G1, G2, NAME, T0, WAIT_S_MAX, Run, assert_alive, mortal, run_daemon, segment, wait_for
from walsyncd.adapters.journal import database_table
from walsyncd.adapters.journal.deferred_changes import DeferredChanges
from walsyncd.adapters.journal.journal import Advance, Journal, NewObject, reader
from walsyncd.core.send.multipart import PART_SIZE_MIN
from walsyncd.core.stored.layout import SegmentKey, parse_key

LARGE = bytes(range(256)) * 1000  # a file of the spool
OBJECTS = (segment(1, 3), segment(4, 5, body=LARGE), segment(6, 6, body=LARGE), segment(1, 2, epoch=2, body=LARGE))
POINTS_MAX = 1000
UPLOADS_MAX, DATABASES, PARTS = 3, 4, 4


def new(objects: Sequence[NewObject]) -> dict[str, bytes]:
    """Return the bodies by key."""
    return {f"{NAME}/{each.key}": each.body for each in objects if isinstance(each.body, bytes)}


def stored(storage: FakeStorage) -> dict[str, bytes]:
    return {key: found.body for key, found in storage.objects.items() if "/wal/" in key}


def assert_every_frame_once(storage: FakeStorage) -> None:
    """No two objects hold the same frame."""
    keys = [parse_key(key.removeprefix(f"{NAME}/")) for key in stored(storage)]
    frames = [(k.generation, k.epoch, f) for k in keys if isinstance(k, SegmentKey) for f in range(k.first, k.last + 1)]
    assert len(frames) == len(set(frames))


def assert_ships_all(state_dir: Path, storage: FakeStorage, expected: Sequence[bytes], at: int) -> None:
    """Assert that the next run uploads the rest in order, and leaves nothing behind."""
    with run_daemon(state_dir, storage) as run:
        run.flush()
        assert_alive(run.told)
        assert (run.told.lost, run.told.rewound) == ([], []), at
        assert run.journal.pending() == []
    assert list((state_dir / "spool").iterdir()) == [], at
    assert b"".join(body for _, body in sorted(stored(storage).items())) == b"".join(expected), at
    assert_every_frame_once(storage)
    assert storage.uploads == {}


def die(
    doing: Callable[[Run], object], state_dir: Path, storage: FakeStorage, deaths: Deaths, cuts: PowerCuts | None
) -> None:
    """Do something in a run that dies on the way."""
    with pytest.MonkeyPatch.context() as patch, run_daemon(state_dir, storage) as run, ExitStack() as stack:
        stack.enter_context(mortal(patch, storage, deaths))
        stack.enter_context(deadly_files(patch, deaths, cuts))
        with suppress(Killed):
            doing(run)
        assert_alive(run.told)


@pytest.mark.parametrize("how", ["kill", "power cut"])
def test_uploads_survive_a_death_at_any_call(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls include the removal of bodies and merging. A power cut leaves whatever had reached the disk."""
    monkeypatch.setattr(database_table, "_identity", lambda _path: "the same")  # a copy of the folder is cut
    expected = list(new(OBJECTS).values())
    for at in range(1, POINTS_MAX):
        storage, state_dir, found = FakeStorage(), tmp_path / f"{at}", tmp_path / f"{at}-found"
        with run_daemon(state_dir, storage) as run:
            run.spool(*OBJECTS)
        deaths, cuts = Deaths(at), PowerCuts(state_dir)
        cuts.trust_all()
        if how == "power cut":
            deaths.dying = lambda cuts=cuts, found=found, at=at: cuts.cut(found, at)  # type: ignore[misc]
        die(Run.flush, state_dir, storage, deaths, cuts)
        if not deaths.is_dead:
            break
        assert_ships_all(found if how == "power cut" else state_dir, storage, expected, at)
        shutil.rmtree(state_dir)
    assert deaths.passed > 35


@pytest.mark.parametrize("how", ["kill", "power cut"])
def test_spooling_survives_a_death_at_any_call(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either the row exists and its body is whole, or neither exists and the frames are read again, never twice."""
    monkeypatch.setattr(database_table, "_identity", lambda _path: "the same")
    outcomes = set()
    for at in range(1, POINTS_MAX):
        storage, state_dir, found = FakeStorage(), tmp_path / f"{at}", tmp_path / f"{at}-found"
        deaths, cuts = Deaths(at), PowerCuts(state_dir)
        if how == "power cut":
            deaths.dying = lambda cuts=cuts, found=found, at=at: cuts.cut(found, at)  # type: ignore[misc]
        die(lambda run: run.spool(*OBJECTS[:3]), state_dir, storage, deaths, cuts)
        if not deaths.is_dead:
            break
        left = found if how == "power cut" else state_dir
        with run_daemon(left, storage) as run:
            rows = run.journal.pending()
            if not rows:
                run.spool(*OBJECTS[:3])
        outcomes.add(len(rows))
        assert_ships_all(left, storage, list(new(OBJECTS[:3]).values()), at)
    assert outcomes == {0, 3}


@pytest.mark.parametrize("how", ["kill", "power cut"])
def test_objects_that_leave_at_once_survive_a_death_at_any_call(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The objects are begun with their rows, and noted as stored with the next row.

    The journal on the disk lacks at most one of the objects that are stored.
    """
    monkeypatch.setattr(database_table, "_identity", lambda _path: "the same")
    monkeypatch.setattr(DeferredChanges, "is_worthwhile", lambda _self: True)
    objects = [segment(1, 3), segment(4, 5), segment(6, 6, body=LARGE), segment(1, 2, epoch=2), segment(3, 3, epoch=2)]
    lacking = set()

    def follow(run: Run) -> None:
        run.uploader.start()
        for count, each in enumerate(objects, start=1):
            run.spool(each, begin=run.uploader.may_leave_at_once(run.database_id))
            wait_for(lambda count=count: run.told.crashes or len(run.told.stored) == count)  # type: ignore[misc]
            wait_for(lambda: run.told.crashes or run.uploader.may_leave_at_once(run.database_id))
        run.uploader.stop(WAIT_S_MAX)

    for at in range(1, POINTS_MAX):
        storage, state_dir, found = FakeStorage(), tmp_path / f"{at}", tmp_path / f"{at}-found"
        deaths, cuts = Deaths(at), PowerCuts(state_dir)
        if how == "power cut":
            deaths.dying = lambda cuts=cuts, found=found, at=at: cuts.cut(found, at)  # type: ignore[misc]
        die(follow, state_dir, storage, deaths, cuts)
        if not deaths.is_dead:
            break
        left = found if how == "power cut" else state_dir
        with closing(reader(left)) as journal:
            behind = [row.key for row in journal.pending() if f"{NAME}/{row.key}" in storage.objects]
        assert len(behind) <= 1, at
        lacking.add(len(behind))
        with run_daemon(left, storage) as run:
            row = run.journal.database_by_id(run.database_id)
            done = {(row.stored_epoch, row.stored_frame)} | {(each.epoch, each.last) for each in run.journal.pending()}
            run.spool(*[each for each in objects if (each.epoch, each.last) > max(done)])
        assert_ships_all(left, storage, [each.body for each in objects if isinstance(each.body, bytes)], at)
    assert deaths.passed > 20
    assert lacking == {0, 1}


def test_the_start_of_a_generation_survives_a_death_at_any_call(tmp_path: Path) -> None:
    """The rest of the old generation is uploaded first, and the new one has its first object once."""

    def begin(run: Run) -> None:
        run.journal.begin_generation(run.database_id, G2, "a gap", "{}", T0)
        run.spool(segment(1, 1, generation=G2, body=LARGE))
        run.flush()

    for at in range(1, POINTS_MAX):
        storage, state_dir = FakeStorage(), tmp_path / f"{at}"
        with run_daemon(state_dir, storage) as run:
            run.spool(segment(1, 1))
        deaths = Deaths(at)
        die(begin, state_dir, storage, deaths, None)
        if not deaths.is_dead:
            break
        with run_daemon(state_dir, storage) as run:
            row = run.journal.database_by_id(run.database_id)
            assert row.generation in {G1, G2}
            if row.generation == G1:
                run.journal.begin_generation(row.id, G2, "a gap", "{}", T0)
            known = {waiting.generation for waiting in run.journal.pending()} | {row.stored_generation}
            if G2 not in known:
                run.spool(segment(1, 1, generation=G2, body=LARGE))
        assert_ships_all(state_dir, storage, [b"<1:1>", LARGE], at)
        assert [key.split("/")[1] for key in storage.visible if "/wal/" in key] == [G1, G2]
    assert deaths.passed > 20


class Sink(FakeStorage):
    """A storage that keeps no bodies."""

    def upload_part(self, key: str, upload_id: str, number: int, body: bytes) -> str:
        etag = super().upload_part(key, upload_id, number, body)
        parts = self.uploads[upload_id].parts
        parts[-1] = (parts[-1][0], b"")
        return etag


def test_memory_is_bounded_by_the_uploads_at_a_time(tmp_path: Path) -> None:
    """However large the objects are, there is one part in memory for each upload under way."""
    storage = Sink()
    with run_daemon(tmp_path, storage, uploads_max=UPLOADS_MAX) as run:
        for number in range(DATABASES):
            row = run.journal.database(f"db-{number}", f"/srv/{number}.db")
            run.journal.begin_generation(row.id, G1, "test", "{}", T0)
            with run.journal.spool_file_writer() as writer:
                for _ in range(PARTS):
                    writer.write(bytes(PART_SIZE_MIN))
                body = writer.finish()
            run.uploader.offer(run.journal.advance([Advance(row.id, "{}", (segment(1, 1, body=body),))]))
        tracemalloc.start()
        try:
            run.flush()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert_alive(run.told)
        assert len(run.told.stored) == DATABASES
    assert peak <= UPLOADS_MAX * PART_SIZE_MIN + (4 << 20)


def test_the_journal_is_as_durable_as_these_tests_take_it_for(tmp_path: Path) -> None:
    """The journal is in WAL mode, and a COMMIT waits for the disk."""
    with Journal.open(tmp_path) as journal:
        assert journal._connection.execute("PRAGMA synchronous").fetchall() == [(2,)]
        assert journal._connection.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
