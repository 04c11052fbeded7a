"""Tests of single rounds of a queue, without threads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import FakeStorage
from tests.shipping import G1, G2, NAME, T0, Told, segment
from walsyncd.adapters.journal.journal import Advance, Journal, NewObject, ObjectKind, ObjectRow
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.send.merge import CROWD
from walsyncd.core.send.pacing import Bucket
from walsyncd.core.stored.layout import BaseKey, ManifestKey, format_key
from walsyncd.core.stored.owner import Owner, format_owner
from walsyncd.engine.ship.database_queue import LOOK_UPLOADS_MAX, DatabaseQueue
from walsyncd.engine.ship.ownership import Identity, Ownership, Standing
from walsyncd.engine.ship.shipper import ROWS_MAX, QueueResult, Shipper

HOUR_MS = 3_600_000.0
MANIFEST = NewObject(
    ObjectKind.MANIFEST, format_key(ManifestKey(BaseKey(G1, 1, 0, "0000abcd"), 1, 1, T0)), b"{}", 1, 0, 1, T0, G1
)


class Rig:
    """A journal, a storage and a queue. Its clock moves only when a test moves it."""

    def __init__(self, state_dir: Path) -> None:
        self.journal = Journal.open(state_dir)
        self.storage = FakeStorage()
        self.told = Told()
        self.now_ms = 0.0
        self.wall_ahead_ms = T0
        self.journal.begin_generation(self.journal.database(NAME, "/srv/app.db").id, G1, "first", "{}", 0)
        self.queue = DatabaseQueue(1, NAME, Bucket(2.0, 0.0), HOUR_MS)
        self.shipper = self.made()

    def made(self, *, rows_max: int = ROWS_MAX, crowd: int = CROWD) -> Shipper:
        """Return a shipper with other limits."""
        return Shipper(
            self.journal,
            self.storage,
            Ownership(self.journal, self.storage, Identity("web-1", "machine-1", "run-1"), lambda: T0),
            self.told,
            resumed_upto=0,
            wall_ms=lambda: self.wall_ahead_ms + int(self.now_ms),
            monotonic_ms=lambda: self.now_ms,
            rows_max=rows_max,
            crowd=crowd,
        )

    def spool(self, *objects: NewObject, begin: bool = False) -> list[ObjectRow]:
        return self.journal.advance([Advance(1, "{}", objects, begin)])

    def drain(self, *, is_urgent: bool = False, check_ownership: bool = False) -> QueueResult:
        return self.shipper.drain(self.queue, is_urgent=is_urgent, check_ownership=check_ownership)

    def stored(self) -> list[str]:
        return [row.key for row in self.told.stored]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.journal.close()


def test_an_empty_queue_asks_nothing(rig: Rig) -> None:
    """No request is made, and no other round is wanted."""
    assert rig.drain() == QueueResult()
    assert rig.storage.calls == []


def test_what_gathered_goes_as_one_for_one_token(rig: Rig) -> None:
    """Three segments of an epoch are one object, and the next epoch's first segment comes after it."""
    *_, behind = rig.spool(segment(1, 1), segment(2, 2), segment(3, 5), segment(1, 1, epoch=2))
    drain = rig.drain()
    assert drain == QueueResult(next_id=behind.id, bytes_left=behind.size, reached_storage=True)
    assert rig.stored() == [segment(1, 5).key]
    assert rig.queue.level(0.0) == 1.0
    assert rig.storage.objects[f"{NAME}/{segment(1, 5).key}"].body == segment(1, 5).body


def test_without_a_token_it_stays(rig: Rig) -> None:
    """The queue is not even merged, and the result says how much waits. A stop or a sync sends it."""
    rig.queue.bucket = Bucket(0.0, 0.0)
    first, second = rig.spool(segment(1, 1), segment(2, 2))
    drain = rig.drain()
    assert drain == QueueResult(next_id=first.id, bytes_left=first.size + second.size, reached_storage=True)
    assert rig.journal.pending() == [first, second]
    rig.queue.urgent_upto = second.id
    assert rig.drain() == QueueResult(reached_storage=True)
    rig.spool(segment(3, 3))
    assert rig.drain().next_id is not None
    assert rig.drain(is_urgent=True).next_id is None
    assert rig.stored() == [segment(1, 2).key, segment(3, 3).key]


def test_what_leaves_at_once_takes_its_token(rig: Rig) -> None:
    """The object is written as begun, and sent without HEAD."""
    rig.spool(segment(1, 1))
    rig.drain()
    rig.storage.calls.clear()
    rig.spool(segment(2, 2), begin=True)
    rig.drain()
    assert rig.storage.names() == ["put"]
    assert rig.queue.level(0.0) == 0.0
    assert rig.journal.database_by_id(1).tokens == 0.0


