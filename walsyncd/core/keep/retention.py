"""Retention: which objects of a database may be removed from storage, in which order, and why.

The promise holds at every moment, wherever a pruning was killed:

1. Every transaction stored within the last ``retention`` can be restored exactly, and so can the state that was
   the newest when that span began. An older state can be restored if a rule keeps a base of that state.
2. The newest usable base is never removed. The newest base that a drill or verify has passed is not removed either,
   unless another such base is kept.

These rules keep the promise:

- The age of an object counts from when it was stored, by the store's clock. An object is never stored before its
  commits are made. The clock that stamped the keys may have been wrong and is not used. An object is *old* if its age
  is at least ``retention`` plus ``GRACE_MS``, and *young* otherwise. ``GRACE_MS`` gives a restore that began within the
  promise the time to end.
- The *anchor* of a generation is its newest usable base that is old and does not come after a young frame. Everything
  from the anchor's epoch on is kept. The newest generation with an old usable base holds the database's state at the
  beginning of the span. Later generations are kept whole. An earlier generation has an anchor only if something in it
  is young.
- ``keep_daily``, ``keep_weekly``, ``keep_monthly`` count days, weeks (from Monday) and months in UTC. Only days, weeks
  and months that have an old base count, and the time in a base's key decides to which one it belongs. The newest old
  base of each of that many days, weeks and months is kept, with the epochs from its start to where it is consistent. A
  base that was once passed over never becomes the newest of its day later.
- Only whole epochs and whole bases are removed.

First, statements in ``pruned/`` are written. Then objects are deleted in this order: manifests, the bases that they
describe, epochs, and statements that newer statements contain. Epochs after a base that is kept are deleted backwards,
so that a pruning that is killed leaves the beginning of these epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from walsyncd.core.restore.coverage import FramesKey, GenerationListing, base_order, cover, listing_of
from walsyncd.core.stored.layout import BaseKey, Key, ManifestKey, PrunedKey, SegmentKey, WholeKey

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
GRACE_MS = HOUR_MS  # a restore of 100 GB takes less; a restore that takes longer plans again
UNFINISHED_MS = DAY_MS  # a base's manifest follows within minutes, or its daemon knows that the base is under way

_UNFINISHED = "never finished: it has no manifest"
_LOST_BASE = "its base is missing"
_UNUSABLE = "older than retention, and frames that it needs are missing"
_OLD_BASE = "older than retention, and no rule keeps it"
_OLD_EPOCH = "older than retention, and no base that is kept needs it"
_STATED_AGAIN = "another statement contains it"


@dataclass(frozen=True, slots=True)
class Policy:
    """What retention promises. The ``keep_…`` fields count days, weeks and months before the last ``retention_ms``."""

    retention_ms: int
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0


@dataclass(frozen=True, slots=True)
class HeldObject:
    """A stored object. ``modified_ms`` is a time of the store's clock, and ``size`` is in bytes."""

    key: Key
    modified_ms: int
    size: int = 0


@dataclass(frozen=True, slots=True)
class Going:
    """An object that may be removed, and why."""

    held: HeldObject
    reason: str


@dataclass(frozen=True, slots=True)
class Pruning:
    """What to do: store ``statements`` (empty objects), then delete ``steps`` one after the other.

    The keys of one step may be deleted in any order. ``next_ms`` is when more may be removed by the store's clock if
    nothing is stored meanwhile, or None if nothing more may be removed. ``relied`` are bases that stay, and because of
    which older objects are removed. They must be read before anything is deleted, since a name proves nothing.
    """

    statements: tuple[PrunedKey, ...]
    steps: tuple[tuple[Key, ...], ...]
    going: tuple[Going, ...]
    next_ms: int | None
    relied: tuple[ManifestKey, ...] = ()


def decide(
    held: Iterable[HeldObject],
    policy: Policy,
    *,
    now_ms: int,
    proven: Collection[ManifestKey] = (),
    under_way: Collection[BaseKey] = (),
) -> Pruning:
    """Return what may be removed of a database at ``now_ms`` by the store's clock.

    ``proven`` are bases that a drill or verify has passed. ``under_way`` are bases whose manifest is not stored yet.
    """
    world = _AgedListing({each.key: each for each in held}, now_ms, policy, frozenset(proven), frozenset(under_way))
    kept = _kept_bases(world)
    reasons = dict([*_going_bases(world, kept), *_going_epochs(world, kept)])
    statements, obsolete = _statements(world, reasons)
    steps = _steps([*reasons, *obsolete], kept)
    reasons |= dict.fromkeys((key for key in obsolete if key in world.held), _STATED_AGAIN)
    going = tuple(Going(world.held[key], reason) for key, reason in reasons.items())
    return Pruning(tuple(statements), steps, going, _next_ms(world, reasons), _relied(world, kept))


def _relied(world: _AgedListing, kept: frozenset[ManifestKey]) -> tuple[ManifestKey, ...]:
    """Return the old bases that stay, or the newest base that stays if none of them is old."""
    usable = kept & world.usable
    old = [base for base in usable if world.is_old(base)]
    return tuple(sorted(old or sorted(usable, key=_age_order)[-1:], key=_age_order))


