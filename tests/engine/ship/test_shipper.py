"""Turns of a lane, one by one, without threads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import FakeStorage
from tests.shipping import G1, G2, NAME, T0, Told, segment
from walsyncd.adapters.journal.journal import Advance, Journal, NewObject, ObjectKind, ObjectRow
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.send.pacing import Bucket
from walsyncd.core.stored.layout import BaseKey, ManifestKey, format_key
from walsyncd.core.stored.owner import Owner, format_owner
from walsyncd.engine.ship import shipper
from walsyncd.engine.ship.database_queue import LOOK_UPLOADS_MAX, DatabaseQueue
from walsyncd.engine.ship.ownership import Identity, Ownership, Standing
from walsyncd.engine.ship.shipper import QueueResult, Shipper

HOUR_MS = 3_600_000.0
MANIFEST = NewObject(
    ObjectKind.MANIFEST, format_key(ManifestKey(BaseKey(G1, 1, 0, "0000abcd"), 1, 1, T0)), b"{}", 1, 0, 1, T0, G1
)


class Quay:
    """A journal, a storage and a lane; its clock stands still unless moved."""

    def __init__(self, state_dir: Path) -> None:
        self.journal = Journal.open(state_dir)
        self.storage = FakeStorage()
        self.told = Told()
        self.now_ms = 0.0
        self.wall_ahead_ms = T0
        self.journal.begin_generation(self.journal.database(NAME, "/srv/app.db").id, G1, "first", "{}", 0)
        self.queue = DatabaseQueue(1, NAME, Bucket(2.0, 0.0), HOUR_MS)
        self.shipper = Shipper(
            self.journal,
            self.storage,
            Ownership(self.journal, self.storage, Identity("web-1", "machine-1", "run-1"), lambda: T0),
            self.told,
            resumed_upto=0,
            wall_ms=lambda: self.wall_ahead_ms + int(self.now_ms),
            monotonic_ms=lambda: self.now_ms,
        )

    def spool(self, *objects: NewObject, begin: bool = False) -> list[ObjectRow]:
        return self.journal.advance([Advance(1, "{}", objects, begin)])

    def drain(self, *, is_urgent: bool = False, check_ownership: bool = False) -> QueueResult:
        return self.shipper.drain(self.queue, is_urgent=is_urgent, check_ownership=check_ownership)

    def stored(self) -> list[str]:
        return [row.key for row in self.told.stored]


@pytest.fixture
def quay(tmp_path: Path) -> Iterator[Quay]:
    quay = Quay(tmp_path)
    yield quay
    quay.journal.close()


def test_an_empty_lane_asks_nothing(quay: Quay) -> None:
    """Neither the storage nor for another turn."""
    assert quay.drain() == QueueResult()
    assert quay.storage.calls == []


def test_what_gathered_goes_as_one_for_one_token(quay: Quay) -> None:
    """Three segments of an epoch, and then the next epoch's first."""
    *_, behind = quay.spool(segment(1, 1), segment(2, 2), segment(3, 5), segment(1, 1, epoch=2))
    drain = quay.drain()
    assert drain == QueueResult(next_id=behind.id, bytes_left=behind.size, reached_storage=True)
    assert quay.stored() == [segment(1, 5).key]
    assert quay.queue.level(0.0) == 1.0
    assert quay.storage.objects[f"{NAME}/{segment(1, 5).key}"].body == segment(1, 5).body


def test_without_a_token_it_stays(quay: Quay) -> None:
    """Not even merged; the turn says how much waits. Stopping and sync send it."""
    quay.queue.bucket = Bucket(0.0, 0.0)
    first, second = quay.spool(segment(1, 1), segment(2, 2))
    drain = quay.drain()
    assert drain == QueueResult(next_id=first.id, bytes_left=first.size + second.size, reached_storage=True)
    assert quay.journal.pending() == [first, second]
    quay.queue.urgent_upto = second.id
    assert quay.drain() == QueueResult(reached_storage=True)
    quay.spool(segment(3, 3))
    assert quay.drain().next_id is not None
    assert quay.drain(is_urgent=True).next_id is None
    assert quay.stored() == [segment(1, 2).key, segment(3, 3).key]


def test_what_leaves_at_once_takes_its_token(quay: Quay) -> None:
    """Written as begun, sent without HEAD."""
    quay.spool(segment(1, 1))
    quay.drain()
    quay.storage.calls.clear()
    quay.spool(segment(2, 2), begin=True)
    quay.drain()
    assert quay.storage.names() == ["put"]
    assert quay.queue.level(0.0) == 0.0
    assert quay.journal.database_by_id(1).tokens == 0.0


