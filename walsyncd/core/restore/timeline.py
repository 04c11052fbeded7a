"""Draws covered spans of time as one line of text, in which no gap is too short to be seen.

=====  ===============================================
``█``  all moments of this cell can be restored
``▒``  some moments can be restored
``·``  no moment can be restored
``|``  a base was finished at this time (in the line below)
=====  ===============================================
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

FULL, SOME, NONE, BASE = "█", "▒", "·", "|"


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Moments that can be restored, from the first to the last in milliseconds since 1970. Both are included."""

    first_ms: int
    last_ms: int


def merged(spans: Iterable[Span]) -> list[Span]:
    """Return the same moments in ascending spans that do not touch."""
    found: list[Span] = []
    for span in sorted(spans):
        if found and span.first_ms <= found[-1].last_ms:
            found[-1] = Span(found[-1].first_ms, max(found[-1].last_ms, span.last_ms))
        else:
            found.append(span)
    return found


def gaps(spans: Sequence[Span]) -> list[Span]:
    """Return what lies between merged spans, without the ends of the spans."""
    return [Span(one.last_ms, other.first_ms) for one, other in pairwise(spans)]


def picture(spans: Sequence[Span], bases_ms: Iterable[int], width: int) -> tuple[str, str]:
    """Return a line for merged spans, from the first moment to the last, and a line with the bases below it."""
    if not spans:
        return NONE * width, ""
    start, length = spans[0].first_ms, max(1, spans[-1].last_ms - spans[0].first_ms)

    def cell(time_ms: int) -> int:
        return min(width - 1, (time_ms - start) * width // length)

    line = [NONE] * width
    for span in spans:
        for column in range(cell(span.first_ms), cell(span.last_ms) + 1):
            line[column] = FULL
    for gap in gaps(spans):
        for column in {cell(gap.first_ms), cell(gap.last_ms)}:
            line[column] = SOME
    marks = {cell(time_ms) for time_ms in bases_ms if start <= time_ms <= start + length}
    return "".join(line), "".join(BASE if column in marks else " " for column in range(width)).rstrip()