class _AgedListing:
    """A listing with the ages of its objects, and what follows from the listing alone."""

    def __init__(
        self,
        held: dict[Key, HeldObject],
        now_ms: int,
        policy: Policy,
        proven: frozenset[ManifestKey],
        under_way: frozenset[BaseKey],
    ) -> None:
        self.held = held
        self.now_ms = now_ms
        self.policy = policy
        self.proven = proven
        self.under_way = under_way
        self.horizon_ms = now_ms - GRACE_MS - policy.retention_ms
        self.parts = listing_of(held).generations
        finished = [(part, base) for part in self.parts for base in part.finished]
        self.usable = frozenset(base for part, base in finished if _is_usable(part, base))
        self.old = [base for base in self.usable if self.is_old(base)]
        self.spanning = max((base.generation for base in self.old), default="")
        """The generation that holds the database's state at the horizon."""
        self.anchors = {part.generation: self._anchor(part) for part in self.parts}

    def at(self, now_ms: int, without: Collection[Key]) -> _AgedListing:
        """Return the same listing without some objects, with their ages at another time."""
        held = {key: each for key, each in self.held.items() if key not in without}
        return _AgedListing(held, now_ms, self.policy, self.proven, self.under_way)

    def is_old(self, key: Key) -> bool:
        return self.held[key].modified_ms <= self.horizon_ms

    def is_young(self, part: GenerationListing) -> bool:
        """Whether the promise covers anything in the generation, because it is young."""
        return any(not self.is_old(key) for key in (*part.bases, *part.manifests, *part.frames))

    def is_kept_whole(self, part: GenerationListing) -> bool:
        if not self.spanning or part.generation > self.spanning:
            return True
        needs_anchor = part.generation == self.spanning or self.is_young(part)
        return needs_anchor and self.anchors[part.generation] is None

    def is_kept_from_anchor(self, part: GenerationListing) -> bool:
        return part.generation == self.spanning or self.is_young(part)

    def _anchor(self, part: GenerationListing) -> ManifestKey | None:
        young = min(((key.epoch, key.first - 1) for key in part.frames if not self.is_old(key)), default=None)
        own = [base for base in self.old if base.generation == part.generation]
        fit = [base for base in own if young is None or (base.epoch, base.frame) <= young]
        return max(fit, key=base_order, default=None)


def _is_usable(part: GenerationListing, base: ManifestKey) -> bool:
    """Whether all frames that make the base consistent are listed."""
    first, last = base.base.epoch, base.epoch  # never iterated, since a planted name may claim billions of epochs
    frames = tuple(key for epoch, keys in part.by_epoch.items() if first <= epoch <= last for key in keys)
    return cover(replace(part, frames=frames), base).is_usable


def _kept_bases(world: _AgedListing) -> frozenset[ManifestKey]:
    """Return all manifests that stay."""
    kept: set[ManifestKey] = set(_thinned(world.old, world.policy))
    for part in world.parts:
        anchor = world.anchors[part.generation]
        kept.update(base for base in part.manifests if not world.is_old(base))
        if world.is_kept_whole(part):
            kept.update(part.manifests)
        elif world.is_kept_from_anchor(part) and anchor is not None:
            kept.update(base for base in part.manifests if base_order(base) >= base_order(anchor))
    passed = world.proven & world.usable
    if passed and not passed & kept:
        kept.add(max(passed, key=_age_order))
    return frozenset(kept)