def test_a_manifest_needs_no_token_and_goes_alone(rig: Rig) -> None:
    """A manifest is sent after the segments that it needs."""
    rig.queue.bucket = Bucket(0.0, 0.0)
    rig.spool(segment(1, 1), MANIFEST, segment(2, 2))
    rig.drain()
    rig.drain()
    assert rig.stored() == [segment(1, 1).key, MANIFEST.key]
    assert rig.journal.database_by_id(1).base_key == MANIFEST.key
    assert rig.drain().next_id is not None


def test_more_rows_than_a_turn_looks_at(rig: Rig) -> None:
    """The rows are gathered before they are sent. They become one object anyway, and none is forgotten."""
    rig.shipper = rig.made(rows_max=3)
    rig.queue.bucket = Bucket(0.0, 0.0)
    rig.spool(*(segment(frame, frame) for frame in range(1, 8)))
    while rig.drain(is_urgent=True).next_id is not None:
        pass
    assert rig.stored() == [segment(1, 7).key]
    assert rig.storage.objects[f"{NAME}/{segment(1, 7).key}"].body == segment(1, 7).body


def test_a_crowd_is_merged_while_nothing_can_be_sent(rig: Rig) -> None:
    """A few are left as they are, begun ones stay alone, and no request is made."""
    rig.shipper = rig.made(crowd=3)
    begun = rig.spool(segment(1, 1), begin=True)
    rig.spool(*(segment(frame, frame) for frame in range(2, 6)), segment(1, 1, epoch=2), segment(2, 2, epoch=2))
    rig.shipper.merge_waiting(rig.queue)
    assert [row.key for row in rig.journal.pending()] == [
        begun[0].key,
        segment(2, 5).key,
        segment(1, 1, epoch=2).key,
        segment(2, 2, epoch=2).key,
    ]
    assert rig.storage.calls == []


def test_the_owner_is_looked_at_with_every_64th_upload_and_hourly(rig: Rig) -> None:
    """In between the owner is not checked."""
    for epoch in range(1, LOOK_UPLOADS_MAX + 3):
        rig.spool(segment(1, 1, epoch=epoch))
        rig.drain(is_urgent=True)
    assert rig.storage.names().count("get") == 1
    rig.now_ms = HOUR_MS
    rig.spool(segment(2, 2, epoch=LOOK_UPLOADS_MAX + 2))
    rig.drain()
    assert rig.storage.names().count("get") == 2


def test_another_daemon_stops_the_writing_at_once(rig: Rig) -> None:
    """Not a byte more is sent. The database reports who the owner is and what to do, and its spool stays."""
    rig.spool(segment(1, 1))
    rig.drain()
    stranger = Owner("web-9", "machine-9", "run-9", "2026-11-22T00:00:00+00:00")
    rig.storage.put(f"{NAME}/owner.json", format_owner(stranger), metadata={})
    rig.now_ms = HOUR_MS
    rig.spool(segment(2, 2))
    drain = rig.drain()
    assert drain.verdict is not None
    assert drain.verdict.standing is Standing.TAKEN
    database = rig.journal.database_by_id(1)
    assert database.state == "degraded"
    assert "web-9" in database.cause
    assert database.remedy
    assert rig.stored() == [segment(1, 1).key]
    assert len(rig.journal.pending()) == 1


def test_a_machine_that_was_set_back_ends_the_generation(rig: Rig) -> None:
    """A machine that wakes up in its own past sees its clock jump.

    At that moment the storage holds objects that the machine's journal has forgotten.
    """
    rig.spool(segment(1, 1))
    rig.drain()
    rig.storage.put(f"{NAME}/{segment(2, 3).key}", b"", metadata={})
    rig.spool(segment(2, 2))
    rig.wall_ahead_ms += 61_000
    drain = rig.drain()
    assert drain.verdict is not None
    assert drain.verdict.standing is Standing.LOST
    ((_, reason),) = rig.told.lost
    assert "which this journal does not know" in reason
    assert rig.stored() == [segment(1, 1).key]


def test_a_clock_that_was_set_costs_one_listing(rig: Rig) -> None:
    """If the storage holds nothing unknown, the generation continues, and the next round makes no request."""
    rig.spool(segment(1, 1))
    rig.drain()
    for number, jump_ms in ((2, 3_600_000), (3, 0), (4, -7_200_000)):
        rig.wall_ahead_ms += jump_ms
        rig.queue.bucket = Bucket(2.0, 0.0)
        rig.spool(segment(number, number))
        rig.storage.calls.clear()
        rig.drain()
        assert ("list" in rig.storage.names()) == bool(jump_ms)
    assert rig.stored()[-1] == segment(4, 4).key
    assert rig.told.lost == []


