"""Tests of restores around bridges: exact where something was stored, refused with both neighbours elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.replicas import STEP_MS, ReplicaMaker, Shipped, counter_in, damage, make_replica
from walsyncd.core.restore.plan import AtPosition, AtTime, Head, Target
from walsyncd.core.stored.layout import SegmentKey
from walsyncd.core.stored.position import Position
from walsyncd.engine.restore.bridge_reader import read_bridge, read_bridges
from walsyncd.engine.restore.planner import RestoreRequest, prepare
from walsyncd.engine.restore.replica import Replica
from walsyncd.engine.restore.restorer import restore_request
from walsyncd.errors import SuspectError, TargetError


@dataclass(frozen=True, slots=True)
class Bridged:
    """A replica with two bridges: three commits, a bridge of three, two commits, a bridge of one, one commit."""

    maker: ReplicaMaker
    bridges: tuple[SegmentKey, SegmentKey]

    @property
    def replica(self) -> Replica:
        return Replica(self.maker.storage, self.maker.name)

    def neighbours(self, time_ms: int) -> tuple[Shipped, Shipped]:
        """Return the commits before and after a moment."""
        history = self.maker.history
        after = next(each for each in history if each.time_ms > time_ms)
        return [each for each in history if each.time_ms <= time_ms][-1], after

    def refusal(self, target: Target) -> str:
        with pytest.raises(TargetError) as caught:
            prepare(self.replica, RestoreRequest(target))
        assert caught.value.exit_code == 4
        return caught.value.message


@pytest.fixture(params=["segments", "wholes", "both"])
def bridged(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bridged]:
    def close(maker: ReplicaMaker) -> None:
        maker.close_epoch()
        if request.param != "segments":
            assert maker.compact().bridge == (maker.epoch > 2)
        if request.param == "wholes":
            shutil.rmtree(maker.folder / "wal" / f"{maker.epoch - 1:08x}")

    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(3, rows=5)
        maker.ship(every=2)
        close(maker)
        first = maker.bridge(lost=3)
        maker.commit(2)
        maker.ship(every=1)
        close(maker)
        second = maker.bridge(lost=1)
        maker.commit(1)
        maker.ship()
        close(maker)
        yield Bridged(maker, (first, second))


def test_every_stored_commit_is_restored(bridged: Bridged, tmp_path: Path) -> None:
    """By its position, by its time, and as the head, SQLite finds exactly that commit."""
    for number, each in enumerate(bridged.maker.history):
        targets: list[Target] = [AtPosition(each.position), AtTime(each.time_ms)]
        for kind, target in enumerate(targets):
            out = tmp_path / f"{number}-{kind}.db"
            restored = restore_request(bridged.replica, RestoreRequest(target), out)
            assert restored.plan.reached.position == each.position
            assert restored.plan.reached.time_ms == each.time_ms
            assert counter_in(out) == each.counter
    restore_request(bridged.replica, RestoreRequest(Head()), tmp_path / "head.db")
    assert (tmp_path / "head.db").read_bytes() == bridged.maker.file()


def test_moments_inside_a_bridge_are_refused(bridged: Bridged, tmp_path: Path) -> None:
    """The error names both neighbours. `--allow-partial` takes the earlier one."""
    lost = [*bridged.maker.lost, *(each - 1 for each in bridged.maker.lost)]
    for number, time_ms in enumerate(lost):
        before, after = bridged.neighbours(time_ms)
        message = bridged.refusal(AtTime(time_ms))
        assert "inside a bridge" in message
        assert "the daemon was stopped" in message
        assert f"nearest before: {before.position}" in message
        assert f"nearest after: {after.position}" in message
        out = tmp_path / f"{number}.db"
        restored = restore_request(bridged.replica, RestoreRequest(AtTime(time_ms), allow_partial=True), out)
        assert (restored.plan.reached.position, counter_in(out)) == (before.position, before.counter)
        assert "inside a bridge" in restored.plan.shortfall


def test_the_old_position_counts_until_it_was_last_proven(bridged: Bridged) -> None:
    """A millisecond after the last proof it is unknown what the database was."""
    for bridge in bridged.bridges:
        stored = read_bridge(bridged.replica, bridge) if bridged.maker.object_path(bridge).exists() else None
        old = [each for each in bridged.maker.history if each.position.epoch < bridge.epoch][-1]
        proven_ms = old.time_ms + STEP_MS // 4
        assert stored is None or stored.span.proven_ms == proven_ms
        plan = prepare(bridged.replica, RestoreRequest(AtTime(proven_ms))).plan
        assert plan.reached.position == old.position
        bridged.refusal(AtTime(proven_ms + 1))


def test_positions_inside_a_bridge_are_refused(bridged: Bridged) -> None:
    """A frame of the bridge, and one after the end of the epoch before it, are refused."""
    history = bridged.maker.history
    for bridge in bridged.bridges:
        old = [each for each in history if each.position.epoch < bridge.epoch][-1]
        new = next(each for each in history if each.position > old.position)
        inside = Position(old.position.generation, bridge.epoch, 1)
        beyond = Position(old.position.generation, old.position.epoch, old.position.frame + 1)
        for position in (inside, beyond):
            message = bridged.refusal(AtPosition(position))
            assert f"nearest before: {old.position}" in message
            assert f"nearest after: {new.position}" in message
        assert "inside a bridge" in bridged.refusal(AtPosition(inside))
        plan = prepare(bridged.replica, RestoreRequest(AtPosition(inside), allow_partial=True)).plan
        assert plan.reached.position == old.position


@pytest.mark.parametrize("compacted", [False, True])
def test_suspect_positions_are_refused(tmp_path: Path, *, compacted: bool) -> None:
    """Positions after the last good scan and before the bridge that heals are refused.

    The head's and the scan's own position are not refused.
    """
    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(4)
        maker.ship(every=1)
        maker.heal(since=maker.history[1], pages=3)
        maker.commit(1)
        maker.ship()
        maker.close_epoch()
        if compacted:
            maker.compact()
            shutil.rmtree(maker.folder / "wal" / f"{maker.epoch - 1:08x}")
        replica = Replica(maker.storage, maker.name)
        suspect = [each for each in maker.history if maker.history[1].position < each.position][:3]
        for each in maker.history:
            for target in (AtPosition(each.position), AtTime(each.time_ms)):
                if each not in suspect:
                    assert prepare(replica, RestoreRequest(target)).plan.reached.position == each.position
                    continue
                with pytest.raises(SuspectError, match="3 wrong pages") as caught:
                    prepare(replica, RestoreRequest(target))
                assert caught.value.exit_code == 4
                assert str(maker.history[1].position) in caught.value.message
                plan = prepare(replica, RestoreRequest(target, allow_partial=True)).plan
                assert (plan.reached.position, plan.shortfall) == (each.position, "")
                assert any("is suspect" in note for note in plan.notes)
        assert not prepare(replica, RestoreRequest(Head())).plan.notes


def test_damaged_objects_do_not_hide_a_suspect_position(tmp_path: Path) -> None:
    """If a whole is damaged and its segments are used, the positions that they reach are suspect anyway."""
    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(4)
        maker.ship(every=1)
        maker.close_epoch()
        damage(maker.object_path(maker.compact()))
        maker.heal(since=maker.history[0])
        wanted = maker.history[2]
        for target in (AtPosition(wanted.position), AtTime(wanted.time_ms)):
            with pytest.raises(SuspectError):
                restore_request(Replica(maker.storage, maker.name), RestoreRequest(target), tmp_path / "out.db")


def test_a_bridge_that_cannot_be_read_costs_a_note(tmp_path: Path) -> None:
    """Positions before the bridge are restored. A note says that the bridge may make more of them suspect."""
    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(2)
        maker.ship()
        damaged = maker.object_path(maker.bridge())
        damaged.write_bytes(damaged.read_bytes()[:-7])
        replica = Replica(maker.storage, maker.name)
        plan = prepare(replica, RestoreRequest(AtPosition(maker.history[1].position))).plan
        (note,) = plan.notes
        assert damaged.name in note
        bridges, problems = read_bridges(
            replica, [key for part in replica.list_all().generations for key in part.frames]
        )
        assert bridges == []
        assert len(problems) == 2