def _thinned(bases: Iterable[ManifestKey], policy: Policy) -> Iterator[ManifestKey]:
    """Yield the newest base of each of the newest days, weeks and months that have any."""
    rules: tuple[tuple[int, Callable[[int], int]], ...] = (
        (policy.keep_daily, lambda ms: ms // DAY_MS),
        (policy.keep_weekly, lambda ms: (ms // DAY_MS + 3) // 7),  # 1970 began on a Thursday
        (policy.keep_monthly, _month),
    )
    newest_first = sorted(bases, key=_age_order, reverse=True)
    for count, span_of in rules:
        spans: set[int] = set()
        for base in newest_first:
            span = span_of(base.time_ms)
            if span not in spans and len(spans) < count:
                spans.add(span)
                yield base


def _month(time_ms: int) -> int:
    moment = datetime.fromtimestamp(time_ms // 1000, UTC)
    return moment.year * 12 + moment.month


def _age_order(base: ManifestKey) -> tuple[str, tuple[int, int, int], BaseKey]:
    return base.generation, base_order(base), base.base


# -- what is removed ------------------------------------------------------------------------------------------------


def _going_bases(world: _AgedListing, kept: frozenset[ManifestKey]) -> Iterator[tuple[Key, str]]:
    kept_objects = {manifest.base for manifest in kept}
    for part in world.parts:
        described = {manifest.base for manifest in part.manifests}
        for manifest in part.manifests:
            if manifest not in kept:
                reason = _reason(world, part, manifest)
                yield manifest, reason
                if manifest.base in part.bases and manifest.base not in kept_objects:
                    yield manifest.base, reason
        for base in part.bases:
            is_unfinished = base not in described and base not in world.under_way
            if is_unfinished and world.held[base].modified_ms <= world.now_ms - UNFINISHED_MS:
                yield base, _UNFINISHED


def _reason(world: _AgedListing, part: GenerationListing, manifest: ManifestKey) -> str:
    if manifest in world.usable:
        return _OLD_BASE
    return _UNUSABLE if manifest.base in part.bases else _LOST_BASE


def _going_epochs(world: _AgedListing, kept: frozenset[ManifestKey]) -> Iterator[tuple[Key, str]]:
    for part in world.parts:
        if world.is_kept_whole(part):
            continue
        anchor = world.anchors[part.generation] if world.is_kept_from_anchor(part) else None
        bases = [base for base in kept if base.generation == part.generation]
        for epoch, keys in part.by_epoch.items():
            is_after = anchor is not None and epoch >= anchor.base.epoch
            is_needed = any(base.base.epoch <= epoch <= base.epoch for base in bases)
            if not is_after and not is_needed:
                yield from ((key, _OLD_EPOCH) for key in keys)


# -- what is stated -------------------------------------------------------------------------------------------------


def _statements(world: _AgedListing, going: Collection[Key]) -> tuple[list[PrunedKey], list[PrunedKey]]:
    """Return which statements to write before epochs are removed, and which statements nobody needs after that."""
    new: list[PrunedKey] = []
    obsolete: list[PrunedKey] = []
    for part in world.parts:
        stated = _stated(part, {key.epoch for key in part.frames if key in going}, world.now_ms)
        new += [key for key in stated if key not in part.pruned]
        if all(key in going for key in (*part.bases, *part.manifests, *part.frames)):
            obsolete += {*part.pruned, *stated}
        else:
            obsolete += [key for key in part.pruned if any(_contains(other, key) for other in stated)]
    return new, obsolete


def _stated(part: GenerationListing, epochs: Collection[int], now_ms: int) -> list[PrunedKey]:
    """Return one statement, stored or new, for each run of removed epochs that contains one of ``epochs``."""
    ranges = _merged([(key.first, key.last) for key in part.pruned] + [(epoch, epoch) for epoch in epochs])
    concerned = [each for each in ranges if any(each[0] <= epoch <= each[1] for epoch in epochs)]
    present = {(key.first, key.last): key for key in part.pruned}
    return [present.get(each) or PrunedKey(part.generation, *each, now_ms) for each in concerned]


def _contains(outer: PrunedKey, inner: PrunedKey) -> bool:
    return outer != inner and outer.first <= inner.first and inner.last <= outer.last


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the numbers of these ranges in as few ranges as possible."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


# -- in which order -------------------------------------------------------------------------------------------------


def _steps(keys: Sequence[Key], kept: Collection[ManifestKey]) -> tuple[tuple[Key, ...], ...]:
    newest: dict[str, int] = {}
    for base in kept:
        newest[base.generation] = max(base.epoch, newest.get(base.generation, 0))
    frames = [key for key in keys if isinstance(key, SegmentKey | WholeKey)]
    behind = [key for key in frames if key.epoch > newest.get(key.generation, key.epoch)]
    tails = sorted({(key.generation, key.epoch) for key in behind}, reverse=True)
    steps: list[tuple[Key, ...]] = [
        tuple(key for key in keys if isinstance(key, ManifestKey)),
        tuple(key for key in keys if isinstance(key, BaseKey)),
        tuple(key for key in frames if key not in set(behind)),
        *(_backwards(key for key in behind if (key.generation, key.epoch) == tail) for tail in tails),
        tuple(key for key in keys if isinstance(key, PrunedKey)),
    ]
    return tuple(step for step in steps if step)


def _backwards(frames: Iterable[FramesKey]) -> tuple[FramesKey, ...]:
    return tuple(sorted(frames, key=lambda key: key.first, reverse=True))


# -- when to decide again -------------------------------------------------------------------------------------------


def _next_ms(world: _AgedListing, going: Collection[Key]) -> int | None:
    """Return when time alone may change the decision, or None if it never does.

    This is when the next object becomes old, provided that anything would be removed once all objects are old.
    """
    until_old_ms = world.policy.retention_ms + GRACE_MS
    rest = {key: each.modified_ms for key, each in world.held.items() if key not in going}
    end_ms = max(rest.values(), default=world.now_ms) + until_old_ms + UNFINISHED_MS
    final = world.at(max(end_ms, world.now_ms), going)
    kept = _kept_bases(final)
    if not any(True for _ in (*_going_bases(final, kept), *_going_epochs(final, kept))):
        return None
    moments = [modified_ms + until_old_ms for modified_ms in rest.values()]
    moments += [rest[key] + UNFINISHED_MS for key in rest if isinstance(key, BaseKey)]
    return min((moment for moment in moments if moment > world.now_ms), default=None)
