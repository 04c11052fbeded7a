"""Tests that a closed epoch becomes one object: right at every moment, killed anywhere, from the journal or from the
store.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.compaction import History, make_compactor, make_history, ship
from tests.fakes import Call, Deaths, FakeStorage, Killed
from tests.shipping import NAME, mortal
from walsyncd.adapters.journal.epoch_table import Epoch
from walsyncd.adapters.journal.journal import Journal
from walsyncd.adapters.storage.interface import ObjectInfo
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.keep.retention import HOUR_MS
from walsyncd.core.restore.coverage import cover_epoch, listing_of
from walsyncd.core.send.multipart import PUT_SIZE_MAX
from walsyncd.core.stored.layout import SegmentKey, WholeKey, format_key, parse_key
from walsyncd.core.stored.moment import CLOCK_OFF_MS
from walsyncd.engine.restore.bridge_reader import read_bridge
from walsyncd.engine.restore.replica import Replica
from walsyncd.errors import RefusedError, TransientError

ROOM = 1 << 30


def run_jobs(journal: Journal, storage: FakeStorage, now_ms: int, *, put_bytes_max: int = PUT_SIZE_MAX) -> None:
    compactor = make_compactor(journal, storage, lambda: now_ms, put_bytes_max=put_bytes_max)
    for job in [*compactor.replacements(), *compactor.compactions(None)]:
        job()


def keys(storage: FakeStorage) -> list[SegmentKey | WholeKey]:
    parsed = [parse_key(name.removeprefix(f"{NAME}/")) for name in storage.objects]
    return [key for key in parsed if isinstance(key, SegmentKey | WholeKey)]


def assert_whole(storage: FakeStorage, history: History) -> None:
    """Assert that every frame can be read with the same bytes as before, as a plan and the script by hand would take
    them.
    """
    (part,) = listing_of(keys(storage)).generations
    for epoch in (1, 2):
        run = cover_epoch(part, epoch)
        assert (run.first, run.last) == (1, max(key.last for key, _ in history.segments if key.epoch == epoch))
        bodies = [storage.objects[name].body for key in run.objects for name in storage.objects if _is(name, key)]
        assert b"".join(bodies) == history.body(epoch)


def _is(name: str, key: SegmentKey | WholeKey) -> bool:
    return parse_key(name.removeprefix(f"{NAME}/")) == key


@pytest.mark.parametrize("room", [ROOM, 0, 700])
def test_a_closed_epoch_becomes_one_object_and_its_segments_go_an_hour_later(tmp_path: Path, room: int) -> None:
    """The object is made of bodies that the journal kept, or of those in the store, or of both."""
    history, storage = make_history(tmp_path), FakeStorage()
    with Journal.open(tmp_path / "state") as journal:
        journal.keep_bodies(room)
        ship(journal, storage, history)
        storage.calls.clear()
        run_jobs(journal, storage, 1_000)
        names = storage.names()
        assert names.count("get") == {ROOM: 1, 0: 4}.get(room, names.count("get"))
        assert (names.count("put"), names.count("list"), names.count("delete")) == (1, 1, 0)
        assert_whole(storage, history)
        assert len(keys(storage)) == 7
        run_jobs(journal, storage, 1_000 + HOUR_MS - 1)
        assert len(keys(storage)) == 7
        run_jobs(journal, storage, 1_000 + HOUR_MS)
        assert_whole(storage, history)
        assert [type(key) for key in sorted(keys(storage), key=lambda key: key.epoch)] == [WholeKey, *[SegmentKey] * 3]
        assert journal.closed_epochs() == []


def test_an_epoch_that_begins_with_a_bridge_says_so_as_one_object(tmp_path: Path) -> None:
    """The name keeps its field, and the object keeps what the trailer of the bridge says."""
    history, storage = make_history(tmp_path, bridge=True), FakeStorage()
    with Journal.open(tmp_path / "state") as journal:
        journal.keep_bodies(ROOM)
        ship(journal, storage, history)
        run_jobs(journal, storage, 0)
        run_jobs(journal, storage, HOUR_MS)
    assert_whole(storage, history)
    (whole,) = [key for key in keys(storage) if isinstance(key, WholeKey)]
    assert (whole.epoch, whole.bridge) == (1, True)
    assert format_key(whole).endswith(".bridge.wal.zst")
    assert read_bridge(Replica(storage, NAME), whole).span.reason == "the daemon was stopped"


def test_killed_anywhere_the_end_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compactor is killed before and after every request and every transaction. All can be read at each moment."""
    history = make_history(tmp_path)
    for at in range(1, 200):
        state, storage, deaths = tmp_path / f"state-{at}", FakeStorage(), Deaths(at)
        with Journal.open(state) as journal:
            journal.keep_bodies(ROOM)
            ship(journal, storage, history)
        killed = False
        try:
            with Journal.open(state) as journal, mortal(monkeypatch, storage, deaths):
                journal.keep_bodies(ROOM)
                run_jobs(journal, storage, 1_000)
                run_jobs(journal, storage, 1_000 + HOUR_MS)
        except Killed:
            killed = True
        assert_whole(storage, history)
        with Journal.open(state) as journal:
            journal.sweep()
            journal.keep_bodies(ROOM)
            run_jobs(journal, storage, 2_000 + HOUR_MS)
            run_jobs(journal, storage, 3_000 + 2 * HOUR_MS)
            assert journal.closed_epochs() == []
        assert_whole(storage, history)
        assert [key for key in keys(storage) if isinstance(key, SegmentKey) and key.epoch == 1] == []
        if not killed:
            return
    pytest.fail("it never came through")


