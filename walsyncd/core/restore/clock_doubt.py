"""Which times of a generation can't be trusted, because a clock was ahead when they were taken.

Two facts tell of it:

1. A commit is seen before it is stored. So an object whose last commit was seen more than ``CLOCK_OFF_MS`` after the
   store took the object has a time that is too late: the clock beside the application was ahead of the store's.
2. Times never decrease within an epoch. They decrease from one epoch to the next only where the daemon learnt that its
   clock had been ahead. So an object is doubtful if its time is after that of a later epoch.

The rules that follow:

- Where a clock was not corrected, the commits after it carry the same time until the clock reaches it. All of these
  objects are found by the first fact.
- Doubtful objects that follow one another make a span, from the time of the object before them to the time of the
  object after them. Both of these can be trusted. In between nobody knows which commit was the last one at a moment.
- A span at the end of a generation has no end: the next commit may have any time.

Nothing is said about a clock that was behind: whatever was stored late looks like that. Where a bucket was copied the
moments at which objects were stored are those of the copy. Then only the second fact tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from walsyncd.core.stored.layout import TIME_MS_MAX
from walsyncd.core.stored.moment import CLOCK_OFF_MS, format_moment, format_span


@dataclass(frozen=True, slots=True)
class TimedObject:
    """An object of frames: where it ends, the time of its last commit, and when the store took it."""

    place: tuple[int, int]
    time_ms: int
    stored_ms: int

    @property
    def ahead_ms(self) -> int:
        """By how much its clock was ahead at least. It is 0 or less if the clock may have been right."""
        return self.time_ms - self.stored_ms if self.stored_ms else 0


@dataclass(frozen=True, slots=True)
class DoubtfulSpan:
    """Moments after ``first_ms`` and before ``last_ms`` (None: all later ones) that can't be asked for.

    ``ahead_ms`` is how far the clock was ahead at least. ``first_ms`` is None if nothing before can be trusted.
    ``end`` is the last object that is doubtful.
    """

    first_ms: int | None
    last_ms: int | None
    ahead_ms: int
    end: TimedObject

    def __str__(self) -> str:
        first = "the beginning" if self.first_ms is None else format_moment(self.first_ms)
        until = "the next commit" if self.last_ms is None else format_moment(self.last_ms)
        ahead = format_span(self.ahead_ms)
        return f"times after {first} and before {until} can't be trusted: a clock was {ahead} ahead of the store's"

    def holds(self, time_ms: int) -> bool:
        """Whether a moment is among them."""
        is_after = self.first_ms is None or time_ms > self.first_ms
        return is_after and (self.last_ms is None or time_ms < self.last_ms)

    def ends_before(self, place: tuple[int, int], time_ms: int) -> bool:
        """Whether a commit of the object after the span has a time of its own, although the object's last is later.

        A commit that carries the time of the last doubtful one may have been seen while the clock was ahead.
        """
        return place > self.end.place and time_ms != self.end.time_ms


def doubtful_spans(objects: Iterable[TimedObject]) -> list[DoubtfulSpan]:
    """The spans of one generation, in order, from objects in any order."""
    ordered = sorted(objects, key=lambda each: (each.place, each.time_ms))
    ahead = _ahead_ms(ordered)
    groups = [(doubtful, list(run)) for doubtful, run in groupby(range(len(ordered)), lambda at: ahead[at] > 0)]
    spans = []
    for at, (is_doubtful, run) in enumerate(groups):
        if is_doubtful:
            first_ms = ordered[groups[at - 1][1][-1]].time_ms if at else None
            last_ms = ordered[groups[at + 1][1][0]].time_ms if at + 1 < len(groups) else None
            spans.append(DoubtfulSpan(first_ms, last_ms, max(ahead[each] for each in run), ordered[run[-1]]))
    return spans


def _ahead_ms(ordered: Sequence[TimedObject]) -> list[int]:
    """Return, for each object, by how much its clock was ahead at least: 0 if it may have been right."""
    found = [0] * len(ordered)
    later_ms = TIME_MS_MAX + 1  # the earliest trusted time of the objects that follow
    has_fallen = False  # a wrong clock's time may also be after ``later_ms`` by less than ``CLOCK_OFF_MS``
    for at in reversed(range(len(ordered))):
        each = ordered[at]
        has_fallen = each.time_ms > later_ms + (0 if has_fallen else CLOCK_OFF_MS)
        if has_fallen:
            found[at] = max(each.time_ms - later_ms, each.ahead_ms)
            continue
        later_ms = min(later_ms, each.time_ms)
        found[at] = each.ahead_ms if each.ahead_ms > CLOCK_OFF_MS else 0
    return found
