"""The plan of a restore: which base, which objects in which order, and up to which position; or why there is none.

``make_plan`` takes a listing of the replica and returns a ``Plan`` or a ``Refusal``. There are three targets:

============  ==========================================================================================
``Head``      the end of the newest generation that has a finished base
``AtTime``    the last commit at or before a moment; it is covered if a commit or a base at or after it is stored
``AtPosition``  exactly the commit at a position
============  ==========================================================================================

1. The base is the newest one whose N (``consistent_from``) is not after the target.
2. From the base's epoch on, ``coverage`` decides which frames are covered. The plan ends with the object that holds the
   target.
3. A target that is not covered is refused. The refusal has the nearest positions before and after the target. With
   ``allow_partial`` the nearest position before the target is restored instead. The refusal's reason is the first
   reason for which a coverage ends.
4. Nothing can be restored from a generation without a finished base. The head is then the head of the generation before
   it, and a note of the plan says how much is missing.

A listing shows where objects end, but not each commit in them. If the target is inside the last object, the reader of
that object cuts it there: its trailer has the commits and their times.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from walsyncd.core.restore.coverage import (
    Coverage,
    End,
    EpochPlan,
    FramesKey,
    GenerationListing,
    Listing,
    base_order,
    cover,
)
from walsyncd.core.stored.layout import ManifestKey, format_key
from walsyncd.core.stored.moment import format_moment, format_span
from walsyncd.core.stored.position import Position, generation_time


@dataclass(frozen=True, slots=True)
class Head:
    """The newest position."""

    def __str__(self) -> str:
        return "the head"


@dataclass(frozen=True, slots=True)
class AtTime:
    """The last commit seen at or before ``time_ms`` (since 1970)."""

    time_ms: int

    def __str__(self) -> str:
        return format_moment(self.time_ms)


@dataclass(frozen=True, slots=True)
class AtPosition:
    """The commit at ``position``."""

    position: Position

    def __str__(self) -> str:
        return f"position {self.position}"


Target = Head | AtTime | AtPosition


@dataclass(frozen=True, slots=True)
class Point:
    """A position that can be restored, and when its commit was seen."""

    position: Position
    time_ms: int

    def __str__(self) -> str:
        return f"{self.position} ({format_moment(self.time_ms)})"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a restore applies.

    ``reached`` is the end of the last object. For ``AtTime`` it is the end of the last object that is wholly before the
    moment. If ``epochs`` has a later object, that object is cut when it is read. ``shortfall`` says why less than the
    target is reached, which is only possible with ``allow_partial``. ``notes`` are for the operator.
    """

    target: Target
    base: ManifestKey
    epochs: tuple[EpochPlan, ...]
    reached: Point
    shortfall: str = ""
    notes: tuple[str, ...] = ()

    @property
    def generation(self) -> str:
        """The generation that is restored."""
        return self.base.generation

    @property
    def objects(self) -> list[FramesKey]:
        """The objects to read after the base, in order."""
        return [key for epoch in self.epochs for key in epoch.objects]


