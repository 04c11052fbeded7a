"""Tests of what is read of a base before older ones are deleted because of it, and which base counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.aged_storage import AgedStorage, body_of
from tests.lifetimes import CopyContext
from tests.shipping import NAME
from walsyncd.adapters.journal.journal import Journal
from walsyncd.core.keep.retention import DAY_MS, HOUR_MS, Policy
from walsyncd.core.stored.layout import Key, ManifestKey, SegmentKey, WholeKey, format_key
from walsyncd.engine.restore.replica import Replica
from walsyncd.engine.upkeep.base_examination import BaseExamination
from walsyncd.engine.upkeep.deletion import Removals
from walsyncd.engine.upkeep.pruner import Pruner, list_folder


def world_of(*, compacted: bool = False) -> tuple[CopyContext, ManifestKey, ManifestKey]:
    """Store a base in the first epoch, and one in the second whose S and N are frames 2 and 6 of 9.

    All objects are old.
    """
    world = CopyContext()
    world.base()
    world.commit()
    world.close()
    for _ in range(6):
        world.commit()
    world.base(start=2)
    for _ in range(3):
        world.commit()
    world.close()
    world.commit()
    for _ in range(2 * compacted):
        world.compact()
        world.now_ms += 2 * HOUR_MS
    first, second = (key for key in world.stored if isinstance(key, ManifestKey))
    world.now_ms += 30 * DAY_MS
    return world, first, second


def prune(storage: AgedStorage, folder: Path) -> None:
    with Journal.open(folder) as journal:
        pruner = Pruner(
            journal,
            storage,
            may_delete=lambda _database_id: None,
            store_ms=lambda: storage.world.now_ms,
            removals=Removals(),
        )
        pruner.prune(journal.database(NAME, "/srv/app.db").id, Policy(7 * DAY_MS))


def name_of(key: Key) -> str:
    return f"{NAME}/{format_key(key)}"


def frames_objects(world: CopyContext, epoch: int) -> list[SegmentKey | WholeKey]:
    return [key for key in world.stored if isinstance(key, SegmentKey | WholeKey) and key.epoch == epoch]


def garbage(_body: bytes) -> bytes:
    return b"garbage"


def flipped(body: bytes) -> bytes:
    return body[:60] + bytes([body[60] ^ 1]) + body[61:]


def cut(body: bytes) -> bytes:
    return body[:-9]


@pytest.mark.parametrize("damage", [garbage, flipped, cut])
@pytest.mark.parametrize("compacted", [False, True])
def test_a_base_without_its_frames_lets_nothing_go(
    tmp_path: Path, damage: Callable[[bytes], bytes], *, compacted: bool
) -> None:
    """The older base is deleted only if the frames that make the newer one consistent can be read, to the last one."""
    world, first, _ = world_of(compacted=compacted)
    for key in frames_objects(world, 2):
        storage = AgedStorage(world)
        is_needed = key.first <= 6 and key.last > 2
        storage.put(name_of(key), damage(body_of(key)), metadata={})
        with capture_logs() as logs:
            prune(storage, tmp_path / str(key.first))
        assert (name_of(first.base) in storage.objects) == is_needed, key
        assert [format_key(key) in log["first"] for log in logs if log["event"] == "bases_doubted"] == [
            True
        ] * is_needed


@pytest.mark.parametrize("last", [6, 9])
def test_a_planted_epoch_stands_in_for_no_frames(tmp_path: Path, last: int) -> None:
    """The planted object has the name of a compacted epoch, which readers prefer, and does not have the missing
    segments.
    """
    world, first, _ = world_of()
    for key in frames_objects(world, 2)[3:]:
        del world.stored[key]
    storage = AgedStorage(world)
    world.store(planted := WholeKey(world.generation, 2, last, world.seen_ms, 1))
    storage.put(name_of(planted), body_of(frames_objects(world, 1)[0]), metadata={})
    world.now_ms += 30 * DAY_MS
    prune(storage, tmp_path)
    assert name_of(first.base) in storage.objects


def examine(
    examination: BaseExamination, storage: AgedStorage, base: ManifestKey
) -> tuple[dict[ManifestKey, str], set[str]]:
    """Return what is wrong with a base, and which objects with frames were read to find that out."""
    storage.calls.clear()
    held = list_folder(storage, NAME).held
    faults = examination.faults(Replica(storage, NAME), held, [base], None)
    return faults, {call.key for call in storage.calls if call.name == "get" and call.key.endswith("wal.zst")}


def test_frames_are_read_once_and_only_those_from_s_to_n() -> None:
    """Frames before S or after N say nothing about the base. Objects that were written again are read again."""
    world, _, base = world_of()
    storage, examination = AgedStorage(world), BaseExamination()
    needed = {name_of(key) for key in frames_objects(world, 2) if 2 < key.last <= 6}
    assert examine(examination, storage, base) == ({}, needed)
    examination.keep_only(NAME, [base])
    assert examine(examination, storage, base) == ({}, set())
    storage.put(min(needed), b"other", metadata={})
    faults, read = examine(examination, storage, base)
    assert list(faults) == [base]
    assert min(needed) in read
    storage.put(min(needed), body_of(frames_objects(world, 2)[2]), metadata={})
    examination.keep_only(NAME, [])
    assert examine(examination, storage, base) == ({}, needed)


def test_frame_n_must_commit() -> None:
    """If frame N did not commit, the base would have half a transaction."""
    world, _, base = world_of()
    storage = AgedStorage(world)
    for key in frames_objects(world, 2):
        if key.last == 6:
            storage.put(name_of(key), body_of(key, commits=False), metadata={})
    faults, _ = examine(BaseExamination(), storage, base)
    assert faults[base].endswith("frame 6 of epoch 2 does not commit")
