"""Tests of iterators that run ahead in order, within bounds, and leave nothing running."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from walsyncd.engine.restore import prefetch
from walsyncd.engine.restore.prefetch import Prefetch

WAIT_S = 60


def numbers(source: int, count: int) -> Iterator[int]:
    for number in range(count):
        yield source * 100 + number


def all_of(ahead: Prefetch[int]) -> list[list[int]]:
    return [list(items) for items in ahead]


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.parametrize("threads", [1, 3, 9])
def test_items_come_in_the_order_of_their_sources(threads: int) -> None:
    """Whatever runs ahead, each source is taken as a whole and in its turn."""
    sources = [partial(numbers, source, source % 4) for source in range(20)]
    with Prefetch(sources, threads=threads, room=1) as ahead:
        taken = all_of(ahead)
    assert taken == [list(source()) for source in sources]
    assert not readers()


def test_sources_run_at_once_and_no_farther_than_their_queue() -> None:
    """The first sources begin together, and each stops when its queue is full."""
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
        assert len(made) <= 3 * 4 + 1  # of each source: two wait, one waits for room, one was taken
    assert len(made) < 50


def test_error_comes_where_its_items_do() -> None:
    """Items before the error are taken, and later sources are stopped."""

    def failing() -> Iterator[int]:
        yield 1
        raise LookupError("two")

    taken: list[int] = []
    sources: list[Callable[[], Iterator[int]]] = [failing, partial(numbers, 1, 50)]
    with Prefetch(sources, threads=2, room=1) as ahead, pytest.raises(LookupError, match="two"):
        taken.extend(number for items in ahead for number in items)
    assert taken == [1]


def test_nothing_taken_is_stopped_too() -> None:
    """The caller may leave without taking an item."""
    with Prefetch([partial(numbers, source, 50) for source in range(5)], threads=2, room=1):
        pass
    assert not readers()


def test_whoever_leaves_twice_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a second Ctrl-C, while a request hangs, the sources whose queues are full end by themselves, and so the
    process ends.
    """
    answered = threading.Event()

    def away() -> Iterator[int]:
        answered.wait(WAIT_S)
        yield 0

    def interrupted(_pool: ThreadPoolExecutor) -> None:
        raise KeyboardInterrupt

    sources: list[Callable[[], Iterator[int]]] = [away, partial(numbers, 1, 50), partial(numbers, 2, 50)]
    ahead = Prefetch(sources, threads=3, room=2)
    left = readers()
    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ahead.close()
    monkeypatch.undo()
    answered.set()
    ahead.close()
    for thread in left:
        thread.join(WAIT_S)
    assert not readers()


def test_an_interrupt_right_after_the_end_was_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread waits for a second end."""
    get = prefetch._Queue.get

    def interrupted(self: prefetch._Queue) -> object:
        item = get(self)
        if item is prefetch._END:
            raise KeyboardInterrupt
        return item

    monkeypatch.setattr(prefetch._Queue, "get", interrupted)
    with Prefetch([partial(numbers, 1, 1)], threads=1, room=2) as ahead, pytest.raises(KeyboardInterrupt):
        all_of(ahead)
    assert not readers()


def test_a_thread_that_can_not_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The threads that were started are stopped."""
    start, begun = threading.Thread.start, iter(range(9))

    def starting(self: threading.Thread) -> None:
        if self.name.startswith("prefetch") and next(begun) == 1:
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", starting)
    with pytest.raises(RuntimeError, match="new thread"):
        Prefetch([partial(numbers, source, 50) for source in range(3)], threads=3, room=2)
    assert not readers()


def test_what_has_failed_holds_nothing() -> None:
    """A caller that tries for days, with garbage collected rarely, keeps no buffer of a failed attempt."""

    def failing() -> Iterator[int]:
        buffer = bytearray(1 << 20)
        yield len(buffer)
        raise LookupError(len(buffer))

    def attempt() -> None:
        with Prefetch([failing] * 3, threads=3, room=2) as ahead, pytest.raises(LookupError):
            all_of(ahead)

    attempt()
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        for _ in range(20):
            attempt()
        assert tracemalloc.get_traced_memory()[0] < 4 << 20
    finally:
        tracemalloc.stop()
        gc.enable()
