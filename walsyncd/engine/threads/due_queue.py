"""A queue of keys that are due at a moment."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from typing import Generic, TypeVar

STALE_FACTOR = 4  # entries kept for each key; each time that a key is put again, its old entry remains
STALE_MIN = 100  # fewer are not worth a clean-up

K = TypeVar("K")


class DueQueue(Generic[K]):
    """Keys, each due at one moment. Moments are numbers of one clock, which the caller chooses. The caller also locks.

    Keys that are due at the same moment come in the order in which they were put.
    """

    def __init__(self) -> None:
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []  # entries that ``_due`` contradicts are stale and ignored
        self._order = itertools.count()

    def __bool__(self) -> bool:
        return bool(self._due)

    def __contains__(self, key: K) -> bool:
        return key in self._due

    def items(self) -> Iterator[tuple[K, float]]:
        """Iterate over each key and its moment, in no order."""
        return iter(self._due.items())

    def get(self, key: K) -> float | None:
        """Return when a key is due, or None if it is not queued."""
        return self._due.get(key)

    def put(self, key: K, when: float) -> bool:
        """Make a key due at ``when``, whenever it was due before. Returns whether it is now the first of all."""
        self._due[key] = when
        entry = (when, next(self._order), key)
        heapq.heappush(self._heap, entry)
        if len(self._heap) > STALE_FACTOR * len(self._due) + STALE_MIN:
            self._heap = [each for each in self._heap if self._due.get(each[2]) == each[0]]
            heapq.heapify(self._heap)
        self._drop_stale()
        return self._heap[0] is entry

    def hasten(self, key: K, when: float) -> bool:
        """Make a key due at ``when`` unless it is due earlier. Returns whether it is now the first of all."""
        known = self._due.get(key)
        return (known is None or when < known) and self.put(key, when)

    def discard(self, key: K) -> None:
        """Remove a key, if it is queued."""
        self._due.pop(key, None)

    def first(self) -> float | None:
        """Return when the first key is due, or None if there is none."""
        self._drop_stale()
        return self._heap[0][0] if self._heap else None

    def pop(self, now: float) -> K | None:
        """Remove and return the first key that is due at ``now`` or before. Returns None if there is none."""
        self._drop_stale()
        if not self._heap or self._heap[0][0] > now:
            return None
        key = heapq.heappop(self._heap)[2]
        del self._due[key]
        return key

    def _drop_stale(self) -> None:
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
