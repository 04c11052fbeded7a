"""Tests of objects that change, or are damaged, while a plan is made: it is made again, or refused with the reason."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.replicas import ReplicaMaker, counter_in, damage, make_replica
from walsyncd.core.restore.plan import AtPosition, AtTime, Head, Target
from walsyncd.core.stored.layout import ManifestKey, format_key
from walsyncd.core.stored.manifest import format_manifest, parse_manifest
from walsyncd.core.stored.position import Position
from walsyncd.engine.restore.inventory import inventory
from walsyncd.engine.restore.planner import REPLANS_MAX, ResolvedPlan, RestoreRequest, prepare, with_plan
from walsyncd.engine.restore.replica import Replica, naming_object
from walsyncd.engine.restore.restorer import restore_request
from walsyncd.errors import CorruptError, NewerFormatError, TargetError, VanishedError


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[ReplicaMaker]:
    with make_replica(tmp_path) as made:
        yield made


def replica_of(maker: ReplicaMaker) -> Replica:
    return Replica(maker.storage, maker.name)


def two_bases(maker: ReplicaMaker) -> tuple[ManifestKey, ManifestKey]:
    """Store a base, three transactions, a base, and two more transactions."""
    old = maker.base()
    maker.commit(3, rows=40)
    maker.ship()
    new = maker.base()
    maker.commit(2)
    maker.ship()
    return old, new


@pytest.mark.parametrize("part", ["base", "manifest"])
def test_older_base_stands_in_for_a_damaged_one(maker: ReplicaMaker, tmp_path: Path, part: str) -> None:
    """The same commit is reached from the older base, and a note names the damaged one."""
    old, new = two_bases(maker)
    damage(maker.object_path(new.base if part == "base" else new))
    restored = restore_request(replica_of(maker), RestoreRequest(Head()), tmp_path / "out.db")
    assert restored.plan.base == old
    assert restored.plan.reached.position == maker.history[-1].position
    (note,) = restored.plan.notes
    assert "restored from an older base" in note
    assert format_key(new.base).removesuffix(".db.zst") in note
    assert counter_in(tmp_path / "out.db") == 5


def test_damaged_base_without_the_frames_before_it_is_an_error(maker: ReplicaMaker, tmp_path: Path) -> None:
    """An older base that does not reach the target is no replacement, and neither is an older generation."""
    _, new = two_bases(maker)
    damage(maker.object_path(new.base))
    (early, _) = (path for path in sorted(maker.root.rglob("*.wal.zst")))
    early.unlink()
    with pytest.raises(CorruptError, match=new.base.random) as caught:
        restore_request(replica_of(maker), RestoreRequest(Head()), tmp_path / "out.db")
    assert f"{maker.generation}/00000001/00000000" in caught.value.message
    assert "--allow-partial" in caught.value.hint
    assert not (tmp_path / "out.db").exists()


def whole_beside_its_segments(maker: ReplicaMaker) -> tuple[list[Path], Path]:
    """Store a base, an epoch of three segments that is stored whole too, and an epoch after it.

    Return the files of both.
    """
    maker.base()
    maker.commit(6, rows=20)
    keys = maker.ship(every=2)
    maker.close_epoch()
    whole = maker.compact()
    maker.commit(2)
    maker.ship()
    return [maker.object_path(key) for key in keys], maker.object_path(whole)


@pytest.mark.parametrize("spoil", [damage, lambda path: path.write_bytes(path.read_bytes()[:-9])], ids=["bit", "cut"])
def test_segments_stand_in_for_a_damaged_whole(
    maker: ReplicaMaker, tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    """The same commit is reached from the segments of which the whole was made, and a note names the whole."""
    segments, whole = whole_beside_its_segments(maker)
    spoil(whole)
    out = tmp_path / "out.db"
    restored = restore_request(replica_of(maker), RestoreRequest(Head()), out)
    assert [maker.object_path(key) for key in restored.plan.objects[:-1]] == segments
    assert restored.plan.reached.position == maker.history[-1].position
    (note,) = restored.plan.notes
    assert whole.name in note
    assert counter_in(out) == 8


def test_moment_within_a_damaged_whole_is_found_in_its_segments(maker: ReplicaMaker, tmp_path: Path) -> None:
    """The moment is found even if planning itself has to look into the object."""
    _, whole = whole_beside_its_segments(maker)
    damage(whole)
    wanted = maker.history[2]
    targets: list[Target] = [AtTime(wanted.time_ms), AtPosition(wanted.position)]
    for number, target in enumerate(targets):
        out = tmp_path / f"out{number}.db"
        restored = restore_request(replica_of(maker), RestoreRequest(target), out)
        assert restored.plan.reached.position == wanted.position
        assert counter_in(out) == wanted.counter


def test_whole_stands_in_for_a_damaged_segment(maker: ReplicaMaker, tmp_path: Path) -> None:
    """If both exist, the whole is read, and the damaged segment does no harm."""
    (_, second, _), _ = whole_beside_its_segments(maker)
    damage(second)
    restored = restore_request(replica_of(maker), RestoreRequest(Head()), tmp_path / "out.db")
    assert restored.plan.notes == ()
    assert counter_in(tmp_path / "out.db") == 8


def test_frames_that_nothing_holds_any_more_are_an_error(maker: ReplicaMaker, tmp_path: Path) -> None:
    """A whole and a segment are damaged. The nearest position before is named, and can be restored if asked for."""
    (_, second, _), whole = whole_beside_its_segments(maker)
    damage(whole)
    damage(second)
    nearest = maker.history[1]
    with pytest.raises(CorruptError, match=second.name) as caught:
        restore_request(replica_of(maker), RestoreRequest(Head()), tmp_path / "out.db")
    assert str(nearest.position) in caught.value.message
    assert "--allow-partial" in caught.value.hint
    assert not list(tmp_path.glob("*out.db*"))
    restored = restore_request(replica_of(maker), RestoreRequest(Head(), allow_partial=True), tmp_path / "out.db")
    assert restored.plan.reached.position == nearest.position
    assert restored.plan.shortfall
    assert len(restored.plan.notes) == 2
    assert counter_in(tmp_path / "out.db") == nearest.counter


def test_all_bases_damaged_is_an_error(maker: ReplicaMaker) -> None:
    """The error names the base that was tried last."""
    old, new = two_bases(maker)
    damage(maker.object_path(old))
    damage(maker.object_path(new))
    with pytest.raises(CorruptError, match=old.base.random):
        prepare(replica_of(maker), RestoreRequest(Head()))


def test_manifest_of_a_newer_format_is_a_clear_error(maker: ReplicaMaker) -> None:
    """Nothing is guessed, and no older base is used, because what follows may be in a newer format too."""
    _, new = two_bases(maker)
    path = maker.object_path(new)
    path.write_bytes(format_manifest(replace(parse_manifest(path.read_bytes()), format_version=3)))
    with pytest.raises(NewerFormatError, match="format 3 is newer than 2") as caught:
        prepare(replica_of(maker), RestoreRequest(Head()))
    assert new.base.random in caught.value.message


def test_segments_that_gave_way_to_a_whole_are_planned_anew(maker: ReplicaMaker, tmp_path: Path) -> None:
    """A compaction between plan and reading causes a second plan."""
    maker.base()
    maker.commit(4)
    keys = maker.ship(every=2)
    maker.close_epoch()
    plans: list[ResolvedPlan] = []

    def compact_first(prepared: ResolvedPlan) -> ResolvedPlan:
        plans.append(prepared)
        if len(plans) == 1:
            maker.compact()
            for key in keys:
                maker.remove(key)
            raise VanishedError("gone")
        return prepared

    with_plan(replica_of(maker), RestoreRequest(Head()), compact_first)
    assert [len(each.plan.objects) for each in plans] == [2, 1]
    assert plans[0].plan.reached.position == plans[1].plan.reached.position
    assert restore_request(replica_of(maker), RestoreRequest(Head()), tmp_path / "out.db").applied.transactions == 4


def test_target_inside_an_object_that_vanishes_is_resolved_anew(
    maker: ReplicaMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trailer that has the exact commit is read from the objects that exist now."""
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
    prepared = prepare(replica_of(maker), RestoreRequest(AtTime(wanted.time_ms)))
    assert prepared.plan.reached.position == wanted.position