def test_a_wiped_bucket_ends_the_generation_and_the_next_is_claimed(rig: Rig) -> None:
    """The follower is told once, and begins another one."""
    rig.spool(segment(1, 1))
    rig.drain()
    rig.storage.objects.clear()
    rig.now_ms = HOUR_MS
    rig.spool(segment(2, 2))
    assert rig.drain().verdict is not None
    ((database_id, reason),) = rig.told.lost
    assert (database_id, rig.journal.pending()) == (1, [])
    assert "gone" in reason
    rig.journal.begin_generation(1, G2, reason, "{}", 0)
    rig.spool(segment(1, 1, generation=G2))
    rig.drain()
    assert rig.stored()[-1] == segment(1, 1, generation=G2).key
    assert len(rig.told.lost) == 1


def test_an_old_generation_that_is_lost_does_not_end_the_current_one(rig: Rig) -> None:
    """Only the objects of that generation are dropped from the spool."""
    rig.storage.put(f"{NAME}/{segment(9, 9).key}", b"", metadata={})
    rig.spool(segment(1, 1))
    rig.journal.begin_generation(1, G2, "a gap", "{}", 0)
    rig.spool(segment(1, 1, generation=G2))
    assert rig.drain().verdict is not None
    rig.drain()
    assert rig.stored() == [segment(1, 1, generation=G2).key]
    assert rig.told.lost == []


def test_a_claim_can_be_wanted_without_an_object(rig: Rig) -> None:
    """A base's parts come first. Without a generation there is nothing to claim."""
    assert rig.drain(check_ownership=True) == QueueResult(reached_storage=True)
    assert rig.queue.is_claimed
    rig.journal.end_generation(1, Gap.of(GapKind.OTHER, "a gap"), 0)
    drain = rig.drain(check_ownership=True)
    assert drain.verdict is not None
    assert drain.verdict.standing is Standing.LOST
    assert rig.told.lost == []


def test_frames_that_stand_there_twice_end_the_generation(rig: Rig) -> None:
    """A copy of this machine wrote to the generation after it was claimed.

    This is noticed at the first check, or at a later one.
    """
    rig.spool(segment(1, 1))
    rig.drain()
    rig.queue.is_claimed = False  # when the next run begins
    for frame in range(2, 4 + 2 * LOOK_UPLOADS_MAX):
        if frame == 3:
            twice = segment(2, 3)
            rig.storage.put(f"{NAME}/{twice.key}", b"", metadata={})
        rig.spool(segment(frame, frame))
        drain = rig.drain(is_urgent=True)
        if drain.verdict is not None:
            break
    assert drain.verdict is not None
    assert drain.verdict.standing is Standing.LOST
    assert frame <= 3 + LOOK_UPLOADS_MAX
    assert "with the same frames" in rig.told.lost[0][1]


def test_what_is_looked_for_is_what_can_have_come(rig: Rig) -> None:
    """A run lists twice: at its first check, and when the other daemon must have stopped."""
    rig.spool(segment(1, 1))
    rig.drain()
    assert rig.queue.claimed is None, "nobody else knows of a generation that begins here"
    rig.queue.is_claimed = False
    listings: list[int] = []
    for frame in range(2, 9):
        rig.now_ms += HOUR_MS
        rig.spool(segment(frame, frame))
        rig.storage.calls.clear()
        assert rig.drain(is_urgent=True).verdict is None
        listings.append(rig.storage.names().count("list"))
    assert listings[1:] == [1, 1, 0, 0, 0, 0]


def test_a_generation_begun_since_is_nobody_elses(rig: Rig) -> None:
    """The generation's id was drawn after the claim."""
    rig.spool(segment(1, 1))
    rig.drain()
    rig.queue.is_claimed = False
    rig.spool(segment(2, 2))
    rig.drain(is_urgent=True)
    rig.journal.end_generation(1, Gap.of(GapKind.OTHER, "a gap"), T0)
    rig.journal.begin_generation(1, G2, "test", "{}", T0)
    rig.spool(segment(1, 1, generation=G2))
    rig.storage.put(f"{NAME}/{segment(1, 1, generation=G2).key}x", b"", metadata={})
    rig.now_ms += HOUR_MS
    assert rig.drain(is_urgent=True).verdict is None
    assert rig.queue.claimed is None