class Reason(Enum):
    """The kind of a refusal."""

    EMPTY = "nothing to restore"
    UNREACHABLE = "the target is not covered"
    PRUNED = "retention removed it"
    HOLE = "something is missing"
    FORK = "two histories"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no plan. ``before`` and ``after`` are the nearest points that can be restored."""

    reason: Reason
    message: str
    before: Point | None = None
    after: Point | None = None


_REASONS = {
    End.COMPLETE: Reason.UNREACHABLE,
    End.PRUNED: Reason.PRUNED,
    End.HOLE: Reason.HOLE,
    End.FORK: Reason.FORK,
}


def make_plan(
    listing: Listing, target: Target, *, generation: str | None = None, allow_partial: bool = False
) -> Plan | Refusal:
    """Return how to restore ``target``. If ``generation`` is given, only that generation is used."""
    offered = tuple(part for part in listing.generations if generation in (None, part.generation))
    if listing.generations and not offered:
        known = ", ".join(part.generation for part in listing.generations)
        return Refusal(Reason.UNREACHABLE, f"there is no generation {generation}, but {known}")
    finished = [part for part in offered if part.finished]
    if not finished:
        return _without_base(offered)
    coverages = [cover(part, base) for part in finished for base in part.finished]
    match target:
        case Head():
            plan = _plan_head(coverages, finished[-1].generation)
        case AtTime():
            plan = _plan_time(coverages, target)
        case AtPosition():
            plan = _plan_position(coverages, target)
    if isinstance(plan, Refusal) and allow_partial and plan.before is not None:
        shorter = _plan_position(coverages, AtPosition(plan.before.position))
        plan = replace(shorter, target=target, shortfall=plan.message) if isinstance(shorter, Plan) else plan
    if isinstance(plan, Plan):
        return replace(plan, notes=tuple(_notes(offered, plan)))
    return plan


def _without_base(offered: Sequence[GenerationListing]) -> Refusal:
    """Return the refusal for no usable base: either no base was ever finished, or the object of a base is missing."""
    lost = [manifest.base for part in offered for manifest in part.manifests]
    if lost:
        return Refusal(Reason.HOLE, f"base {format_key(lost[-1])} is missing, though its manifest is stored")
    names = ", ".join(part.generation for part in offered)
    return Refusal(
        Reason.EMPTY, f"no generation has a finished base yet ({names})" if names else "the replica is empty"
    )


def _plan_head(coverages: list[Coverage], newest: str) -> Plan | Refusal:
    own = [coverage for coverage in coverages if coverage.base.generation == newest]
    last = own[-1]  # bases come in order of N
    if last.is_usable and last.end is End.COMPLETE:
        return _plan(Head(), last, last.epochs)
    points = [point for point in _points(coverages) if point.position.generation <= newest]
    reached = [point for point in points if point.position <= Position(newest, *last.last)]
    message = f"the head of generation {newest} is not restorable: {last.detail}"
    return Refusal(_REASONS[last.end], message, before=reached[-1] if reached else None)


def _plan_time(coverages: list[Coverage], target: AtTime) -> Plan | Refusal:
    moment = target.time_ms
    # The coverages are in the order of generation and N. Their times ascend too, unless a clock was wrong.
    chosen = next((coverage for coverage in reversed(coverages) if _begins_by(coverage, moment)), None)
    if chosen and chosen.is_usable and _is_proven_by_later_objects(chosen, coverages, moment):
        return _plan(target, chosen, _cut_at_time(chosen, moment))
    before, after = _around_time(_points(coverages), moment)
    if chosen is None:
        return Refusal(Reason.UNREACHABLE, f"{target} is before the first position", None, after)
    why = chosen.detail or f"nothing is stored from then on in generation {chosen.base.generation}"
    return Refusal(_REASONS[chosen.end], f"{target} is not covered: {why}", before, after)


def _begins_by(coverage: Coverage, moment: int) -> bool:
    """Whether the base was consistent at ``moment``.

    The base's time may be too late, because a clock was ahead and was corrected afterwards. Then an object after the
    base with a time of at most ``moment`` shows that the base was consistent.
    """
    if coverage.base.time_ms <= moment:
        return True
    place = _place(coverage.base)
    return any(key.time_ms <= moment and (key.epoch, key.last) > place for key in coverage.objects)


def _place(base: ManifestKey) -> tuple[int, int]:
    return base.epoch, base.frame


def _last_by(coverage: Coverage, moment: int) -> tuple[int, int]:
    """Return the end of the last object whose time is not after ``moment``, or N if N is later.

    Objects before that one may have later times.
    """
    ends = [(key.epoch, key.last) for key in coverage.objects if key.time_ms <= moment]
    return max([_place(coverage.base), *ends])


def _is_proven_by_later_objects(chosen: Coverage, coverages: list[Coverage], moment: int) -> bool:
    """Whether the same unbroken history continues up to ``moment``. Then everything before ``moment`` is complete."""
    last = _last_by(chosen, moment)
    if any(key.time_ms >= moment and (key.epoch, key.last) >= last for key in chosen.objects):
        return True
    bases = (other.base for other in coverages if other.base.generation == chosen.base.generation)
    # A base after the end of the coverage proves nothing, because objects between the two may be lost. A base before
    # the first frame of an epoch has the time of the last commit before it. That commit's object is then the proof.
    return any(base.time_ms >= moment and last <= _place(base) <= chosen.last for base in bases)


def _cut_at_time(coverage: Coverage, moment: int) -> tuple[EpochPlan, ...]:
    """Return the objects up to the first one that ends after ``moment``, since it may hold earlier commits too.

    If an object's time is later than the time of an object after it, its clock was ahead, so it does not count as
    ending after ``moment``. The objects reach at least up to N.
    """
    last, late = _last_by(coverage, moment), None
    for key in reversed(coverage.objects):
        if (key.epoch, key.last) <= last:
            break
        if late is None or key.time_ms <= late.time_ms:
            late = key
    return _cut(coverage, (late.epoch, late.last)) if late else coverage.epochs


def _plan_position(coverages: list[Coverage], target: AtPosition) -> Plan | Refusal:
    wanted = target.position
    place = (wanted.epoch, wanted.frame)
    own = [coverage for coverage in coverages if coverage.base.generation == wanted.generation]
    fit = [coverage for coverage in own if (coverage.base.epoch, coverage.base.frame) <= place]
    chosen = fit[-1] if fit else None
    if chosen and chosen.is_usable and _holds(chosen, place):
        return _plan(target, chosen, _cut(chosen, place))
    before, after = _around_position(_points(coverages), wanted)
    if chosen is None:
        why = "it is before the first base" if own else f"generation {wanted.generation} has no finished base"
        return Refusal(Reason.UNREACHABLE, f"{target} is not covered: {why}", before, after)
    inside = chosen.last >= place
    beyond = chosen.detail or "it is after the last frame stored"
    why = f"epoch {wanted.epoch} has no such frame" if inside else beyond
    reason = Reason.UNREACHABLE if inside else _REASONS[chosen.end]
    return Refusal(reason, f"{target} is not covered: {why}", before, after)


def _holds(coverage: Coverage, place: tuple[int, int]) -> bool:
    """Whether the frame is covered. Frame 0 means the end of the epoch before."""
    ends = {part.epoch: part.last for part in coverage.epochs}
    return place <= coverage.last and place[1] <= ends.get(place[0], -1)


def _plan(target: Target, coverage: Coverage, epochs: tuple[EpochPlan, ...]) -> Plan:
    base = _base_point(coverage.base)
    held = [_point(key) for epoch in epochs for key in epoch.objects]
    points = [base, *(point for point in held if point.position >= base.position)]
    if isinstance(target, AtTime):
        points = [point for point in points if point.time_ms <= target.time_ms] or points[:1]
    reached = points[-1]
    if isinstance(target, AtPosition):
        reached = replace(reached, position=target.position)
    return Plan(target, coverage.base, epochs, reached)


def _cut(coverage: Coverage, place: tuple[int, int]) -> tuple[EpochPlan, ...]:
    """Return the epochs up to and including the object that holds ``place``."""
    epoch, frame = place
    kept = [part for part in coverage.epochs if part.epoch < epoch]
    for part in coverage.epochs:
        if part.epoch == epoch and (frame or not kept):
            kept.append(_cut_epoch(part, frame))
    return tuple(kept)


def _cut_epoch(part: EpochPlan, frame: int) -> EpochPlan:
    if frame < part.first:
        return replace(part, objects=(), last=part.first - 1, others=())
    objects: list[FramesKey] = []
    for key in part.objects:
        if objects and objects[-1].last >= frame:
            break
        objects.append(key)
    return replace(part, objects=tuple(objects), last=objects[-1].last)


def _points(coverages: list[Coverage]) -> list[Point]:
    """Return all positions that the listing alone shows to be restorable, in ascending order."""
    found: dict[Position, Point] = {}
    for coverage in coverages:
        if not coverage.is_usable:
            continue
        base = _base_point(coverage.base)
        for point in (base, *(_point(key) for key in coverage.objects)):
            if point.position >= base.position:
                found.setdefault(point.position, point)
    return [found[position] for position in sorted(found)]


def _base_point(base: ManifestKey) -> Point:
    return Point(Position(base.generation, base.epoch, base.frame), base.time_ms)


def _point(key: FramesKey) -> Point:
    return Point(Position(key.generation, key.epoch, key.last), key.time_ms)


def _around_time(points: list[Point], moment: int) -> tuple[Point | None, Point | None]:
    count = max((number for number, point in enumerate(points, 1) if point.time_ms <= moment), default=0)
    return points[count - 1] if count else None, points[count] if count < len(points) else None


def _around_position(points: list[Point], wanted: Position) -> tuple[Point | None, Point | None]:
    before = [point for point in points if point.position <= wanted]
    after = [point for point in points if point.position > wanted]
    return before[-1] if before else None, after[0] if after else None


def _notes(offered: Iterable[GenerationListing], plan: Plan) -> Iterable[str]:
    """Yield what the operator should know although there is a plan."""
    for part in offered:
        for base in sorted(part.manifests, key=base_order):
            if base.base not in part.bases:
                yield f"not used: {format_key(base.base)}, which is missing or damaged"
        if isinstance(plan.target, Head) and part.generation > plan.generation:
            yield _fallback_note(part, plan)


def _fallback_note(part: GenerationListing, plan: Plan) -> str:
    """Return how much of a generation without a finished base is missing, if the head is an earlier generation's."""
    began = int(generation_time(part.generation).timestamp() * 1000)
    newest = max([began, *(key.time_ms for key in part.frames)])
    span = format_span(max(0, newest - plan.reached.time_ms))
    return (
        f"generation {part.generation} has no finished base yet: this is the end of generation "
        f"{plan.generation}, {format_moment(plan.reached.time_ms)}; what was committed in the {span} "
        f"after that is not in it"
    )
