"""Runs several iterators, the sources, ahead in threads. The caller takes the items of one source after the other.

Few sources run at a time, and each has a bounded queue, so the amount that waits does not grow with the number of
sources. An error of a source is raised where its items are taken. A caller that stops early waits for the reads under
way, which are a block of an object at most.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from walsyncd.errors import forget_locals

T = TypeVar("T")

_END = object()


class Prefetch(Generic[T]):
    """Runs ``threads`` of the sources at a time. Each source runs ahead of the caller until its items fill ``room``.

    ``weigh`` returns how much of the room an item takes, 1 by default. The first item that does not fit is still taken.
    """

    def __init__(
        self,
        sources: Sequence[Callable[[], Iterator[T]]],
        *,
        threads: int,
        room: int,
        weigh: Callable[[T], int] = lambda _item: 1,
    ) -> None:
        self._sources = iter(sources)
        self._room = room
        self._weigh = weigh
        self._stopped = threading.Event()
        self._queues: list[_Queue] = []
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")
        try:
            for _ in range(threads):
                self._begin_next()
        except BaseException:  # for example, no thread can be started
            self.close()
            raise

    def __enter__(self) -> Prefetch[T]:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop all sources. Returns when none of them runs any more."""
        self._stopped.set()
        for waiting in self._queues:
            waiting.let_go()
        self._pool.shutdown()

    def __iter__(self) -> Iterator[Iterator[T]]:
        """Yield the items of each source in turn. The caller must take all items of a source before the next source."""
        while self._queues:
            yield self._items(self._queues[0])
            self._begin_next()

    def _begin_next(self) -> None:
        source = next(self._sources, None)
        if source is not None:
            items = _Queue(self._room, self._stopped)
            self._queues.append(items)
            self._pool.submit(self._run, source, items)

    def _run(self, source: Callable[[], Iterator[T]], items: _Queue) -> None:
        try:
            if not self._stopped.is_set():
                for item in source():
                    items.put(item, self._weigh(item))
                    if self._stopped.is_set():
                        break
        except BaseException as error:  # noqa: BLE001 - is raised where the items are taken
            forget_locals(error)
            items.put(_Failed(error), 0)
        finally:
            items.put(_END, 0)

    def _items(self, items: _Queue) -> Iterator[T]:
        while (item := items.get()) is not _END:
            if isinstance(item, _Failed):
                try:
                    raise item.error
                finally:
                    del item  # otherwise the error and its traceback keep each other alive
            yield item  # type: ignore[misc]  # an item that a source yielded
        self._queues.remove(items)


class _Queue:
    """The waiting items of one source. ``put`` waits while the queue is full."""

    def __init__(self, room: int, stopped: threading.Event) -> None:
        self._free = room
        self._stopped = stopped
        self._items: deque[tuple[object, int]] = deque()
        self._changed = threading.Condition()

    def put(self, item: object, weight: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._free > 0 or self._stopped.is_set())
            if self._stopped.is_set():
                return
            self._free -= weight
            self._items.append((item, weight))
            self._changed.notify()

    def get(self) -> object:
        with self._changed:
            self._changed.wait_for(lambda: self._items)
            item, weight = self._items.popleft()
            self._free += weight
            self._changed.notify()
        return item

    def let_go(self) -> None:
        """Drop all items. A source that waits in ``put`` continues, and ends."""
        with self._changed:
            self._items.clear()
            self._changed.notify_all()


class _Failed:
    def __init__(self, error: BaseException) -> None:
        self.error = error
