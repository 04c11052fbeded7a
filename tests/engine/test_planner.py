"""What a plan stands on changes or is damaged while it is made: planned anew, or refused with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.replicas import ReplicaMaker, counter_in, make_replica
from walsyncd.core.layout import ManifestKey, format_key
from walsyncd.core.manifest import format_manifest, parse_manifest
from walsyncd.core.plan import AtPosition, AtTime, Head
from walsyncd.core.position import Position
from walsyncd.engine.planner import REPLANS_MAX, Prepared, Wish, prepare, with_bases
from walsyncd.engine.replica import Replica
from walsyncd.engine.restorer import restore_wish
from walsyncd.errors import CorruptError, NewerFormatError, TargetError, VanishedError


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[ReplicaMaker]:
    with make_replica(tmp_path) as made:
        yield made


def replica_of(maker: ReplicaMaker) -> Replica:
    return Replica(maker.storage, maker.name)


def two_bases(maker: ReplicaMaker) -> tuple[ManifestKey, ManifestKey]:
    """A base, three transactions, a base, two more."""
    old = maker.base()
    maker.commit(3, rows=40)
    maker.ship()
    new = maker.base()
    maker.commit(2)
    maker.ship()
    return old, new


def damage(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[len(body) // 3] ^= 1
    path.write_bytes(body)


@pytest.mark.parametrize("part", ["base", "manifest"])
def test_older_base_stands_in_for_a_damaged_one(maker: ReplicaMaker, tmp_path: Path, part: str) -> None:
    """The same commit is reached from the older base, and a note names what is damaged."""
    old, new = two_bases(maker)
    damage(maker.object_path(new.base if part == "base" else new))
    restored = restore_wish(replica_of(maker), Wish(Head()), tmp_path / "out.db")
    assert restored.plan.base == old
    assert restored.plan.reached.position == maker.history[-1].position
    (note,) = restored.plan.notes
    assert "restored from an older base" in note
    assert format_key(new.base).removesuffix(".db.zst") in note
    assert counter_in(tmp_path / "out.db") == 5


def test_damaged_base_without_the_frames_before_it_is_an_error(maker: ReplicaMaker, tmp_path: Path) -> None:
    """An older base that does not reach the target is no substitute, nor is an older generation."""
    _, new = two_bases(maker)
    damage(maker.object_path(new.base))
    (early, _) = (path for path in sorted(maker.root.rglob("*.wal.zst")))
    early.unlink()
    with pytest.raises(CorruptError, match=new.base.random) as caught:
        restore_wish(replica_of(maker), Wish(Head()), tmp_path / "out.db")
    assert "no older base" in caught.value.hint
    assert not (tmp_path / "out.db").exists()


def test_all_bases_damaged_is_an_error(maker: ReplicaMaker) -> None:
    """The last one tried is named."""
    old, new = two_bases(maker)
    damage(maker.object_path(old))
    damage(maker.object_path(new))
    with pytest.raises(CorruptError, match=old.base.random):
        prepare(replica_of(maker), Wish(Head()))


def test_manifest_of_a_newer_format_is_a_clear_error(maker: ReplicaMaker) -> None:
    """Nothing is guessed, and no older base is taken: what follows may be of a newer form too."""
    _, new = two_bases(maker)
    path = maker.object_path(new)
    path.write_bytes(format_manifest(replace(parse_manifest(path.read_bytes()), format_version=2)))
    with pytest.raises(NewerFormatError, match="format 2 is newer than 1") as caught:
        prepare(replica_of(maker), Wish(Head()))
    assert new.base.random in caught.value.message


def test_segments_that_gave_way_to_a_whole_are_planned_anew(maker: ReplicaMaker, tmp_path: Path) -> None:
    """Compaction between plan and reading costs a second plan."""
    maker.base()
    maker.commit(4)
    keys = maker.ship(every=2)
    maker.close_epoch()
    plans: list[Prepared] = []

    def compact_first(prepared: Prepared) -> Prepared:
        plans.append(prepared)
        if len(plans) == 1:
            maker.compact()
            for key in keys:
                maker.remove(key)
            raise VanishedError("gone")
        return prepared

    with_bases(replica_of(maker), Wish(Head()), compact_first)
    assert [len(each.plan.objects) for each in plans] == [2, 1]
    assert plans[0].plan.reached.position == plans[1].plan.reached.position
    assert restore_wish(replica_of(maker), Wish(Head()), tmp_path / "out.db").applied.transactions == 4


def test_target_inside_an_object_that_vanishes_is_resolved_anew(
    maker: ReplicaMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trailer that tells the exact commit is read from what there is now."""
    maker.base()
    maker.commit(4)
    keys = maker.ship(every=2)
    maker.close_epoch()
    wanted = maker.history[2]
    stream = Replica.stream
    once = iter([True])

    def vanishing(replica: Replica, key: str) -> Iterator[bytes]:
        if next(once, False):
            maker.compact()
            for each in keys:
                maker.remove(each)
        yield from stream(replica, key)

    monkeypatch.setattr(Replica, "stream", vanishing)
    prepared = prepare(replica_of(maker), Wish(AtTime(wanted.time_ms)))
    assert prepared.plan.reached.position == wanted.position


def test_retention_that_overtakes_a_restore_is_said(maker: ReplicaMaker) -> None:
    """What was removed for good is refused like any other target that is not covered."""
    old, _ = two_bases(maker)

    def prune(prepared: Prepared) -> None:
        for key in (old, old.base, *prepared.plan.objects):
            maker.remove(key)
        raise VanishedError("gone")

    with pytest.raises(TargetError, match="before the first base"):
        with_bases(replica_of(maker), Wish(AtPosition(maker.history[1].position)), prune)


def test_replica_that_goes_on_changing_is_given_up(maker: ReplicaMaker) -> None:
    """An object that is listed and can't be read ends it after a few plans."""
    two_bases(maker)
    uses: list[Prepared] = []

    def never(prepared: Prepared) -> None:
        uses.append(prepared)
        raise VanishedError("gone")

    with pytest.raises(VanishedError, match="gone"):
        with_bases(replica_of(maker), Wish(Head()), never)
    assert len(uses) == REPLANS_MAX + 1


def test_partial_wish_keeps_to_the_same_commit_on_an_older_base(maker: ReplicaMaker, tmp_path: Path) -> None:
    """Less than the target was allowed, but not less again because a base is damaged."""
    old, new = two_bases(maker)
    damage(maker.object_path(new.base))
    late = AtPosition(Position(maker.generation, 9, 9))
    restored = restore_wish(replica_of(maker), Wish(late, allow_partial=True), tmp_path / "out.db")
    assert (restored.plan.base, restored.plan.reached.position) == (old, maker.history[-1].position)
    assert restored.plan.shortfall
