"""Reports what damage costs: which commits of a generation can still be restored, and which are lost.

The commits that the sound objects cover are good. The generation once reached from its first base to the last frame
that any stored object mentions. Commits in that range that are not good are lost, except those that retention stated as
removed: they were given up on purpose.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from walsyncd.core.restore.coverage import GenerationListing
from walsyncd.core.restore.plan import Point
from walsyncd.core.stored.layout import Key
from walsyncd.core.stored.moment import format_moment
from walsyncd.core.stored.position import Position
from walsyncd.engine.restore.inventory import SpanSurvey, spans_of


@dataclass(frozen=True, slots=True)
class DamageReport:
    """The damage of one generation.

    Every commit within a span of ``good`` can be restored. In a span of ``lost``, the commits after the span's first
    point can't be restored. If the first lost span begins with the first base, its first point is lost, too.
    """

    generation: str
    good: tuple[SpanSurvey, ...]
    lost: tuple[SpanSurvey, ...]

    def lines(self) -> list[str]:
        """Return the report as lines for people."""
        lost = [f"lost: what came after {span.first} up to {span.last}" for span in self.lost]
        good = [f"still good: {span.first} to {span.last}" for span in self.good]
        return lost + good or [f"generation {self.generation}: nothing of it can be restored"]

    def as_json(self) -> dict[str, object]:
        """Return the report as values for JSON."""
        return {"generation": self.generation, "good": _json(self.good), "lost": _json(self.lost)}


def damage_report(part: GenerationListing, damaged: Collection[Key]) -> DamageReport:
    """Return what can be restored of a generation without its damaged objects, and what is lost."""
    sound = replace(
        part,
        bases=tuple(key for key in part.bases if key not in damaged),
        manifests=tuple(key for key in part.manifests if key not in damaged),
        frames=tuple(key for key in part.frames if key not in damaged),
    )
    good = spans_of(sound)
    return DamageReport(part.generation, good, tuple(_lost(part, good)) if part.manifests else ())


def _lost(part: GenerationListing, good: tuple[SpanSurvey, ...]) -> Iterator[SpanSurvey]:
    """Yield the gaps before, between and after the good spans."""
    bases = [_point(part, base.epoch, base.frame, base.time_ms) for base in part.manifests]
    ends = bases + [_point(part, key.epoch, key.last, key.time_ms) for key in part.frames]
    reached = min(bases, key=_place)
    for span in good:
        if reached.position < span.first.position and not _is_stated(part, reached):
            yield SpanSurvey(reached, span.first)
        reached = max(reached, span.last, key=_place)
    end = max(ends, key=_place)
    if reached.position < end.position:
        yield SpanSurvey(reached, end)


def _is_stated(part: GenerationListing, reached: Point) -> bool:
    """Whether retention removed the epoch after ``reached``."""
    epoch = reached.position.epoch + 1
    return part.is_pruned(epoch, epoch)


def _point(part: GenerationListing, epoch: int, frame: int, time_ms: int) -> Point:
    return Point(Position(part.generation, epoch, frame), time_ms)


def _place(point: Point) -> Position:
    return point.position


def _json(spans: tuple[SpanSurvey, ...]) -> list[dict[str, str]]:
    return [
        {
            "first": str(span.first.position),
            "first_time": format_moment(span.first.time_ms),
            "last": str(span.last.position),
            "last_time": format_moment(span.last.time_ms),
        }
        for span in spans
    ]