def test_the_open_epoch_is_left_alone(tmp_path: Path) -> None:
    """An epoch that may still grow, or that is not stored to its end, is not compacted."""
    history, storage = make_history(tmp_path), FakeStorage()
    with Journal.open(tmp_path / "state") as journal:
        journal.keep_bodies(ROOM)
        ship(journal, storage, History(history.generation, history.segments[:3]))
        assert journal.closed_epochs() == []


def test_an_ended_generation_closes_its_last_epoch(tmp_path: Path) -> None:
    """Nothing can be added to the last epoch, so all of it is stored."""
    history, storage = make_history(tmp_path), FakeStorage()
    with Journal.open(tmp_path / "state") as journal:
        journal.keep_bodies(ROOM)
        database_id = ship(journal, storage, history)
        journal.end_generation(database_id, Gap.of(GapKind.OTHER, "test"), 0)
        assert [epoch.epoch for epoch in journal.closed_epochs()] == [1, 2]


def test_an_epoch_of_one_segment_stays_as_it_is(tmp_path: Path) -> None:
    """Replacing one object by another would cost two requests for nothing."""
    history, storage = make_history(tmp_path, segments=1), FakeStorage()
    with Journal.open(tmp_path / "state") as journal:
        journal.keep_bodies(ROOM)
        ship(journal, storage, history)
        storage.calls.clear()
        run_jobs(journal, storage, 0)
        assert (storage.calls, journal.closed_epochs()) == ([], [])


def test_what_does_not_read_back_is_taken_away(tmp_path: Path) -> None:
    """A damaged body gives no object, because readers would prefer it to the segments, which are sound."""
    history, storage = make_history(tmp_path), FakeStorage()
    with Journal.open(tmp_path / "state") as journal:
        journal.keep_bodies(ROOM)
        ship(journal, storage, history)
        with journal._transaction() as connection:
            connection.execute("UPDATE kept SET body = zeroblob(size) WHERE first > 1 AND epoch = 1")
        run_jobs(journal, storage, 0)
        assert [key for key in keys(storage) if isinstance(key, WholeKey)] == []
        assert_whole(storage, history)


