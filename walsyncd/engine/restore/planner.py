"""Finds the plan of a restore: lists, plans, and finds the last commit to restore in the last object of the plan.

1. *list*: bases are listed first, then the frames from the chosen base's epoch on. A refusal is believed only after a
   second listing, which lists everything: LIST is not a snapshot, and the refusal must name the nearest positions.
2. *resolve*: the trailers of the plan's last object say which of its commits is the last one to restore. A moment
   inside a bridge is refused, and so is a position that a later scrub made suspect (`core.restore.bridge_points`).
3. *prepare*: the manifest is read.

If an object is damaged, other objects of the same generation may give the same commit: an older base with the frames
after it, the segments of a compacted epoch (a whole), or the whole instead of a segment. Other generations can't give
that commit, so they are never tried.

If pruning or compaction removes an object meanwhile, the planner lists and plans again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from walsyncd.core.restore.bridge_points import StoredBridge
from walsyncd.core.restore.clock_doubt import doubtful_spans
from walsyncd.core.restore.coverage import EpochPlan, FramesKey, Listing, listing_of
from walsyncd.core.restore.plan import AtPosition, AtTime, Head, Plan, Point, Reason, Refusal, Target, make_plan
from walsyncd.core.stored.layout import BaseKey, Key, ManifestKey, SegmentKey, WholeKey, format_key
from walsyncd.core.stored.manifest import Manifest
from walsyncd.core.stored.position import Position
from walsyncd.core.stored.segment import Commit
from walsyncd.engine.restore.bridge_reader import read_bridge, stored_bridge, suspecting_bridge
from walsyncd.engine.restore.commit_times import ObjectCommits, commits_of
from walsyncd.engine.restore.replica import EMPTY_HINT, DamagedError, Replica
from walsyncd.errors import (
    CorruptError,
    ForkError,
    NothingToRestoreError,
    SuspectError,
    TargetError,
    VanishedError,
    WalsyncdError,
    forget_locals,
)

REPLANS_MAX = (
    5  # compaction and pruning touch an epoch a few times at most; a replica that changes more often is damaged
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """What to restore: a target, optionally in one generation. With ``allow_partial`` an earlier position will do."""

    target: Target
    generation: str | None = None
    allow_partial: bool = False


@dataclass(frozen=True, slots=True)
class ResolvedPlan:
    """A resolved plan and what its base's manifest says."""

    plan: Plan
    manifest: Manifest


def prepare(replica: Replica, request: RestoreRequest) -> ResolvedPlan:
    """Return the plan for a request, with a base whose manifest can be read.

    Raises the same errors as `find_plan` and `with_plan` do.
    """
    return with_plan(replica, request, lambda prepared: prepared)


def with_plan(replica: Replica, request: RestoreRequest, use: Callable[[ResolvedPlan], T]) -> T:
    """Call ``use`` with the plan for a request. Plan again if objects vanish, and do without damaged objects.

    Raises CorruptError if the generation does not give the same commit without the damaged objects. Raises
    NewerFormatError if an object has a newer format.
    """
    damaged: dict[Key, DamagedError] = {}
    wanted: Plan | None = None  # the plan that was made before any object was seen to be damaged
    vanished = 0
    while True:
        try:
            plan = _plan_without(replica, request, damaged, wanted)
            wanted = wanted or plan
            return use(ResolvedPlan(plan, manifest_of(replica, plan)))
        except DamagedError as error:
            key = error.key.base if isinstance(error.key, ManifestKey) else error.key
            if key in damaged:
                raise
            forget_locals(error)  # ``damaged`` keeps the error to the end, and it must not keep buffers alive
            damaged[key] = error
        except VanishedError as error:
            vanished += 1
            if vanished > REPLANS_MAX:
                raise VanishedError(error.message, hint="it is listed, but can't be read") from error
            wanted = None


def manifest_of(replica: Replica, plan: Plan) -> Manifest:
    """Return the manifest of a plan's base. Raises DamagedError."""
    return replica.manifest(plan.base)


