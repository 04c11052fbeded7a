"""Tests of bases that share one thread: none waits for one of another size."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.engine.following import spec_of
from tests.engine.running import wait_for
from walsyncd.core.limits import Limits
from walsyncd.engine.base.base_copy import CopyWait, Steps
from walsyncd.engine.base.copy_queue import FLIGHTS_MAX, SMALL_PLACES_MAX, TINY_PLACES_MAX, CopyQueue
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.wal_pairs import WalPairs

SMALL = Limits(small_base_bytes=10)


@pytest.fixture
def database(tmp_path: Path) -> Callable[[int, int], FollowedDatabase]:
    def make(row_id: int, size: int) -> FollowedDatabase:
        path = tmp_path / f"{row_id}.db"
        path.write_bytes(bytes(size))
        return FollowedDatabase(replace(spec_of(path), name=str(row_id)), row_id, WalPairs(path))

    return make


@contextmanager
def running(take: Callable[[FollowedDatabase], Steps[None]], limits: Limits = SMALL) -> Iterator[CopyQueue]:
    queue = CopyQueue(take, limits)
    thread = threading.Thread(target=queue.run)
    thread.start()
    try:
        yield queue
    finally:
        queue.stop()
        thread.join()


def test_a_small_base_does_not_wait_for_a_large_one(database: Callable[[int, int], FollowedDatabase]) -> None:
    """While the large one waits for its store, all small ones are copied, one after the other."""
    answer: Future[Any] = Future()
    told: list[str] = []
    under_way: set[str] = set()

    def take(tracked: FollowedDatabase) -> Steps[None]:
        assert not {name for name in under_way if name != "1"}, "two of a class"
        under_way.add(tracked.name)
        yield CopyWait()
        if tracked.row_id == 1:
            yield CopyWait(answer, math.inf)
        under_way.remove(tracked.name)
        told.append(tracked.name)

    with running(take) as queue:
        queue.due(database(1, 1000), 0.0)
        wait_for(lambda: "1" in under_way)
        for row_id in range(2, 9):
            queue.due(database(row_id, 15), 0.0)
        wait_for(lambda: len(told) == 7)
        answer.set_result(None)
        wait_for(lambda: len(told) == 8)
    assert told == ["2", "3", "4", "5", "6", "7", "8", "1"]


def test_one_that_gets_nowhere_keeps_nobody_waiting(database: Callable[[int, int], FollowedDatabase]) -> None:
    """The store refuses one database. After a while other bases of its size continue, and its base is not forgotten."""
    answer: Future[Any] = Future()
    told: list[str] = []

    def take(tracked: FollowedDatabase) -> Steps[None]:
        if tracked.row_id == 1:
            yield CopyWait(answer, math.inf)
        yield CopyWait()
        told.append(tracked.name)

    with running(take, limits=replace(SMALL, base_stalled_s=0.05)) as queue:
        for row_id in range(1, 5):
            queue.due(database(row_id, 15), 0.0)
        wait_for(lambda: len(told) == 3)
        answer.set_result(None)
        wait_for(lambda: len(told) == 4)
    assert told == ["2", "3", "4", "1"]


def test_two_of_other_sizes_go_on_by_turns(database: Callable[[int, int], FollowedDatabase]) -> None:
    """Two bases take a step each in turn. Each then has one part in flight. A base that is alone has more."""
    steps: list[tuple[str, int]] = []
    both = threading.Event()

    def take(tracked: FollowedDatabase) -> Steps[None]:
        while not both.is_set():
            yield CopyWait()
        for _ in range(5):
            steps.append((tracked.name, queue.in_flight_max()))
            yield CopyWait()

    with running(take) as queue:
        for row_id, size in ((1, 1000), (2, 20)):
            queue.due(database(row_id, size), 0.0)
        wait_for(lambda: queue.in_flight_max() == 1)
        both.set()
        wait_for(lambda: len(steps) == 10)
    turns = [name for name, _ in steps]
    assert {abs(turns[:place].count("1") - turns[:place].count("2")) for place in range(11)} <= {0, 1}
    assert {flights for _, flights in steps[:8]} == {1}
    assert queue.in_flight_max() == FLIGHTS_MAX


def test_a_moment_is_waited_for(database: Callable[[int, int], FollowedDatabase]) -> None:
    """A base that is refused pauses, and then it is its turn again."""
    told: list[str] = []

    def take(tracked: FollowedDatabase) -> Steps[None]:
        yield CopyWait(until_s=0.0)
        told.append("rested")

    with running(take) as queue:
        queue.due(database(1, 5), 0.01)
        wait_for(lambda: told)


def test_who_is_forgotten_is_not_begun(database: Callable[[int, int], FollowedDatabase]) -> None:
    """A forgotten base is not begun. No base is begun twice either, however often it is requested."""
    told: list[str] = []
    answer: Future[Any] = Future()

    def take(tracked: FollowedDatabase) -> Steps[None]:
        told.append(tracked.name)
        yield CopyWait(answer, math.inf)

    one, two = database(1, 15), database(2, 15)
    with running(take) as queue:
        queue.due(one, 0.0)
        wait_for(lambda: told)
        queue.due(two, 0.0)
        queue.due(one, 0.0)
        one.path.write_bytes(bytes(1000))  # it is in another class by now, but it still waits for itself
        queue.forget(two)
        answer.set_result(None)
        wait_for(lambda: len(told) == 2)
    assert told == ["1", "1"]


def test_a_stop_leaves_what_is_under_way(database: Callable[[int, int], FollowedDatabase]) -> None:
    """At a stop the files of a base under way are closed, and nothing more is done for it."""
    told: list[str] = []

    def take(_tracked: FollowedDatabase) -> Steps[None]:
        try:
            told.append("begun")
            yield CopyWait(Future(), math.inf)
            told.append("went on")
        finally:
            told.append("closed")

    with running(take) as queue:
        queue.due(database(1, 5), 0.0)
        wait_for(lambda: told)
    assert told == ["begun", "closed"]
    assert queue.is_stopping


def test_an_earlier_wish_counts_unless_it_may_not(database: Callable[[int, int], FollowedDatabase]) -> None:
    """A new request does not hasten a base that failed, unless somebody asks for it now."""
    told: list[str] = []

    def take(tracked: FollowedDatabase) -> Steps[None]:
        told.append(tracked.name)
        yield CopyWait()

    with running(take) as queue:
        one, two = database(1, 5), database(2, 500)
        queue.due(one, 3600.0)
        queue.due(two, 3600.0)
        queue.due(one, 0.0, may_hasten=False)
        queue.due(two, 0.0)
        wait_for(lambda: told)
        assert told == ["2"]
        queue.due(one, 0.0, anew=True)
        wait_for(lambda: len(told) == 2)


def test_a_database_that_is_followed_no_more_delays_nobody(database: Callable[[int, int], FollowedDatabase]) -> None:
    """The database left while its next base was planned, and joined again with its id. Both requests stay separate."""
    left, joined = database(1, 15), database(1, 15)
    told: list[FollowedDatabase] = []

    def take(tracked: FollowedDatabase) -> Steps[None]:
        told.append(tracked)
        queue.stop()
        yield from ()

    queue = CopyQueue(take, SMALL)
    queue.due(left, 0.0)
    left.mailbox.dismissed = True
    queue.due(joined, 0.01)
    queue.due(left, 0.0, anew=True)
    queue.run()
    assert told == [joined]


def test_small_bases_are_under_way_together(database: Callable[[int, int], FollowedDatabase]) -> None:
    """Their requests do not wait for one another. Of any other class one is under way at a time."""
    answer: Future[Any] = Future()
    under_way: set[int] = set()

    def take(tracked: FollowedDatabase) -> Steps[None]:
        under_way.add(tracked.row_id)
        yield CopyWait(answer, math.inf)

    with running(take) as queue:
        for row_id in range(1, SMALL_PLACES_MAX + 2):
            queue.due(database(row_id, 9), 0.0)
        for row_id in (101, 102):
            queue.due(database(row_id, 10), 0.0)
        wait_for(lambda: len(under_way) >= SMALL_PLACES_MAX + 1)
        assert len([row_id for row_id in under_way if row_id < 100]) == SMALL_PLACES_MAX
        assert len([row_id for row_id in under_way if row_id > 100]) == 1
        answer.set_result(None)
        wait_for(lambda: len(under_way) == SMALL_PLACES_MAX + 3)


def test_more_of_them_are_under_way_if_they_are_tiny(database: Callable[[int, int], FollowedDatabase]) -> None:
    """As many tiny bases are under way as fit into the same memory.

    A base that is not tiny waits only for its own class.
    """
    answer: Future[Any] = Future()
    under_way: set[int] = set()

    def take(tracked: FollowedDatabase) -> Steps[None]:
        under_way.add(tracked.row_id)
        yield CopyWait(answer, math.inf)

    with running(take) as queue:
        for row_id in range(1, TINY_PLACES_MAX + 2):
            queue.due(database(row_id, 1), 0.0)
        queue.due(database(101, 10), 0.0)
        wait_for(lambda: len(under_way) >= TINY_PLACES_MAX + 1)
        assert len([row_id for row_id in under_way if row_id < 100]) == TINY_PLACES_MAX
        answer.set_result(None)
        wait_for(lambda: len(under_way) == TINY_PLACES_MAX + 2)