def test_retention_that_overtakes_a_restore_is_said(maker: ReplicaMaker) -> None:
    """A target that was deleted for good is refused like any other target that is not covered."""
    old, _ = two_bases(maker)

    def prune(prepared: ResolvedPlan) -> None:
        for key in (old, old.base, *prepared.plan.objects):
            maker.remove(key)
        raise VanishedError("gone")

    with pytest.raises(TargetError, match="before the first base"):
        with_plan(replica_of(maker), RestoreRequest(AtPosition(maker.history[1].position)), prune)


def test_replica_that_goes_on_changing_is_given_up(maker: ReplicaMaker) -> None:
    """If an object is listed and can't be read again and again, the restore ends after a few plans."""
    two_bases(maker)
    uses: list[ResolvedPlan] = []

    def never(prepared: ResolvedPlan) -> None:
        uses.append(prepared)
        raise VanishedError("gone")

    with pytest.raises(VanishedError, match="gone"):
        with_plan(replica_of(maker), RestoreRequest(Head()), never)
    assert len(uses) == REPLANS_MAX + 1


def test_partial_wish_keeps_to_the_same_commit_on_an_older_base(maker: ReplicaMaker, tmp_path: Path) -> None:
    """A position before the target was allowed, but a damaged base must not make it an even earlier one."""
    old, new = two_bases(maker)
    damage(maker.object_path(new.base))
    late = AtPosition(Position(maker.generation, 9, 9))
    restored = restore_request(replica_of(maker), RestoreRequest(late, allow_partial=True), tmp_path / "out.db")
    assert (restored.plan.base, restored.plan.reached.position) == (old, maker.history[-1].position)
    assert restored.plan.shortfall