def _plan_without(
    replica: Replica, request: RestoreRequest, damaged: Mapping[Key, DamagedError], wanted: Plan | None
) -> Plan:
    """Return a plan without the damaged objects. It reaches the same position as ``wanted`` does with them."""
    if not damaged:
        return find_plan(replica, request.target, generation=request.generation, allow_partial=request.allow_partial)
    last = list(damaged.values())[-1]
    generation = last.key.generation
    try:
        plan = find_plan(
            replica,
            request.target,
            generation=generation,
            allow_partial=True,
            allow_suspect=request.allow_partial,
            without=damaged.keys(),
        )
    except SuspectError:
        raise
    except (NothingToRestoreError, TargetError) as error:
        hint = "nothing else of that generation can stand in for it; `walsyncd verify` says what is still good"
        raise CorruptError(last.message, hint=hint) from error
    is_less = plan.reached != wanted.reached if wanted else bool(plan.shortfall)
    if is_less and not request.allow_partial:
        message = f"{last.message}; without it {plan.reached} is the nearest before"
        raise CorruptError(message, hint="--allow-partial restores that") from last
    kinds = ["restored from an older base" if isinstance(key, BaseKey) else "damaged, and not used" for key in damaged]
    notes = [f"{kind}: {error.message}" for kind, error in zip(kinds, damaged.values(), strict=True)]
    notes += [note for note in plan.notes if not any(format_key(key) in note for key in damaged)]
    return replace(
        plan,
        notes=tuple(notes),
        shortfall=plan.shortfall or (last.message if is_less else ""),
        epochs=tuple(_comparing(epoch, damaged) for epoch in plan.epochs),
    )


def _comparing(epoch: EpochPlan, damaged: Collection[Key]) -> EpochPlan:
    """Return the epoch with its damaged objects added to ``others``, which are compared with the objects applied."""
    lost = [key for key in damaged if isinstance(key, SegmentKey | WholeKey) and key.epoch == epoch.epoch]
    return replace(epoch, others=(*epoch.others, *(key for key in lost if key.first <= epoch.last)))


def find_plan(
    replica: Replica,
    target: Target,
    *,
    generation: str | None = None,
    allow_partial: bool = False,
    allow_suspect: bool | None = None,
    without: Collection[Key] = (),
) -> Plan:
    """Return the plan for a target, with its exact position. Bases and objects of frames in ``without`` are not used.

    ``allow_suspect`` allows a position that may be wrong. Its default is ``allow_partial``. Raises SuspectError if such
    a position is not allowed, and NothingToRestoreError if no base is finished. Raises TargetError, which names the
    nearest positions, if the target is not covered. Raises CorruptError if there are two histories, or if an object
    that must be read for the plan is damaged.
    """
    listing = _narrow_listing(replica, target, generation, without)
    plan = make_plan(listing, target, generation=generation)
    if isinstance(plan, Refusal):
        listing = replica.list_all().without(without)
        plan = make_plan(listing, target, generation=generation, allow_partial=allow_partial)
    if isinstance(plan, Refusal):
        raise _error_of(_with_bridge(replica, listing, target, plan), replica)
    resolved = resolve(replica, plan, allow_partial=allow_partial)
    if isinstance(target, Head):
        return resolved
    if isinstance(target, AtTime):
        resolved = _with_trusted_time(replica, listing, resolved, target, allow_partial=allow_partial)
    return _without_doubt(replica, listing, resolved, allow=allow_partial if allow_suspect is None else allow_suspect)


