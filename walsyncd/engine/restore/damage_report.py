"""Reports what damage costs: which commits of a generation can still be restored, and which are lost.

What is good is what the sound objects cover. What was there reaches from the first base to the last frame that anything
stored mentions. The rest between them is lost, except what retention stated: that was given up on purpose.
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

    Every commit within ``good`` can be restored. Of a span of ``lost``, the commits after its first point can't.

    The first lost span may begin with its first point, if that is where the first base lay.
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
    """Return what is left of a generation without its damaged objects."""
    sound = replace(
        part,
        bases=tuple(key for key in part.bases if key not in damaged),
        manifests=tuple(key for key in part.manifests if key not in damaged),
        frames=tuple(key for key in part.frames if key not in damaged),
    )
    good = spans_of(sound)
    return DamageReport(part.generation, good, tuple(_lost(part, good)) if part.manifests else ())


def _lost(part: GenerationListing, good: tuple[SpanSurvey, ...]) -> Iterator[SpanSurvey]:
    """Return the gaps before, between and after what is good."""
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
    """Whether retention removed what came next."""
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