def test_an_error_that_is_kept_holds_no_buffers(maker: ReplicaMaker) -> None:
    """The error holds no buffer of any damaged object, neither until the end nor until garbage is collected."""
    two_bases(maker)
    buffers: list[weakref.ref[set[str]]] = []

    def fail(prepared: ResolvedPlan) -> ResolvedPlan:
        buffer = {"as large as it may be"}
        buffers.append(weakref.ref(buffer))
        with naming_object(prepared.plan.base.base):
            raise CorruptError("it is damaged")

    gc.disable()
    try:
        with pytest.raises(CorruptError):
            with_plan(replica_of(maker), RestoreRequest(Head()), fail)
        assert len(buffers) > 1
        assert [buffer() for buffer in buffers[:-1]] == [None] * (len(buffers) - 1)
    finally:
        gc.enable()


@pytest.mark.parametrize("is_last", [False, True])
def test_moments_of_a_clock_that_was_ahead_are_refused(maker: ReplicaMaker, *, is_last: bool) -> None:
    """Moments between the trusted times around them are refused.

    Those times and all other moments are restored, and so is every position.
    """
    maker.base()
    maker.commit(5)
    keys = maker.ship(every=1)
    for key in keys[2:] if is_last else keys[2:4]:
        stored_ns = (key.time_ms - 86_400_000) * 1_000_000  # the commit has a time a day before it was seen
        os.utime(maker.object_path(key), ns=(stored_ns, stored_ns))
    history = maker.history
    trusted = history[:2] if is_last else [*history[:2], history[4]]
    for each in trusted:
        plan = prepare(replica_of(maker), RestoreRequest(AtTime(each.time_ms))).plan
        assert plan.reached.position == each.position
    for time_ms in (history[1].time_ms + 1, history[2].time_ms, history[3].time_ms, history[4].time_ms - 1):
        with pytest.raises(TargetError, match="a clock was 1 d ahead") as caught:
            prepare(replica_of(maker), RestoreRequest(AtTime(time_ms)))
        assert caught.value.exit_code == 4
        assert (str(history[4].position) in caught.value.message) != is_last
        plan = prepare(replica_of(maker), RestoreRequest(AtTime(time_ms), allow_partial=True)).plan
        assert plan.shortfall
    for each in history:
        assert (
            prepare(replica_of(maker), RestoreRequest(AtPosition(each.position))).plan.reached.position == each.position
        )
    (survey,) = inventory(replica_of(maker))
    (span,) = survey.doubtful
    assert (span.first_ms, span.last_ms) == (history[1].time_ms, None if is_last else history[4].time_ms)
