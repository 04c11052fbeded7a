"""Which times of a generation can't be trusted, because a clock was ahead when they were taken.

Two facts show that a clock was ahead:

1. A commit is seen before it is stored. So an object has a time that is too late if its last commit was seen more than
   ``CLOCK_OFF_MS`` after the store took the object: the clock beside the application was ahead of the store's clock.
2. Times never decrease within an epoch. They decrease from one epoch to the next only where the daemon learnt that its
   clock had been ahead. So an object is doubtful if its time is after the time of a later epoch.

The rules that follow:

- If the daemon did not learn that its clock had been ahead, the commits after a wrong time carry the same time until
  the clock reaches it. The first fact finds all of these objects.
- Doubtful objects that follow one another make a span, from the time of the object before them to the time of the
  object after them. Both of these times can be trusted. For a moment inside the span, nobody knows which commit was the
  newest one.
- A span at the end of a generation has no end: the next commit may have any time.

These rules do not find a clock that was behind, because an object that was stored late looks the same. Where a bucket
was copied, the store's times are the times of the copy. Then only the second fact helps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from walsyncd.core.stored.layout import TIME_MS_MAX
from walsyncd.core.stored.moment import CLOCK_OFF_MS, format_moment, format_span


@dataclass(frozen=True, slots=True)
class TimedObject:
    """An object of frames: where the object ends, the time of its last commit, and when the store took the object."""

    place: tuple[int, int]
    time_ms: int
    stored_ms: int

    @property
    def ahead_ms(self) -> int:
        """By how much the clock was ahead at least. The value is 0 or less if the clock may have been right."""
        return self.time_ms - self.stored_ms if self.stored_ms else 0


@dataclass(frozen=True, slots=True)
class DoubtfulSpan:
    """Moments after ``first_ms`` and before ``last_ms`` that can't be asked for.

    ``first_ms`` is None if no time before the span can be trusted. ``last_ms`` is None if the span has no end.
    ``ahead_ms`` is how far the clock was ahead at least. ``end`` is the last doubtful object.
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
        """Whether a moment is inside the span."""
        is_after = self.first_ms is None or time_ms > self.first_ms
        return is_after and (self.last_ms is None or time_ms < self.last_ms)

    def ends_before(self, place: tuple[int, int], time_ms: int) -> bool:
        """Whether a commit of the object after the span can be trusted, although the moment is inside the span.

        ``place`` and ``time_ms`` are the commit's. A commit that carries the time of the last doubtful object can't be
        trusted, because it may have been seen while the clock was ahead.
        """
        return place > self.end.place and time_ms != self.end.time_ms


def doubtful_spans(objects: Iterable[TimedObject]) -> list[DoubtfulSpan]:
    """Return the doubtful spans of one generation in order. The objects may come in any order."""
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
    """Return by how much the clock was ahead at least for each object, or 0 if the clock may have been right."""
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
