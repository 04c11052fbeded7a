"""Which times of a generation can't be trusted, because a clock was ahead when they were taken.

A commit is seen before it is stored. So an object whose last commit was seen long after the store took the object has a
time that is too late: the clock beside the application was ahead of the store's. Times of a database never decrease, so
the commits after it carry the same time until the clock reaches it. All of these objects are found by the rule.

1. An object is doubtful if its time is more than ``AHEAD_MS_MAX`` after the moment at which it was stored, by the
   store's clock. It says nothing about a clock that was behind: whatever was stored late looks like that.
2. Doubtful objects that follow one another make a span, from the time of the object before them to the time of the
   object after them. Both of these can be trusted. In between nobody knows which commit was the last one at a moment.
3. A span at the end of a generation has no end: the next commit may have any time.

Where a bucket was copied the moments at which objects were stored are those of the copy. Then no object is doubtful.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from walsyncd.core.stored.moment import format_moment, format_span

AHEAD_MS_MAX = 300_000  # as far as clocks may be apart without a word (``ship`` and ``upkeep`` use the same limit)


@dataclass(frozen=True, slots=True)
class TimedObject:
    """An object of frames: where it ends, the time of its last commit, and when the store took it."""

    place: tuple[int, int]
    time_ms: int
    stored_ms: int

    @property
    def ahead_ms(self) -> int:
        """How far its clock was ahead at least; 0 or less if it may have been right, or if nothing tells."""
        return self.time_ms - self.stored_ms if self.stored_ms else 0


@dataclass(frozen=True, slots=True)
class DoubtfulSpan:
    """Moments after ``first_ms`` and before ``last_ms`` (None: all later ones) that can't be asked for.

    ``ahead_ms`` is how far the clock was ahead at least. ``first_ms`` is None if nothing before can be trusted.
    """

    first_ms: int | None
    last_ms: int | None
    ahead_ms: int

    def __str__(self) -> str:
        first = "the beginning" if self.first_ms is None else format_moment(self.first_ms)
        until = "the next commit" if self.last_ms is None else format_moment(self.last_ms)
        ahead = format_span(self.ahead_ms)
        return f"times after {first} and before {until} can't be trusted: a clock was {ahead} ahead of the store's"

    def holds(self, time_ms: int) -> bool:
        """Whether a moment is among them."""
        is_after = self.first_ms is None or time_ms > self.first_ms
        return is_after and (self.last_ms is None or time_ms < self.last_ms)


def doubtful_spans(objects: Iterable[TimedObject]) -> list[DoubtfulSpan]:
    """The spans of one generation, in order, from objects in any order."""
    ordered = sorted(objects, key=lambda each: each.place)
    groups = [(doubtful, list(run)) for doubtful, run in groupby(ordered, lambda each: each.ahead_ms > AHEAD_MS_MAX)]
    spans = []
    for at, (is_doubtful, run) in enumerate(groups):
        if is_doubtful:
            first_ms = groups[at - 1][1][-1].time_ms if at else None
            last_ms = groups[at + 1][1][0].time_ms if at + 1 < len(groups) else None
            spans.append(DoubtfulSpan(first_ms, last_ms, max(each.ahead_ms for each in run)))
    return spans