def test_a_large_epoch_goes_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts have one size. What an earlier attempt left open is aborted first."""
    monkeypatch.setattr("walsyncd.engine.upkeep.compactor.part_size", lambda _size: 300)
    history, storage = make_history(tmp_path), FakeStorage()

    def refuse(call: Call) -> None:
        if call.name == "complete_upload":
            raise TransientError("away")

    with Journal.open(tmp_path / "state") as journal:
        journal.keep_bodies(ROOM)
        ship(journal, storage, history)
        storage.before = refuse
        with pytest.raises(TransientError):
            run_jobs(journal, storage, 0, put_bytes_max=100)
        storage.before = lambda _call: None
        run_jobs(journal, storage, 0, put_bytes_max=100)
        assert storage.uploads == {}
        assert [key.epoch for key in keys(storage) if isinstance(key, WholeKey)] == [1]
        assert_whole(storage, history)


def test_segments_stay_where_deletion_is_refused_or_the_object_has_gone(tmp_path: Path) -> None:
    """If another daemon owns the folder, or the clock is off, nothing is deleted.

    A segment without a copy is never deleted.
    """
    history, storage = make_history(tmp_path), FakeStorage()

    def refuse(_database_id: int) -> None:
        raise RefusedError("another daemon writes here")

    with Journal.open(tmp_path / "state") as journal:
        journal.keep_bodies(ROOM)
        database_id = ship(journal, storage, history)
        run_jobs(journal, storage, 0)
        (job,) = make_compactor(journal, storage, lambda: HOUR_MS, refuse).replacements()
        with pytest.raises(RefusedError):
            job()
        assert len(keys(storage)) == 7
        (name,) = [name for name in storage.objects if "/whole/" in name]
        del storage.objects[name]
        run_jobs(journal, storage, HOUR_MS)
        assert_whole(storage, history)
        assert journal.kept(Epoch(database_id, history.generation, 1)) == []


class OverwrittenStorage(FakeStorage):
    """A storage in which wholes were written two hours after everything else."""

    def head(self, key: str) -> ObjectInfo | None:
        info = super().head(key)
        return replace(info, modified_ms=2 * HOUR_MS) if info and "/whole/" in key else info


@pytest.mark.parametrize("harm", ["garbage of the same size", "other size", "removed", "the same again"])
def test_segments_stay_where_the_object_was_overwritten(tmp_path: Path, harm: str) -> None:
    """Somebody overwrote the object after it was read back, so it is read once more.

    The segments stay unless it is sound.
    """
    history, storage = make_history(tmp_path), OverwrittenStorage()
    with Journal.open(tmp_path / "state") as journal:
        journal.keep_bodies(ROOM)
        ship(journal, storage, history)
        run_jobs(journal, storage, 0)
        (name,) = [name for name in storage.objects if "/whole/" in name]
        body = storage.objects[name].body
        bodies = {"garbage of the same size": bytes(len(body)), "other size": body + b"x", "the same again": body}
        if harm == "removed":
            storage.delete([name])
        else:
            storage.put(name, bodies[harm], metadata={})
        run_jobs(journal, storage, HOUR_MS)
    left = sum(isinstance(key, SegmentKey) and key.epoch == 1 for key in keys(storage))
    assert left == (0 if harm == "the same again" else 3)


@pytest.mark.parametrize("ahead_ms", [CLOCK_OFF_MS, CLOCK_OFF_MS + 1])
def test_segments_of_a_clock_that_was_ahead_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, ahead_ms: int
) -> None:
    """The times when the store received the segments show that the segments' own times are wrong.

    The compacted object would have the time of another moment.
    """
    history, storage = make_history(tmp_path), FakeStorage()
    stored_ms = history.segments[1][0].time_ms - ahead_ms
    list_all = storage.list

    def listed(prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        return (replace(info, modified_ms=stored_ms) for info in list_all(prefix, start_after=start_after))

    monkeypatch.setattr(storage, "list", listed)
    with Journal.open(tmp_path / "state") as journal:
        journal.keep_bodies(ROOM)
        ship(journal, storage, History(history.generation, history.segments[:2] + history.segments[3:]))
        before = keys(storage)
        run_jobs(journal, storage, 1_000)
        run_jobs(journal, storage, 1_000 + 2 * HOUR_MS)
        assert (keys(storage) == before) is (ahead_ms > CLOCK_OFF_MS)
        assert journal.closed_epochs() == []


def test_a_segment_that_became_longer_is_not_put_together(tmp_path: Path) -> None:
    """However long the segment is, no more is uploaded than was stored."""
    history, storage = make_history(tmp_path), FakeStorage()
    with Journal.open(tmp_path / "state") as journal, capture_logs() as logs:
        journal.keep_bodies(0)
        ship(journal, storage, history)
        first = next(name for name in storage.objects if "/wal/00000001/00000001-" in name)
        storage.put(first, storage.objects[first].body + b"x", metadata={})
        run_jobs(journal, storage, 1_000)
    (told,) = [log for log in logs if log["event"] == "epoch_not_compacted"]
    assert "more than the" in told["reason"]
    assert not any(isinstance(key, WholeKey) and key.epoch == 1 for key in keys(storage))
