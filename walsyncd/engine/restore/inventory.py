"""What a replica holds, for people: generations, why each began, what each covers, how much it takes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from walsyncd.core.restore.coverage import Coverage, End, FramesKey, GenerationListing, cover, listing_of
from walsyncd.core.restore.plan import Point
from walsyncd.core.stored.layout import ManifestKey
from walsyncd.core.stored.manifest import Manifest
from walsyncd.core.stored.position import Position
from walsyncd.engine.restore.commit_times import commits_of
from walsyncd.engine.restore.replay import READERS
from walsyncd.engine.restore.replica import Replica, Stored


@dataclass(frozen=True, slots=True)
class BaseSurvey:
    """A finished base: from which point on it is consistent, and the size of its object in bytes."""

    point: Point
    size: int


@dataclass(frozen=True, slots=True)
class SpanSurvey:
    """A piece of a generation without a hole: every commit from ``first`` to ``last`` can be restored."""

    first: Point
    last: Point


@dataclass(frozen=True, slots=True)
class GenerationSurvey:
    """A generation: ``first`` and ``last`` are the points between which it can be restored, if it can.

    ``spans`` are those in which it really can; more than one where something is missing or was pruned. ``commits``
    is their number, None if they were not counted.

    ``reason`` says why it began, as far as a base says it; ``fault`` why what is stored after ``last`` can't
    be used. ``size`` in bytes, of ``objects`` objects.
    """

    generation: str
    reason: str
    predecessor: str
    bases: tuple[BaseSurvey, ...]
    first: Point | None
    last: Point | None
    spans: tuple[SpanSurvey, ...]
    commits: int | None
    fault: str
    objects: int
    size: int


def inventory(replica: Replica, *, count_commits: bool = False) -> list[GenerationSurvey]:
    """All generations, oldest first. CorruptError if the manifest that tells a reason is damaged.

    Commits are in the objects, not in their names: counting them reads the end of each segment, and all of each whole.
    """
    return [_inventory_of(replica, generation, count_commits) for generation in replica.generations()]


def _inventory_of(replica: Replica, generation: str, count_commits: bool) -> GenerationSurvey:
    stored = list(replica.objects(generation))
    (part,) = listing_of((each.key for each in stored), [generation]).generations
    coverages = [cover(part, base) for base in part.finished]
    usable = [coverage for coverage in coverages if coverage.is_usable]
    manifest = replica.manifest(part.finished[0]) if part.finished else None
    return GenerationSurvey(
        generation=generation,
        reason=_reason(manifest),
        predecessor=manifest.predecessor if manifest else "",
        bases=_bases(part, stored),
        first=_point(usable[0].base) if usable else None,
        last=_last(usable[-1]) if usable else None,
        spans=_joined(usable),
        commits=_count_commits(replica, usable) if count_commits else None,
        fault=_fault(coverages),
        objects=len(stored),
        size=sum(each.size for each in stored),
    )


def spans_of(part: GenerationListing) -> tuple[SpanSurvey, ...]:
    """What can be restored of a generation, as far as names tell; ascending."""
    coverages = [cover(part, base) for base in part.finished]
    return _joined([coverage for coverage in coverages if coverage.is_usable])


def _joined(usable: list[Coverage]) -> tuple[SpanSurvey, ...]:
    """Coverages, of ascending bases, put together where one reaches the base of the next."""
    spans: list[SpanSurvey] = []
    for coverage in usable:
        first, last = _point(coverage.base), _last(coverage)
        if spans and first.position <= spans[-1].last.position:
            first, last = spans[-1].first, max(spans[-1].last, last, key=lambda point: point.position)
            spans.pop()
        spans.append(SpanSurvey(first, last))
    return tuple(spans)


def _count_commits(replica: Replica, usable: list[Coverage]) -> int:
    """Different ones, whatever objects overlap."""
    keys = {key for coverage in usable for key in coverage.objects}

    def places(key: FramesKey) -> set[tuple[int, int]]:
        return {(key.epoch, commit.frame) for commit in commits_of(replica, key)}

    with ThreadPoolExecutor(READERS) as pool:
        found: set[tuple[int, int]] = set()
        return len(found.union(*pool.map(places, keys)))


def _reason(manifest: Manifest | None) -> str:
    if manifest is None:
        return ""
    return manifest.predecessor_end or "the first one"


def _bases(part: GenerationListing, stored: list[Stored]) -> tuple[BaseSurvey, ...]:
    sizes = {each.key: each.size for each in stored}
    return tuple(BaseSurvey(_point(base), sizes[base.base]) for base in part.finished)


def _fault(coverages: list[Coverage]) -> str:
    if not coverages:
        return "no finished base"
    return "" if coverages[-1].end is End.COMPLETE else coverages[-1].detail


def _point(base: ManifestKey) -> Point:
    return Point(Position(base.generation, base.epoch, base.frame), base.time_ms)


def _last(coverage: Coverage) -> Point:
    times = [key.time_ms for key in coverage.objects]
    place = max(coverage.last, (coverage.base.epoch, coverage.base.frame))
    return Point(Position(coverage.base.generation, *place), max([coverage.base.time_ms, *times]))
