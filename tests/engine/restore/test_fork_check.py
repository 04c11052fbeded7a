"""Tests of two histories in one epoch: neither is restored silently, wherever their objects end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.forks import OtherHistory
from tests.replicas import ReplicaMaker, counter_in, damage, make_replica
from walsyncd.core.restore.plan import AtPosition, Head, Target
from walsyncd.core.stored.layout import SegmentKey
from walsyncd.engine.restore.planner import RestoreRequest
from walsyncd.engine.restore.read_replica import ReadReplica
from walsyncd.engine.restore.replica import Replica
from walsyncd.engine.restore.restorer import Restored, RestoreOptions, restore_request
from walsyncd.engine.restore.verifier import verify
from walsyncd.errors import CorruptError, ForkError

COMMITS = 4  # commits of each history, after two that both have


@dataclass(frozen=True, slots=True)
class Forked:
    """A base, two commits in a segment of their own, and four in ``ours``.

    ``other`` has four other commits in their place.
    """

    maker: ReplicaMaker
    common: SegmentKey
    ours: list[SegmentKey]
    other: OtherHistory

    @property
    def replica(self) -> Replica:
        return Replica(self.maker.storage, self.maker.name)

    def restore(self, out: Path, target: Target | None = None) -> Restored:
        return restore_request(self.replica, RestoreRequest(target or Head()), out)


def forked(maker: ReplicaMaker, *, every: int) -> Forked:
    maker.base()
    maker.commit(2)
    (common,) = maker.ship()
    maker.commit(COMMITS)
    ours = maker.ship(every=every)
    return Forked(maker, common, ours, OtherHistory(maker, ours))


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[ReplicaMaker]:
    with make_replica(tmp_path) as made:
        yield made


def all_cuts() -> list[tuple[int, ...]]:
    """Return every way to cut four commits, or the first few of them, into segments."""
    return [
        (*(end for end in range(1, last) if bits >> (end - 1) & 1), last)
        for last in range(1, COMMITS + 1)
        for bits in range(1 << (last - 1))
    ]


@pytest.mark.parametrize("every", [1, 2, 3, 4])
@pytest.mark.parametrize("cuts", all_cuts(), ids=str)
def test_segments_that_disagree_are_a_fork(
    maker: ReplicaMaker, tmp_path: Path, every: int, cuts: tuple[int, ...]
) -> None:
    """However both are cut, the head and the first commit after the fork are refused.

    The commit before is not refused.
    """
    case = forked(maker, every=every)
    theirs = case.other.store(*cuts)
    with pytest.raises(ForkError) as caught:
        case.restore(tmp_path / "head.db")
    assert "history" in caught.value.message or "histories" in caught.value.message
    assert caught.value.exit_code == 1
    assert not (tmp_path / "head.db").exists()
    restored = case.restore(tmp_path / "before.db", AtPosition(maker.history[1].position))
    assert (counter_in(tmp_path / "before.db"), restored.plan.notes) == (2, ())
    with pytest.raises(CorruptError):
        case.restore(tmp_path / "first.db", AtPosition(maker.history[2].position))
    assert verify(case.replica).problems
    for key in theirs:
        maker.remove(key)
    case.restore(tmp_path / "alone.db")
    assert counter_in(tmp_path / "alone.db") == 6


@pytest.mark.parametrize("remaining", ["whole and segments", "two wholes", "segments beside a whole of theirs"])
def test_a_whole_that_disagrees_is_a_fork(maker: ReplicaMaker, tmp_path: Path, remaining: str) -> None:
    """A whole may disagree with another history's segments, or with that history's whole.

    Later epochs change nothing.
    """
    maker.base()
    maker.commit(COMMITS)
    ours = maker.ship(every=2)
    other = OtherHistory(maker, ours)
    maker.close_epoch()
    if remaining == "segments beside a whole of theirs":
        other.store_whole()
    else:
        maker.compact()
        for key in ours:
            maker.remove(key)
        other.store_whole() if remaining == "two wholes" else other.store(1, 3)
    maker.commit()
    maker.ship()
    replica = Replica(maker.storage, maker.name)
    with pytest.raises(ForkError):
        restore_request(replica, RestoreRequest(Head()), tmp_path / "head.db")
    with pytest.raises(ForkError):
        restore_request(replica, RestoreRequest(AtPosition(maker.history[1].position)), tmp_path / "early.db")
    assert any("another history" in problem for problem in verify(replica).problems)


def test_the_other_history_does_not_stand_in_for_a_damaged_object(maker: ReplicaMaker, tmp_path: Path) -> None:
    """The end of the damaged object still shows which history it was."""
    case = forked(maker, every=4)
    case.other.store(4)
    path = maker.object_path(case.ours[0])
    body = bytearray(path.read_bytes())
    body[20] ^= 1
    path.write_bytes(body)
    with pytest.raises(CorruptError):
        case.restore(tmp_path / "out.db")
    with pytest.raises(ForkError):
        restore_request(case.replica, RestoreRequest(Head(), allow_partial=True), tmp_path / "out.db")
    assert not (tmp_path / "out.db").exists()


def test_a_followed_copy_stops_at_a_fork(maker: ReplicaMaker, tmp_path: Path) -> None:
    """The copy applies neither history, and keeps what it had."""
    maker.base()
    maker.commit(2)
    maker.ship()
    replica = Replica(maker.storage, maker.name)
    copy = ReadReplica(replica, tmp_path / "copy.db", RestoreOptions())
    maker.commit(COMMITS)
    other = OtherHistory(maker, maker.ship(every=2))
    other.store(1, 4)
    with pytest.raises(ForkError):
        copy.look()
    copy.close()
    assert counter_in(tmp_path / "copy.db") == 2


def test_what_agrees_is_restored_in_silence(maker: ReplicaMaker, tmp_path: Path) -> None:
    """A whole beside its segments causes no note at any position, even if some segments are deleted."""
    maker.base()
    maker.commit(COMMITS)
    keys = maker.ship(every=1)
    maker.close_epoch()
    maker.compact()
    maker.remove(keys[1])
    for number, each in enumerate(maker.history):
        out = tmp_path / f"{number}.db"
        restored = restore_request(Replica(maker.storage, maker.name), RestoreRequest(AtPosition(each.position)), out)
        assert (counter_in(out), restored.plan.notes) == (each.counter, ())


def test_what_can_not_be_compared_is_a_note(maker: ReplicaMaker, tmp_path: Path) -> None:
    """A damaged segment beside the whole that holds its frames does no harm, and is reported."""
    maker.base()
    maker.commit(COMMITS)
    (key,) = maker.ship()
    maker.close_epoch()
    maker.compact()
    damage(maker.object_path(key))
    path = maker.object_path(key)
    path.write_bytes(path.read_bytes()[:-3])
    restored = restore_request(Replica(maker.storage, maker.name), RestoreRequest(Head()), tmp_path / "out.db")
    (note,) = restored.plan.notes
    assert path.name in note
    assert "not needed" in note
    assert counter_in(tmp_path / "out.db") == COMMITS
