"""Which base next, and whose turn it is: one thread copies several databases by turns.

A base that is due is begun as soon as no other one of its size class is under way (``base_schedule``), so a small
database never waits for a large one, and there are few under way at a time however many are due. Of the smallest class,
whose bases are one request each, ``SMALL_PLACES_MAX`` are under way together. Each goes on by one
step, a range of its file or an answer of the store, and then the next one that waits for nothing, small ones first.
One that gets no further for ``STALLED_S``, because the store refuses its folder, say, keeps its class waiting no more.

In memory are one part that is being filled for each base under way, and ``FLIGHTS_MAX`` parts on their way, or one for
each base if there are more of these than that.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Set
from dataclasses import dataclass

from walsyncd.core.keep.base_schedule import size_class
from walsyncd.engine.base.base_copy import CopyWait, Steps
from walsyncd.engine.follow.followed_database import FollowedDatabase

SMALL_PLACES_MAX = 8  # bases of one request each: their requests are under way together
FLIGHTS_MAX = 2  # one is sent while the next one is begun
STALLED_S = 30.0  # a part on a slow line takes less
STALLED_MAX = 8  # each may hold a part in memory


@dataclass(frozen=True, slots=True, eq=False)
class _Due:
    """A base that is wanted at ``when`` (monotonic, seconds); void once another one is wanted in its place."""

    when: float
    tracked: FollowedDatabase


@dataclass(slots=True, eq=False)
class _Place:
    """A base under way, what it waits for, and since when (monotonic, seconds)."""

    row_id: int
    size_class: int
    steps: Steps[None]
    hold: CopyWait
    since_s: float

    def is_stalled(self, now_s: float) -> bool:
        return now_s >= self.since_s + STALLED_S and self.hold.holds(now_s)


class CopyQueue:
    """Any thread may ask for bases; one runs them. ``take`` are the steps of a database's base, from its start."""

    def __init__(self, take: Callable[[FollowedDatabase], Steps[None]]) -> None:
        self._take = take
        self._condition = threading.Condition()
        self._due: dict[int, _Due] = {}
        self._clock: list[tuple[float, int, _Due]] = []  # a heap: those whose time has not come
        self._order = itertools.count()
        self._ripe: dict[int, deque[_Due]] = {}  # by size class: those whose time has come, in that order
        self._places: list[_Place] = []  # of the running thread alone
        self._is_woken = False
        self._is_stopping = False

    @property
    def is_stopping(self) -> bool:
        """Whether all is to be left as it is, for the next run."""
        return self._is_stopping

    def in_flight_max(self) -> int:
        """How many parts a base may have on their way now."""
        return max(1, FLIGHTS_MAX // max(1, len(self._places)))

    def due(self, tracked: FollowedDatabase, delay_s: float, *, may_hasten: bool = True, anew: bool = False) -> None:
        """A base is wanted in ``delay_s`` seconds, or when it was asked for before if that is sooner.

        ``may_hasten`` False: no sooner than was asked for before; ``anew``: what was asked for before is void.
        """
        when = time.monotonic() + delay_s
        with self._condition:
            known = None if anew else self._due.get(tracked.row_id)
            if known is None or (when < known.when and may_hasten):
                due = self._due[tracked.row_id] = _Due(when, tracked)
                heapq.heappush(self._clock, (when, next(self._order), due))
                self._wake()

    def is_due(self, tracked: FollowedDatabase) -> bool:
        """Whether a base of this database is wanted now, or under way."""
        with self._condition:
            due = self._due.get(tracked.row_id)
            is_ripe = due is not None and due.when <= time.monotonic()
            return is_ripe or any(place.row_id == tracked.row_id for place in list(self._places))

    def forget(self, tracked: FollowedDatabase) -> None:
        """None is wanted any more; one under way sees that by itself."""
        with self._condition:
            self._due.pop(tracked.row_id, None)

    def run(self) -> None:
        """The thread: until ``stop``, which leaves what is under way where it is."""
        try:
            while not self._is_stopping:
                with self._condition:
                    self._is_woken = False
                now_s = time.monotonic()
                for each, its_class in self._chosen(now_s):
                    self._places.append(_Place(each.row_id, its_class, self._take(each), CopyWait(), now_s))
                if not self._go_on(time.monotonic()):
                    self._sleep()
        finally:
            for place in self._places:
                place.steps.close()

    def stop(self) -> None:
        """End the thread."""
        with self._condition:
            self._is_stopping = True
            self._condition.notify_all()

    def _chosen(self, now_s: float) -> list[tuple[FollowedDatabase, int]]:
        """Those that can begin, the longest due of its class first."""
        with self._condition:
            while (when := self._next_s()) is not None and when <= now_s:
                *_, due = heapq.heappop(self._clock)
                self._ripe.setdefault(size_class(_size_of(due.tracked)), deque()).append(due)
            stalled = [place for place in self._places if place.is_stalled(now_s)][:STALLED_MAX]
            taken = Counter(place.size_class for place in self._places if place not in stalled)
            under_way = {place.row_id for place in self._places}
            chosen: list[tuple[FollowedDatabase, int]] = []
            for its_class, ripe in sorted(self._ripe.items()):
                places_max = SMALL_PLACES_MAX if its_class == 0 else 1
                while taken[its_class] < places_max and (first := self._first(ripe, under_way)) is not None:
                    taken[its_class] += 1
                    under_way.add(first.row_id)
                    chosen.append((first, its_class))
            return chosen

    def _first(self, ripe: deque[_Due], under_way: Set[int]) -> FollowedDatabase | None:
        """Take the first one that is not under way already."""
        passed: list[_Due] = []
        found = None
        while ripe and found is None:
            due = ripe.popleft()
            if not self._is_wanted(due):
                continue
            if due.tracked.row_id in under_way:
                passed.append(due)
            else:
                found = due.tracked
                del self._due[found.row_id]
        ripe.extendleft(reversed(passed))
        return found

    def _is_wanted(self, due: _Due) -> bool:
        return self._due.get(due.tracked.row_id) is due

    def _next_s(self) -> float | None:
        """The first moment at which a base is wanted."""
        while self._clock and not self._is_wanted(self._clock[0][2]):
            heapq.heappop(self._clock)
        return self._clock[0][0] if self._clock else None

    def _go_on(self, now_s: float) -> bool:
        """One step of each base that waits for nothing; whether there was one."""
        able = [place for place in self._places if not place.hold.holds(now_s)]
        for place in sorted(able, key=lambda place: place.size_class):
            if self._is_stopping:
                break
            try:
                place.hold, place.since_s = next(place.steps), now_s
            except StopIteration:
                self._places.remove(place)
                continue
            if place.hold.answer is not None:
                place.hold.answer.add_done_callback(lambda _answer: self._answered())
        return bool(able)

    def _sleep(self) -> None:
        """Until an answer, a wish, or the first moment that something waits for."""
        with self._condition:
            now_s = time.monotonic()
            first_s = self._next_s()
            moments = [first_s] if first_s is not None else []
            moments += [place.hold.until_s for place in self._places if place.hold.until_s < math.inf]
            if any(self._ripe.values()):  # somebody waits for a place
                stalls = [place.since_s + STALLED_S for place in self._places]
                moments += [moment for moment in stalls if moment > now_s]
            left_s = max(0.0, min(moments) - now_s) if moments else None
            self._condition.wait_for(lambda: self._is_woken or self._is_stopping, left_s)

    def _answered(self) -> None:
        with self._condition:
            self._wake()

    def _wake(self) -> None:
        self._is_woken = True
        self._condition.notify()


def _size_of(tracked: FollowedDatabase) -> int:
    """The file's size in bytes; 0 if it can't be seen, which its copy tells."""
    try:
        return tracked.path.lstat().st_size
    except OSError:
        return 0
