"""Schedules base copies: one thread interleaves the copies of several databases.

A base that is due begins as soon as no other base of its size class is under way (``base_schedule``). So a small
database never waits for a large one, and few bases are under way however many are due. Bases of the smallest class are
one request each. ``SMALL_PLACES_MAX`` of them are under way together, or up to ``TINY_PLACES_MAX`` if their files are
so small that all together take no more memory. Each copy advances by one step, a range of its file or an answer of the
store. Then the next copy that waits for nothing has its turn, small ones first. A copy that makes no progress for
``base_stalled_s``, for example because the store refuses its folder, no longer delays its class.

The memory holds one part that is being filled for each base under way, and ``FLIGHTS_MAX`` parts in flight, or one for
each base if there are more bases than that.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Set
from dataclasses import dataclass

from walsyncd.core.keep.base_schedule import size_class
from walsyncd.core.limits import DEFAULT_LIMITS, Limits
from walsyncd.engine.base.base_copy import CopyWait, Steps
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.threads.alarm import Alarm
from walsyncd.engine.threads.due_queue import DueQueue
from walsyncd.errors import UnresponsiveError
from walsyncd.file_calls import FILE_CALLS, FileCall, RevocableLock

SMALL_PLACES_MAX = 8  # bases of one request each, whose requests are under way together
TINY_PLACES_MAX = 24  # such bases whose files take no more memory than the largest ``SMALL_PLACES_MAX`` would
CALM_S = 0.005  # with more than ``SMALL_PLACES_MAX`` under way, answers within this time are taken together
FLIGHTS_MAX = 2  # one part is sent while the next one is begun
STALLED_MAX = 8  # each stalled base may hold a part in memory


@dataclass(slots=True, eq=False)
class _Place:
    """A base under way, what it waits for, and since when (monotonic, seconds)."""

    row_id: int
    size_class: int
    size: int
    steps: Steps[None]
    hold: CopyWait
    since_s: float

    def is_stalled(self, now_s: float, stalled_s: float) -> bool:
        return now_s >= self.since_s + stalled_s and self.hold.holds(now_s)


class CopyQueue:
    """Any thread may request bases, and one thread runs them. ``take`` returns the steps of a database's next base."""

    def __init__(self, take: Callable[[FollowedDatabase], Steps[None]], limits: Limits = DEFAULT_LIMITS) -> None:
        self._take = take
        self._limits = limits
        self._alarm = Alarm()
        self._lock = RevocableLock()  # files are looked at while this lock is held
        self._due: DueQueue[int] = DueQueue()  # ids of databases that were not due yet when last checked
        self._ripe: dict[int, dict[int, float]] = {}  # for each size class, the databases that are due, and since when
        self._wanted: dict[int, FollowedDatabase] = {}
        self._sizes: dict[int, int] = {}  # the file sizes of databases that are due, in bytes
        self._places: list[_Place] = []  # used by the running thread alone
        self._current: _Place | None = None

    @property
    def is_stopping(self) -> bool:
        """Whether the thread is to end and leave everything for the next run."""
        return self._alarm.is_stopped

    def in_flight_max(self) -> int:
        """Return how many parts of one base may be in flight now."""
        return max(1, FLIGHTS_MAX // max(1, len(self._places)))

    def due(self, tracked: FollowedDatabase, delay_s: float, *, may_hasten: bool = True, anew: bool = False) -> None:
        """Request a base in ``delay_s`` seconds; an earlier request stays if it is sooner.

        Without ``may_hasten`` an earlier request is not moved forward. With ``anew`` an earlier request is void. A
        request for a database that is no longer followed does not count, because its id may be followed again.
        """
        if tracked.mailbox.dismissed:
            return
        when = time.monotonic() + delay_s
        with self._lock:
            before = self._wanted.get(tracked.row_id)
            is_void = anew or before is None or before.mailbox.dismissed
            known = None if is_void else self._known_s(tracked.row_id)
            if known is None or (when < known and may_hasten):
                self._drop(tracked.row_id)
                self._wanted[tracked.row_id] = tracked
                self._due.put(tracked.row_id, when)
                self._alarm.wake()

    def is_due(self, tracked: FollowedDatabase) -> bool:
        """Whether a base of this database is due or under way."""
        with self._lock:
            known = self._known_s(tracked.row_id)
            is_ripe = known is not None and known <= time.monotonic()
            return is_ripe or any(place.row_id == tracked.row_id for place in list(self._places))

    def forget(self, tracked: FollowedDatabase) -> None:
        """Cancel the request for a base. A copy that is under way notices by itself that it is no longer wanted."""
        with self._lock:
            self._drop(tracked.row_id)

    def run(self) -> None:
        """Run the thread until ``stop``, which leaves the copies under way where they are."""
        if self._current is not None:  # the thread before this one hangs in that step
            self._places.remove(self._current)
            self._current = None
        try:
            wait_s: float | None = 0.0
            while self._alarm.wait(wait_s, calm_s=CALM_S if len(self._places) > SMALL_PLACES_MAX else 0.0):
                now_s = time.monotonic()
                for each, its_class, size in self._chosen(now_s):
                    self._places.append(_Place(each.row_id, its_class, size, self._take(each), CopyWait(), now_s))
                wait_s = 0.0 if self._go_on(time.monotonic()) else self._idle_s()
        finally:
            if not FILE_CALLS.is_abandoned():
                for place in self._places:
                    place.steps.close()

    def stop(self) -> None:
        """End the thread."""
        self._alarm.stop()

    def _chosen(self, now_s: float) -> list[tuple[FollowedDatabase, int, int]]:
        """Return the databases whose bases can begin, the longest due of each class first, with class and file size."""
        with self._lock:
            while (when := self._due.first()) is not None and (row_id := self._due.pop(now_s)) is not None:
                self._ripe.setdefault(self._class_of(self._wanted[row_id]), {})[row_id] = when
            stalled = [place for place in self._places if place.is_stalled(now_s, self._limits.base_stalled_s)][
                :STALLED_MAX
            ]
            taken = Counter(place.size_class for place in self._places if place not in stalled)
            under_way = {place.row_id for place in self._places}
            small_bytes = sum(place.size for place in self._places if place.size_class == 0)
            chosen: list[tuple[FollowedDatabase, int, int]] = []
            for its_class, ripe in sorted(self._ripe.items()):
                while self._has_place(its_class, taken[its_class], small_bytes):
                    if (first := self._first(ripe, under_way)) is None:
                        break
                    taken[its_class] += 1
                    under_way.add(first[0].row_id)
                    small_bytes += first[1] if its_class == 0 else 0
                    chosen.append((first[0], its_class, first[1]))
            return chosen

    def _has_place(self, its_class: int, taken: int, small_bytes: int) -> bool:
        """Whether one more base of a class can begin. ``small_bytes`` is the size of the files of small bases."""
        if its_class:
            return taken == 0
        is_tiny = small_bytes <= (SMALL_PLACES_MAX - 1) * self._limits.small_base_bytes
        return taken < (TINY_PLACES_MAX if is_tiny else SMALL_PLACES_MAX)

    def _class_of(self, tracked: FollowedDatabase) -> int:
        size = self._sizes[tracked.row_id] = _size_of(tracked)
        return size_class(size, small_size=self._limits.small_base_bytes)

    def _first(self, ripe: dict[int, float], under_way: Set[int]) -> tuple[FollowedDatabase, int] | None:
        """Take the first database whose base is not under way yet, with the size of its file."""
        row_id = next((row_id for row_id in ripe if row_id not in under_way), None)
        if row_id is None:
            return None
        del ripe[row_id]
        return self._wanted.pop(row_id), self._sizes.pop(row_id)

    def _known_s(self, row_id: int) -> float | None:
        """Return when a base of this database is due (monotonic, seconds), or None if none is requested."""
        ripe = (moments[row_id] for moments in self._ripe.values() if row_id in moments)
        return next(ripe, self._due.get(row_id))

    def _drop(self, row_id: int) -> None:
        self._wanted.pop(row_id, None)
        self._sizes.pop(row_id, None)
        self._due.discard(row_id)
        for moments in self._ripe.values():
            moments.pop(row_id, None)

    def _go_on(self, now_s: float) -> bool:
        """Advance each base that waits for nothing by one step. Returns whether there was such a base."""
        able = [place for place in self._places if not place.hold.holds(now_s)]
        for place in sorted(able, key=lambda place: place.size_class):
            if self._alarm.is_stopped:
                break
            self._current = place
            try:
                place.hold, place.since_s = next(place.steps), now_s
            except StopIteration:
                self._places.remove(place)
                continue
            finally:
                if not FILE_CALLS.is_abandoned():
                    self._current = None
            if place.hold.answer is not None:
                place.hold.answer.add_done_callback(lambda _answer: self._alarm.wake())
        return bool(able)

    def _idle_s(self) -> float | None:
        """Return the seconds until something is due, or None if nothing waits for a moment."""
        with self._lock:
            now_s = time.monotonic()
            first_s = self._due.first()
            moments = [first_s] if first_s is not None else []
            moments += [place.hold.until_s for place in self._places if place.hold.until_s < math.inf]
            if any(self._ripe.values()):  # a database waits for its class
                stalls = [place.since_s + self._limits.base_stalled_s for place in self._places]
                moments += [moment for moment in stalls if moment > now_s]
            return max(0.0, min(moments) - now_s) if moments else None


def _size_of(tracked: FollowedDatabase) -> int:
    """Return the file's size in bytes. Returns 0 if it can't be read; the copy then reports why."""
    try:
        with FileCall(tracked.path, "look at"):
            return tracked.path.lstat().st_size
    except (OSError, UnresponsiveError):
        return 0
