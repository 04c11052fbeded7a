"""Lists what a replica holds: its generations, why each generation began, what it covers, and how large it is."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from walsyncd.core.restore.bridge_points import StoredBridge, bridges_after
from walsyncd.core.restore.clock_doubt import DoubtfulSpan, doubtful_spans
from walsyncd.core.restore.coverage import Coverage, End, FramesKey, GenerationListing, cover, listing_of
from walsyncd.core.restore.plan import Point
from walsyncd.core.stored.layout import ManifestKey
from walsyncd.core.stored.manifest import Manifest
from walsyncd.core.stored.position import Position
from walsyncd.engine.restore.bridge_reader import read_bridges
from walsyncd.engine.restore.commit_times import commits_of
from walsyncd.engine.restore.replay import READERS
from walsyncd.engine.restore.replica import Replica, Stored
from walsyncd.errors import CorruptError


@dataclass(frozen=True, slots=True)
class BaseSurvey:
    """A finished base: the point from which on it is consistent, and the size of its object in bytes."""

    point: Point
    size: int


@dataclass(frozen=True, slots=True)
class SpanSurvey:
    """A piece of a generation without a hole: every commit from ``first`` to ``last`` can be restored.

    If a bridge follows ``last``, ``until_ms`` is the time up to which ``last`` was proven to be the newest.
    """

    first: Point
    last: Point
    until_ms: int | None = None

    @property
    def end_ms(self) -> int:
        """The last moment that can be restored."""
        return self.last.time_ms if self.until_ms is None else self.until_ms


@dataclass(frozen=True, slots=True)
class GenerationSurvey:
    """A generation. If it can be restored, ``first`` and ``last`` are the points between which it can be restored.

    ``spans`` are the parts between these points in which every commit can be restored. There are several spans if
    something is missing or was pruned (``holes``), or if a bridge replaces commits. ``commits`` is the number of
    commits, or None if they were not counted.

    ``doubtful`` are moments that can't be asked for, because a clock was ahead.

    ``reason`` is why the generation began, if a base says so. ``fault`` is why the objects after ``last`` can't be
    used, or which bridges can't be read. ``size`` is the number of bytes in all ``objects`` objects.
    """

    generation: str
    reason: str
    predecessor: str
    bases: tuple[BaseSurvey, ...]
    first: Point | None
    last: Point | None
    spans: tuple[SpanSurvey, ...]
    holes: int
    bridges: tuple[StoredBridge, ...]
    doubtful: tuple[DoubtfulSpan, ...]
    commits: int | None
    fault: str
    objects: int
    size: int


def inventory(replica: Replica, *, count_commits: bool = False) -> list[GenerationSurvey]:
    """Return all generations, oldest first.

    If the manifest that says why a generation began can't be read, that is a fault of the generation. Names don't say
    how many commits an object has, so counting commits reads the end of each segment and all of each whole.
    """
    return [_inventory_of(replica, generation, count_commits) for generation in replica.generations()]


def _inventory_of(replica: Replica, generation: str, count_commits: bool) -> GenerationSurvey:
    stored = list(replica.objects(generation))
    (part,) = listing_of((each.key for each in stored), [generation]).generations
    coverages = [cover(part, base) for base in part.finished]
    usable = [coverage for coverage in coverages if coverage.is_usable]
    spans = _joined(usable)
    bridges, problems = read_bridges(replica, bridges_after(part, Position(generation, 0, 0)))
    manifest, fault = _first_manifest(replica, part)
    return GenerationSurvey(
        generation=generation,
        reason=_reason(manifest),
        predecessor=manifest.predecessor if manifest else "",
        bases=_bases(part, stored),
        first=_point(usable[0].base) if usable else None,
        last=_last(usable[-1]) if usable else None,
        spans=_split(spans, bridges, usable),
        holes=max(0, len(spans) - 1),
        bridges=tuple(bridges),
        doubtful=tuple(doubtful_spans(replica.timed(part.frames))),
        commits=_count_commits(replica, usable) if count_commits else None,
        fault="; ".join(filter(None, [_fault(coverages), fault, *problems])),
        objects=len(stored),
        size=sum(each.size for each in stored),
    )


def _first_manifest(replica: Replica, part: GenerationListing) -> tuple[Manifest | None, str]:
    """Return the manifest that says why the generation began, or what is wrong with that manifest."""
    if not part.finished:
        return None, ""
    try:
        return replica.manifest(part.finished[0]), ""
    except CorruptError as error:
        return None, error.message


def spans_of(part: GenerationListing) -> tuple[SpanSurvey, ...]:
    """Return the spans of a generation that can be restored according to the objects' names, in ascending order."""
    coverages = [cover(part, base) for base in part.finished]
    return _joined([coverage for coverage in coverages if coverage.is_usable])


def _joined(usable: list[Coverage]) -> tuple[SpanSurvey, ...]:
    """Join the coverages of ascending bases where a coverage reaches the base of the next coverage."""
    spans: list[SpanSurvey] = []
    for coverage in usable:
        first, last = _point(coverage.base), _last(coverage)
        if spans and first.position <= spans[-1].last.position:
            first, last = spans[-1].first, max(spans[-1].last, last, key=lambda point: point.position)
            spans.pop()
        spans.append(SpanSurvey(first, last))
    return tuple(spans)


def _split(
    spans: tuple[SpanSurvey, ...], bridges: Sequence[StoredBridge], usable: list[Coverage]
) -> tuple[SpanSurvey, ...]:
    """Return the spans, cut at each bridge, since commits that a bridge replaces can't be restored one by one."""
    times = {(key.epoch, key.last): key.time_ms for coverage in usable for key in coverage.objects}
    times |= {(coverage.base.epoch, coverage.base.frame): coverage.base.time_ms for coverage in usable}
    found: list[SpanSurvey] = []
    for span in spans:
        rest = span
        for bridge in bridges:
            before, after = bridge.before, bridge.after
            is_inside = rest.first.position <= before and after.position <= rest.last.position
            if is_inside and bridge.is_gap:
                time_ms = times.get((before.epoch, before.frame), bridge.span.proven_ms)
                found.append(SpanSurvey(rest.first, Point(before, time_ms), bridge.span.proven_ms))
                rest = SpanSurvey(after, rest.last)
        found.append(rest)
    return tuple(found)


def _count_commits(replica: Replica, usable: list[Coverage]) -> int:
    """Count the commits. Each commit is counted once although objects overlap."""
    keys = {key for coverage in usable for key in coverage.objects}

    def places(key: FramesKey) -> set[tuple[int, int]]:
        return {(key.epoch, commit.frame) for commit in commits_of(replica, key).commits}

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
    ends = [((key.epoch, key.last), key.time_ms) for key in coverage.objects]
    place, time_ms = max([((coverage.base.epoch, coverage.base.frame), coverage.base.time_ms), *ends])
    return Point(Position(coverage.base.generation, *place), time_ms)