def _with_trusted_time(replica: Replica, listing: Listing, plan: Plan, target: AtTime, *, allow_partial: bool) -> Plan:
    """Return the plan. Raises TargetError, with the neighbouring positions, if a clock was ahead near the target."""
    (part,) = (part for part in listing.generations if part.generation == plan.generation)
    span = next((span for span in doubtful_spans(replica.timed(part.frames)) if span.holds(target.time_ms)), None)
    reached = plan.reached.position.epoch, plan.reached.position.frame
    if span is None or plan.shortfall or span.ends_before(reached, plan.reached.time_ms):
        return plan
    after = [Point(Position(key.generation, key.epoch, key.last), key.time_ms) for key in part.frames]
    later = min(
        (point for point in after if span.last_ms == point.time_ms), key=lambda point: point.position, default=None
    )
    message = f"{target} can't be told: {span}"
    return _refused(plan, message, before=plan.reached, after=later, allow_partial=allow_partial)


def _without_doubt(replica: Replica, listing: Listing, plan: Plan, *, allow: bool) -> Plan:
    """Return the plan, with a note if a later scrub made its end suspect.

    Raises SuspectError in that case unless ``allow`` is set.
    """
    (part,) = (part for part in listing.generations if part.generation == plan.generation)
    bridge, problems = suspecting_bridge(replica, part, plan.reached.position)
    notes = [f"a bridge that may say more about {plan.reached.position} can't be read: {each}" for each in problems]
    if bridge is not None:
        if not allow:
            message = f"restore {replica.url}: {plan.reached} is suspect: {bridge.suspect_text()}"
            raise SuspectError(message, hint="--allow-partial restores it anyway")
        notes.append(f"{plan.reached} is suspect: {bridge.suspect_text()}")
    return replace(plan, notes=(*plan.notes, *notes))


def _with_bridge(replica: Replica, listing: Listing, target: Target, refusal: Refusal) -> Refusal:
    """Return the refusal. If its nearest point after is the end of a whole with a bridge, name the bridge instead."""
    after = refusal.after
    if after is None or refusal.reason is Reason.FORK:
        return refusal
    place = after.position
    for part in listing.generations:
        if part.generation != place.generation:
            continue
        for key in part.frames:
            if key.bridge and isinstance(key, WholeKey) and (key.epoch, key.last) == (place.epoch, place.frame):
                try:
                    bridge = read_bridge(replica, key).after
                except CorruptError:
                    return refusal
                is_after = not isinstance(target, AtPosition) or bridge.position > target.position
                return replace(refusal, after=bridge) if is_after else refusal
    return refusal


def _narrow_listing(replica: Replica, target: Target, generation: str | None, without: Collection[Key]) -> Listing:
    """List the bases, and the frames of the generation to restore from its base's epoch on.

    Bases and target alone decide which base is chosen, so the bases are listed first.
    """
    bases = replica.bases().without(without)
    chosen = _likely_base(bases, target, generation)
    if chosen is None:
        return bases
    own, epoch = chosen
    known: list[Key] = [
        key for part in bases.generations for key in (*part.bases, *part.manifests, *part.frames, *part.pruned)
    ]
    frames = replica.frames_from(own, epoch)
    return listing_of([*known, *frames], [part.generation for part in bases.generations]).without(without)


def _likely_base(bases: Listing, target: Target, generation: str | None) -> tuple[str, int] | None:
    parts = [part for part in bases.generations if part.finished and generation in (None, part.generation)]
    manifests = [manifest for part in parts for manifest in part.finished]
    match target:
        case AtTime(time_ms):
            manifests = [manifest for manifest in manifests if manifest.time_ms <= time_ms]
        case AtPosition(position):
            manifests = [m for m in manifests if m.generation == position.generation]
            manifests = [m for m in manifests if (m.epoch, m.frame) <= (position.epoch, position.frame)]
    return (manifests[-1].generation, manifests[-1].base.epoch) if manifests else None


def _error_of(refusal: Refusal, replica: Replica) -> WalsyncdError:
    nearest = [f"nearest before: {refusal.before}"] if refusal.before else []
    nearest += [f"nearest after: {refusal.after}"] if refusal.after else []
    message = "; ".join([f"restore {replica.url}: {refusal.message}", *nearest])
    if refusal.reason is Reason.EMPTY:
        return NothingToRestoreError(message, hint=EMPTY_HINT)
    hint = "--allow-partial restores the nearest position before" if refusal.before else ""
    return (ForkError if refusal.reason is Reason.FORK else TargetError)(message, hint=hint)


