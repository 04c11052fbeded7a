"""Tests of a round that waits for the commits of other databases: when, for which, and that it delays nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from tests.engine.following import spec_of
from walsyncd.adapters.journal.journal import NewObject, ObjectKind
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.limits import DEFAULT_LIMITS
from walsyncd.engine.follow import schedule
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.schedule import GATHER_S, OFTEN, OFTEN_S, Gathering, Schedule, Taken
from walsyncd.engine.follow.step import Step
from walsyncd.engine.follow.wal_pairs import WalPairs


def database(row_id: int) -> FollowedDatabase:
    path = Path(f"/nowhere/{row_id}.db")
    return FollowedDatabase(spec_of(path), row_id, WalPairs(path))


def found(frames: int = 2, **changes: Any) -> Step:
    """Return a look that has caught up and found so many frames."""
    new = NewObject(ObjectKind.SEGMENT, "k", b"x", 1, 1, frames, 0, "g")
    return replace(Step(objects=(new,), caught_up=True), **changes)


class Rounds:
    """Rounds by hand, at times that a test sets. ``coming`` are the databases that become due while a round waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        self.coming: list[list[FollowedDatabase]] = []
        self.asked: list[tuple[set[int], float]] = []
        self.prepared: list[int] = []
        monkeypatch.setattr(schedule, "time", self)
        self.gathering = Gathering(cast("Schedule", self), DEFAULT_LIMITS.fast_frames)

    def monotonic(self) -> float:
        return self.now_s

    def take_more(self, held: Collection[int], until_s: float) -> list[FollowedDatabase]:
        self.asked.append((set(held), until_s - self.now_s))
        return self.coming.pop(0) if self.coming else []

    def round(
        self, *row_ids: int, step: Callable[[], Step | None] = found, asked: int = 0, backpressure: bool = False
    ) -> list[int]:
        """Return the databases that were looked at."""
        self.asked.clear()
        taken, steps = [database(row_id) for row_id in row_ids], list[Taken]()
        looked = []
        for tracked in self.gathering.databases(taken, steps, lambda more: self.prepared.append(more.row_id)):
            tracked.spec = replace(tracked.spec, backpressure=backpressure)
            looked.append(tracked.row_id)
            if (result := step()) is not None:
                steps.append((tracked, result, asked))
        assert looked == [tracked.row_id for tracked in taken], "whoever ends the round knows all of them"
        return looked

    def often(self) -> None:
        """Let commits come as often as they have to."""
        for row_id in range(OFTEN):
            self.now_s += 0.9 * OFTEN_S / OFTEN
            self.round(row_id)


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> Rounds:
    return Rounds(monkeypatch)


def test_a_commit_that_comes_alone_waits_for_nothing(rounds: Rounds) -> None:
    """A few that come together do not make others likely, and neither do many that come slowly."""
    for row_id in range(5 * OFTEN):
        rounds.now_s += 1.5 * OFTEN_S / OFTEN
        rounds.round(row_id)
        assert not rounds.asked
    rounds.now_s += 60
    rounds.round(1, 2, 3)
    assert not rounds.asked


def test_where_commits_come_often_a_round_takes_those_of_others(rounds: Rounds) -> None:
    """The round ends when no other database is due, and waits for a few milliseconds at most.

    Locks are updated before each look.
    """
    rounds.often()
    rounds.coming = [[database(2)], [database(3), database(4)]]
    assert rounds.round(1) == [1, 2, 3, 4]
    assert [held for held, _ in rounds.asked] == [{1}, {1, 2}, {1, 2, 3, 4}]
    assert [left_s for _, left_s in rounds.asked] == pytest.approx([GATHER_S] * 3)
    assert rounds.prepared == [2, 3, 4]
    rounds.now_s += OFTEN_S
    rounds.round(1)
    assert not rounds.asked, "they have stopped coming"


@pytest.mark.parametrize(
    "step",
    [
        lambda: found(DEFAULT_LIMITS.fast_frames),
        lambda: found(caught_up=False),
        lambda: found(bridged=True),
        lambda: found(begins="first"),
        lambda: found(gap=Gap.of(GapKind.OTHER, "x")),
        lambda: found(objects=()),
        lambda: None,
    ],
)
def test_what_does_not_wait(rounds: Rounds, step: Callable[[], Step | None]) -> None:
    """A fast writer, a database that lags, begins or ends, and a round that has found nothing do not wait."""
    rounds.often()
    rounds.coming = [[database(2)]]
    assert rounds.round(1, step=step) == [1]


def test_nobody_who_asked_waits(rounds: Rounds) -> None:
    """A writer that is held back until its commits are read does not wait either."""
    rounds.often()
    assert rounds.round(1, asked=1) == [1]
    assert rounds.round(1, backpressure=True) == [1]
    assert not rounds.asked


def test_others_that_are_due_are_taken() -> None:
    """The other databases may be due now or be woken meanwhile.

    Databases that are held are not taken. They end the wait, as the schedule's end does.
    """
    due, held, other = Schedule(), database(1), database(2)
    far_s, past_s = time.monotonic() + 60, time.monotonic() - 1
    assert due.take_more({1}, past_s) == []
    due.wake([other])
    assert due.take_more({1}, far_s) == [other]
    for woken, taken in ((other, [other]), (held, [])):
        thread = threading.Timer(0.02, due.wake, [[woken]])
        thread.start()
        assert due.take_more({1}, far_s) == taken
        thread.join()
    due.wake([other])
    assert due.take_more({1}, far_s) == [], "what is held is due again"
    assert {tracked.row_id for tracked in due.take()} == {1, 2}
    due.stop()
    assert due.take_more({1}, far_s) == []