def test_a_manifest_needs_no_token_and_goes_alone(quay: Quay) -> None:
    """Behind the segments that it relies on."""
    quay.queue.bucket = Bucket(0.0, 0.0)
    quay.spool(segment(1, 1), MANIFEST, segment(2, 2))
    quay.drain()
    quay.drain()
    assert quay.stored() == [segment(1, 1).key, MANIFEST.key]
    assert quay.journal.database_by_id(1).base_key == MANIFEST.key
    assert quay.drain().next_id is not None


def test_more_rows_than_a_turn_looks_at(quay: Quay, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are gathered before they are sent: one object anyway, and none is overlooked."""
    monkeypatch.setattr(shipper, "ROWS_MAX", 3)
    quay.queue.bucket = Bucket(0.0, 0.0)
    quay.spool(*(segment(frame, frame) for frame in range(1, 8)))
    while quay.drain(is_urgent=True).next_id is not None:
        pass
    assert quay.stored() == [segment(1, 7).key]
    assert quay.storage.objects[f"{NAME}/{segment(1, 7).key}"].body == segment(1, 7).body


def test_a_crowd_is_merged_while_nothing_can_be_sent(quay: Quay, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few are left as they are, what was begun stays alone, and the storage is not asked."""
    monkeypatch.setattr(shipper, "CROWD", 3)
    begun = quay.spool(segment(1, 1), begin=True)
    quay.spool(*(segment(frame, frame) for frame in range(2, 6)), segment(1, 1, epoch=2), segment(2, 2, epoch=2))
    quay.shipper.merge_waiting(quay.queue)
    assert [row.key for row in quay.journal.pending()] == [
        begun[0].key,
        segment(2, 5).key,
        segment(1, 1, epoch=2).key,
        segment(2, 2, epoch=2).key,
    ]
    assert quay.storage.calls == []


def test_the_owner_is_looked_at_with_every_64th_upload_and_hourly(quay: Quay) -> None:
    """And not otherwise."""
    for epoch in range(1, LOOK_UPLOADS_MAX + 3):
        quay.spool(segment(1, 1, epoch=epoch))
        quay.drain(is_urgent=True)
    assert quay.storage.names().count("get") == 1
    quay.now_ms = HOUR_MS
    quay.spool(segment(2, 2, epoch=LOOK_UPLOADS_MAX + 2))
    quay.drain()
    assert quay.storage.names().count("get") == 2


def test_another_daemon_stops_the_writing_at_once(quay: Quay) -> None:
    """Not a byte more; the database says who and what to do, and its spool stays for that."""
    quay.spool(segment(1, 1))
    quay.drain()
    stranger = Owner("web-9", "machine-9", "run-9", "2026-11-22T00:00:00+00:00")
    quay.storage.put(f"{NAME}/owner.json", format_owner(stranger), metadata={})
    quay.now_ms = HOUR_MS
    quay.spool(segment(2, 2))
    drain = quay.drain()
    assert drain.verdict is not None
    assert drain.verdict.standing is Standing.TAKEN
    database = quay.journal.database_by_id(1)
    assert database.state == "degraded"
    assert "web-9" in database.cause
    assert database.remedy
    assert quay.stored() == [segment(1, 1).key]
    assert len(quay.journal.pending()) == 1


def test_a_machine_that_was_set_back_ends_the_generation(quay: Quay) -> None:
    """Its clock jumps when it wakes up in its own past: then storage holds objects that its journal forgot."""
    quay.spool(segment(1, 1))
    quay.drain()
    quay.storage.put(f"{NAME}/{segment(2, 3).key}", b"", metadata={})
    quay.spool(segment(2, 2))
    quay.wall_ahead_ms += 61_000
    drain = quay.drain()
    assert drain.verdict is not None
    assert drain.verdict.standing is Standing.LOST
    ((_, reason),) = quay.told.lost
    assert "which this journal does not know" in reason
    assert quay.stored() == [segment(1, 1).key]


def test_a_clock_that_was_set_costs_one_listing(quay: Quay) -> None:
    """If storage holds nothing unknown, the generation continues, and the next turn asks nothing."""
    quay.spool(segment(1, 1))
    quay.drain()
    for number, jump_ms in ((2, 3_600_000), (3, 0), (4, -7_200_000)):
        quay.wall_ahead_ms += jump_ms
        quay.queue.bucket = Bucket(2.0, 0.0)
        quay.spool(segment(number, number))
        quay.storage.calls.clear()
        quay.drain()
        assert ("list" in quay.storage.names()) == bool(jump_ms)
    assert quay.stored()[-1] == segment(4, 4).key
    assert quay.told.lost == []


def test_a_wiped_bucket_ends_the_generation_and_the_next_is_claimed(quay: Quay) -> None:
    """The follower is told once, and begins another."""
    quay.spool(segment(1, 1))
    quay.drain()
    quay.storage.objects.clear()
    quay.now_ms = HOUR_MS
    quay.spool(segment(2, 2))
    assert quay.drain().verdict is not None
    ((database_id, reason),) = quay.told.lost
    assert (database_id, quay.journal.pending()) == (1, [])
    assert "gone" in reason
    quay.journal.begin_generation(1, G2, reason, "{}", 0)
    quay.spool(segment(1, 1, generation=G2))
    quay.drain()
    assert quay.stored()[-1] == segment(1, 1, generation=G2).key
    assert len(quay.told.lost) == 1


def test_an_old_generation_that_is_lost_does_not_end_the_current_one(quay: Quay) -> None:
    """Only what is spooled of it is dropped."""
    quay.storage.put(f"{NAME}/{segment(9, 9).key}", b"", metadata={})
    quay.spool(segment(1, 1))
    quay.journal.begin_generation(1, G2, "a gap", "{}", 0)
    quay.spool(segment(1, 1, generation=G2))
    assert quay.drain().verdict is not None
    quay.drain()
    assert quay.stored() == [segment(1, 1, generation=G2).key]
    assert quay.told.lost == []


def test_a_claim_can_be_wanted_without_an_object(quay: Quay) -> None:
    """A base's parts come first; without a generation there is nothing to claim."""
    assert quay.drain(check_ownership=True) == QueueResult(reached_storage=True)
    assert quay.queue.is_claimed
    quay.journal.end_generation(1, Gap.of(GapKind.OTHER, "a gap"), 0)
    drain = quay.drain(check_ownership=True)
    assert drain.verdict is not None
    assert drain.verdict.standing is Standing.LOST
    assert quay.told.lost == []


def test_frames_that_stand_there_twice_end_the_generation(quay: Quay) -> None:
    """A copy of this machine wrote to it after it was claimed: seen at the first look, or at one late enough."""
    quay.spool(segment(1, 1))
    quay.drain()
    quay.queue.is_claimed = False  # as the next run begins
    for frame in range(2, 4 + 2 * LOOK_UPLOADS_MAX):
        if frame == 3:
            twice = segment(2, 3)
            quay.storage.put(f"{NAME}/{twice.key}", b"", metadata={})
        quay.spool(segment(frame, frame))
        drain = quay.drain(is_urgent=True)
        if drain.verdict is not None:
            break
    assert drain.verdict is not None
    assert drain.verdict.standing is Standing.LOST
    assert frame <= 3 + LOOK_UPLOADS_MAX
    assert "with the same frames" in quay.told.lost[0][1]


def test_what_is_looked_for_is_what_can_have_come(quay: Quay) -> None:
    """Two listings in a run: the first look, and one when the other daemon must have stopped; none in between."""
    quay.spool(segment(1, 1))
    quay.drain()
    assert quay.queue.claimed is None, "nobody else knows of a generation that begins here"
    quay.queue.is_claimed = False
    listings: list[int] = []
    for frame in range(2, 9):
        quay.now_ms += HOUR_MS
        quay.spool(segment(frame, frame))
        quay.storage.calls.clear()
        assert quay.drain(is_urgent=True).verdict is None
        listings.append(quay.storage.names().count("list"))
    assert listings[1:] == [1, 1, 0, 0, 0, 0]


def test_a_generation_begun_since_is_nobody_elses(quay: Quay) -> None:
    """Its id was drawn after the claim."""
    quay.spool(segment(1, 1))
    quay.drain()
    quay.queue.is_claimed = False
    quay.spool(segment(2, 2))
    quay.drain(is_urgent=True)
    quay.journal.end_generation(1, Gap.of(GapKind.OTHER, "a gap"), T0)
    quay.journal.begin_generation(1, G2, "test", "{}", T0)
    quay.spool(segment(1, 1, generation=G2))
    quay.storage.put(f"{NAME}/{segment(1, 1, generation=G2).key}x", b"", metadata={})
    quay.now_ms += HOUR_MS
    assert quay.drain(is_urgent=True).verdict is None
    assert quay.queue.claimed is None
