"""Tests of walsyncd.engine.follow.schedule: each database is taken once, at its earliest time."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

import pytest

from tests.engine.following import spec_of
from walsyncd.engine.follow import schedule
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.schedule import ROUND_MAX, Schedule, UnfinishedRound
from walsyncd.engine.follow.step import AT_ONCE
from walsyncd.engine.follow.wal_pairs import WalPairs
from walsyncd.engine.threads.due_queue import STALE_FACTOR, STALE_MIN
from walsyncd.engine.threads.mailbox import Request


class Clock:
    """A clock that moves only when a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(schedule, "time", clock)
    return clock


def database(row_id: int) -> FollowedDatabase:
    path = Path(f"/nowhere/{row_id}.db")
    return FollowedDatabase(spec_of(path), row_id, WalPairs(path))


def test_a_woken_database_is_due_at_once(clock: Clock) -> None:
    """The database comes only once, however often it is woken.

    The pauses between its looks start again at the shortest.
    """
    due, tracked = Schedule(), database(1)
    for _ in range(7):
        due.relook(tracked)
    assert tracked.pace.relooks == 7
    due.wake([tracked])
    due.wake([tracked])
    assert due.take() == [tracked]
    assert due._take_due(clock.now) == []
    assert tracked.pace.relooks == 0


def test_a_busy_database_waits_its_pause(clock: Clock) -> None:
    """An event does not shorten the pause, and a request does."""
    due, tracked = Schedule(), database(1)
    due.rest(tracked, clock.now + 5)
    due.wake([tracked])
    assert due._take_due(clock.now + 4) == []
    due.request(tracked, Request(lambda _tracked: None))
    assert due.take() == [tracked]
    assert tracked.mailbox.asked() == 1


def test_the_earliest_time_counts(clock: Clock) -> None:
    """A later time does not postpone it, nor does it come a second time."""
    due, tracked = Schedule(), database(1)
    due.at(tracked, 10)
    due.at(tracked, 3)
    due.at(tracked, 20)
    assert due._take_due(clock.now + 2.9) == []
    assert due._take_due(clock.now + 3) == [tracked]
    assert due._take_due(clock.now + 100) == []


def test_in_order_of_time(clock: Clock) -> None:
    """The databases that have been due longest come first, up to a number for each round."""
    due = Schedule()
    many = [database(number) for number in range(ROUND_MAX + 1)]
    for delay, tracked in enumerate(reversed(many)):
        due.at(tracked, delay)
    clock.now += 1000
    first = due.take()
    assert first == list(reversed(many))[:ROUND_MAX]
    assert due.take() == many[:1]


def test_an_interrupt_is_due_at_once(clock: Clock) -> None:
    """Work of others for the thread that takes databases does not wait for the next look."""
    due, tracked = Schedule(), database(1)
    due.at(tracked, 300)
    due.interrupt(tracked, lambda _tracked: None)
    assert due.take() == [tracked]
    assert tracked.mailbox.next_interrupt() is not None


def test_nobody_looks_at_a_database_before_it_is_admitted(clock: Clock) -> None:
    """The thread that adds the database writes to it. Requests that come meanwhile are answered after that."""
    due, tracked = Schedule(), database(1)
    tracked.mailbox.held_back = True
    due.wake([tracked])
    due.interrupt(tracked, lambda _tracked: None)
    assert due._take_due(clock.now + 1) == []
    due.admit(tracked)
    assert due.take() == [tracked]
    assert tracked.mailbox.next_interrupt() is not None


def test_a_failing_database_is_tried_later_each_time(clock: Clock) -> None:
    """The pause ends with a look that succeeds."""
    due, tracked = Schedule(), database(1)
    for delay_s in (0.5, 1.0, 2.0):
        due.failed(tracked)
        assert due._take_due(clock.now + delay_s - 0.01) == []
        assert due._take_due(clock.now + delay_s) == [tracked]
    due.well(tracked)
    due.failed(tracked)
    assert due._take_due(clock.now + 0.5) == [tracked]


def test_a_forgotten_database_never_comes(clock: Clock) -> None:
    """A forgotten database is no longer followed."""
    due, tracked = Schedule(), database(1)
    due.at(tracked, 1)
    due.forget(tracked)
    assert due._take_due(clock.now + 2) == []


def test_a_busy_database_leaves_no_litter(clock: Clock) -> None:
    """Each look replaces its slow look, so entries must not pile up."""
    due, tracked, idle = Schedule(), database(1), database(2)
    due.at(idle, 300)
    for _ in range(10 * ROUND_MAX):
        due.at(tracked, 300)
        clock.now += 0.01
        due.wake([tracked])
        assert due.take() == [tracked]
    assert len(due._due._heap) <= STALE_FACTOR * 2 + STALE_MIN + 1
    clock.now += 300
    assert due.take() == [idle]


def test_nobody_is_woken_for_what_comes_later(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The waiting thread only needs a new earliest time. A busy database's events do not wake it."""
    due, first, second = Schedule(), database(1), database(2)
    woken: list[None] = []
    monkeypatch.setattr(due._condition, "notify", lambda: woken.append(None))
    due.at(first, 5)
    due.at(second, 10)
    due.rest(first, clock.now + 5)
    due.wake([first])
    assert len(woken) == 1
    due.wake([second])
    assert len(woken) == 2


def test_taking_waits_until_woken_or_stopped() -> None:
    """The call blocks while nothing is due. A stop ends it without a result."""
    due, tracked = Schedule(), database(1)
    taken: Future[list[list[FollowedDatabase]]] = Future()
    thread = threading.Thread(target=lambda: taken.set_result([due.take(), due.take()]))
    thread.start()
    due.at(tracked, 0.01)
    while due._due:
        time.sleep(0.001)
    due.stop()
    thread.join()
    assert taken.result() == [[tracked], []]


class _Taken:
    def __init__(self) -> None:
        self.dropped = 0

    def drop_pending(self) -> None:
        self.dropped += 1


def taken_databases(count: int) -> list[FollowedDatabase]:
    return [cast("FollowedDatabase", _Taken()) for _ in range(count)]


def test_the_databases_of_a_round_are_looked_at_again() -> None:
    unfinished = UnfinishedRound()
    unfinished.taken = taken = taken_databases(2)
    assert unfinished.left() == taken
    assert [cast("Any", each).dropped for each in taken] == [1, 1]


def test_what_is_durable_is_believed_by_whoever_goes_on() -> None:
    """The step in which the thread hangs is lost, and those after it are not."""
    unfinished, taken = UnfinishedRound(), taken_databases(3)
    steps = iter(unfinished.durable([(each, AT_ONCE, 0) for each in taken]))
    assert next(steps)[0] is taken[0]
    assert [each for each, _, _ in unfinished.durable(())] == taken[1:]
    assert list(unfinished.durable(())) == []