def resolve(replica: Replica, plan: Plan, *, allow_partial: bool = False) -> Plan:
    """Return the plan with the exact commit that it reaches, if the target lies within the plan's last object.

    Raises TargetError, with the commits around the target, if the target is a frame that does not commit.
    """
    if not plan.objects:
        return plan
    last = plan.objects[-1]
    wanted = plan.reached.position
    match plan.target:
        case AtTime(time_ms) if last.time_ms > time_ms:
            return _resolve_time(plan, last, time_ms, commits_of(replica, last), allow_partial=allow_partial)
        case AtPosition() if not plan.shortfall and (last.epoch, last.last) != (wanted.epoch, wanted.frame):
            return _resolve_position(plan, last, commits_of(replica, last), allow_partial=allow_partial)
    return plan


def _resolve_time(plan: Plan, last: FramesKey, time_ms: int, held: ObjectCommits, *, allow_partial: bool) -> Plan:
    for commit in reversed(held.commits):
        position = Position(plan.generation, last.epoch, commit.frame)
        if commit.time_ms <= time_ms and position > plan.reached.position:
            return replace(plan, reached=Point(position, commit.time_ms))
    bridge = _bridge_of(last, held)
    if bridge is None or not bridge.hides(time_ms) or plan.reached.position >= bridge.after.position:
        return plan
    message = f"{plan.target} is inside a bridge: {bridge.gap_text()}"
    return _refused(plan, message, before=plan.reached, after=bridge.after, allow_partial=allow_partial)


def _bridge_of(key: FramesKey, held: ObjectCommits) -> StoredBridge | None:
    return stored_bridge(key, held.commits[0], held.bridge) if held.bridge else None


def _resolve_position(plan: Plan, last: FramesKey, held: ObjectCommits, *, allow_partial: bool) -> Plan:
    wanted = plan.reached.position
    if wanted.frame == 0:
        return plan  # frame 0 is the end of the epoch before, or the base itself
    for commit in held.commits:
        if commit.frame == wanted.frame:
            return replace(plan, reached=Point(wanted, commit.time_ms))
    before = _nearest_before(plan, held.commits)
    following = next((commit for commit in held.commits if commit.frame > wanted.frame), None)
    after = Point(replace(wanted, frame=following.frame), following.time_ms) if following else None
    bridge = _bridge_of(last, held)
    if bridge is not None and wanted < bridge.after.position:
        message = f"{plan.target} is inside a bridge: {bridge.gap_text()}"
    else:
        message = f"{plan.target} is not a commit, but within a transaction"
    return _refused(plan, message, before=before, after=after, allow_partial=allow_partial)


def _refused(plan: Plan, message: str, *, before: Point, after: Point | None, allow_partial: bool) -> Plan:
    """Return the plan up to the nearest point before, if the request permits that.

    Otherwise raise TargetError with both neighbours.
    """
    message += f"; nearest before: {before}" + (f"; nearest after: {after}" if after else "")
    if allow_partial:
        return replace(plan, reached=before, shortfall=message)
    raise TargetError(f"restore: {message}", hint="--allow-partial restores the nearest position before")


def _nearest_before(plan: Plan, commits: Sequence[Commit]) -> Point:
    """Return the last commit before the wanted frame. It is in the plan's last object, or just before that object."""
    wanted = plan.reached.position
    base = plan.base
    points = [Point(Position(plan.generation, base.epoch, base.frame), base.time_ms)]
    points += [Point(Position(plan.generation, key.epoch, key.last), key.time_ms) for key in plan.objects[-2:-1]]
    points += [Point(replace(wanted, frame=commit.frame), commit.time_ms) for commit in commits]
    return max((point for point in points if point.position < wanted), key=lambda point: point.position)
