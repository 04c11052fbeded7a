"""Iterators run ahead in order, within bounds, and nothing is left running."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from walsyncd.engine.prefetch import Prefetch

WAIT_S = 60


def numbers(source: int, count: int) -> Iterator[int]:
    for number in range(count):
        yield source * 100 + number


@pytest.mark.parametrize("threads", [1, 3, 9])
def test_items_come_in_the_order_of_their_sources(threads: int) -> None:
    """Whatever runs ahead, each source is taken whole and in turn."""
    sources = [partial(numbers, source, source % 4) for source in range(20)]
    with Prefetch(sources, threads=threads, room=1) as ahead:
        taken = [list(items) for items in ahead]
    assert taken == [list(source()) for source in sources]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_sources_run_at_once_and_no_farther_than_their_queue() -> None:
    """The first ones begin together; each stops when its queue is full."""
    began = threading.Barrier(3)
    made: list[int] = []

    def source() -> Iterator[int]:
        began.wait(WAIT_S)
        for number in range(50):
            made.append(number)
            yield number

    with Prefetch([source] * 3, threads=3, room=2) as ahead:
        first = next(iter(ahead))
        assert next(first) == 0
        assert len(made) <= 3 * 4 + 1  # in each: two that wait, one that waits to wait, one taken
    assert len(made) < 50


def test_error_comes_where_its_items_do() -> None:
    """What came before it is taken, and those behind are stopped."""

    def failing() -> Iterator[int]:
        yield 1
        raise LookupError("two")

    taken: list[int] = []
    sources: list[Callable[[], Iterator[int]]] = [failing, partial(numbers, 1, 50)]
    with Prefetch(sources, threads=2, room=1) as ahead, pytest.raises(LookupError, match="two"):
        taken.extend(number for items in ahead for number in items)
    assert taken == [1]


def test_nothing_taken_is_stopped_too() -> None:
    """Whoever opens it may leave without an item."""
    with Prefetch([partial(numbers, source, 50) for source in range(5)], threads=2, room=1):
        pass
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]
