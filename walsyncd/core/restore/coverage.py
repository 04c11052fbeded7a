"""Coverage: which frames the stored objects hold from a base on, and where and why that ends.

A listing is what one LIST of a database returned, as parsed keys. Frames of an epoch are numbered from 1, and
objects are intervals of them:

1. An epoch is covered from frame 1. The base's own epoch is covered from any object that holds the frame after
   the base's start S: applying all stored frames from S *or from anywhere earlier* to the base gives the database.
2. Overlaps are legal: frames that are covered already are cut, and the reader checks by the checksum chain that the
   rest continues them. A whole epoch is preferred to its segments, and a longer object to a shorter one. An object that
   is left out must hold the same frames, which the restore checks.
3. The next epoch continues this epoch if the next epoch's ``previous`` is the last frame held of this epoch.
   A greater ``previous`` is a hole. A smaller one, or two that differ, is a fork: two histories.
4. An object or a base beyond the last frame held proves a hole, because objects become visible in order.
5. A hole is expected where ``pruned/`` states it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from itertools import groupby

from walsyncd.core.stored.layout import BaseKey, Key, ManifestKey, PrunedKey, SegmentKey, WholeKey

FramesKey = SegmentKey | WholeKey


@dataclass(frozen=True)  # without slots, because cached_property keeps its values in __dict__
class GenerationListing:
    """What is stored of one generation. The tuples are in key order."""

    generation: str
    bases: tuple[BaseKey, ...] = ()
    manifests: tuple[ManifestKey, ...] = ()
    frames: tuple[FramesKey, ...] = ()
    pruned: tuple[PrunedKey, ...] = ()

    @cached_property
    def by_epoch(self) -> dict[int, tuple[FramesKey, ...]]:
        """Return the segments and wholes of each epoch. Epochs are in ascending order."""
        ordered = sorted(self.frames, key=lambda key: key.epoch)
        return {epoch: tuple(keys) for epoch, keys in groupby(ordered, key=lambda key: key.epoch)}

    @cached_property
    def finished(self) -> tuple[ManifestKey, ...]:
        """Return the bases that have a manifest and the object that it names, in ascending order of N."""
        stored = set(self.bases)
        return tuple(sorted((m for m in self.manifests if m.base in stored), key=base_order))

    def is_pruned(self, first: int, last: int) -> bool:
        """Whether retention stated that it removes all of these epochs."""
        reach = first - 1
        for key in self.pruned:  # ascending by their first epoch
            if key.first <= reach + 1:
                reach = max(reach, key.last)
        return reach >= last


def base_order(manifest: ManifestKey) -> tuple[int, int, int]:
    """Return the key by which the bases of a generation are sorted. The newest base has the greatest key."""
    return manifest.epoch, manifest.frame, manifest.time_ms


@dataclass(frozen=True, slots=True)
class Listing:
    """All generations of one database, oldest first."""

    generations: tuple[GenerationListing, ...]

    def without(self, keys: Collection[Key]) -> Listing:
        """Return the listing without these bases and frames. Manifests stay: they say up to where frames existed."""
        kept = [
            replace(
                part,
                bases=tuple(key for key in part.bases if key not in keys),
                frames=tuple(key for key in part.frames if key not in keys),
            )
            for part in self.generations
        ]
        return Listing(tuple(kept))


def listing_of(keys: Iterable[Key], generations: Iterable[str] = ()) -> Listing:
    """Group keys by generation. ``generations`` adds generations that may have no key."""
    found: dict[str, list[Key]] = {generation: [] for generation in generations}
    for key in keys:
        found.setdefault(key.generation, []).append(key)
    return Listing(tuple(_generation_of(generation, found[generation]) for generation in sorted(found)))


def _generation_of(generation: str, keys: list[Key]) -> GenerationListing:
    return GenerationListing(
        generation,
        bases=tuple(sorted(key for key in keys if isinstance(key, BaseKey))),
        manifests=tuple(sorted(key for key in keys if isinstance(key, ManifestKey))),
        frames=tuple(key for key in keys if isinstance(key, SegmentKey | WholeKey)),
        pruned=tuple(sorted(key for key in keys if isinstance(key, PrunedKey))),
    )


@dataclass(frozen=True, slots=True)
class EpochPlan:
    """The objects to read of one epoch, in order. Together they hold frames ``first`` to ``last``.

    ``objects`` is empty only for a base's own epoch of which no frame after S is stored. ``others`` are objects that
    are not needed: they hold some of the same frames, with the same content unless there is a fork.
    """

    epoch: int
    objects: tuple[FramesKey, ...]
    first: int
    last: int
    others: tuple[FramesKey, ...] = ()


class End(Enum):
    """Why a coverage ends."""

    COMPLETE = "nothing is stored beyond"
    HOLE = "something is missing"
    PRUNED = "retention removed what follows"
    FORK = "two histories"


@dataclass(frozen=True, slots=True)
class Coverage:
    """All that can be applied to a base, up to ``last`` (epoch, frame), and why the coverage ends there."""

    base: ManifestKey
    epochs: tuple[EpochPlan, ...]
    last: tuple[int, int]
    end: End
    detail: str

    @property
    def is_usable(self) -> bool:
        """Whether the base can be made consistent at all."""
        return self.last >= (self.base.epoch, self.base.frame)

    @property
    def objects(self) -> list[FramesKey]:
        """The objects of all epochs in order."""
        return [key for epoch in self.epochs for key in epoch.objects]


def cover(listing: GenerationListing, base: ManifestKey) -> Coverage:
    """Return what the stored frames cover from a base on, without a hole."""
    epochs = [_first_epoch(listing, base)]
    while True:
        held = epochs[-1]
        end, detail = _what_follows(listing, held)
        if end is not None:
            return Coverage(base, tuple(epochs), (held.epoch, held.last), end, detail)
        epochs.append(_run(held.epoch + 1, listing.by_epoch[held.epoch + 1], after=0))


def cover_epoch(listing: GenerationListing, epoch: int) -> EpochPlan:
    """Return what is covered of an epoch from its first stored frame on, whatever the bases are."""
    keys = listing.by_epoch[epoch]
    return _run(epoch, keys, after=min(key.first for key in keys) - 1)


def _first_epoch(listing: GenerationListing, base: ManifestKey) -> EpochPlan:
    epoch, start = base.base.epoch, base.base.frame
    keys = listing.by_epoch.get(epoch, ())
    run = _run(epoch, keys, after=0)
    if run.last >= start:
        return run
    reaching = [key.first for key in keys if key.first <= start + 1 <= key.last]
    return _run(epoch, keys, after=min(reaching) - 1) if reaching else EpochPlan(epoch, (), start + 1, start)


def _run(epoch: int, keys: Sequence[FramesKey], *, after: int) -> EpochPlan:
    """Return the fewest objects that hold every frame from ``after + 1`` on, up to the first hole."""
    wholes = [key for key in keys if isinstance(key, WholeKey)]
    chosen: list[FramesKey] = [max(wholes, key=lambda key: key.last)] if wholes else []
    held = max([after, *(key.last for key in chosen)])
    longest: FramesKey | None = None
    for key in sorted(keys, key=lambda key: key.first):
        if longest is not None and key.first > held + 1:
            chosen.append(longest)
            held, longest = longest.last, None
        if key.first > held + 1:
            break
        if key.last > (longest.last if longest else held):
            longest = key
    if longest is not None:
        chosen.append(longest)
        held = longest.last
    first = chosen[0].first if chosen else after + 1
    others = tuple(key for key in keys if key not in chosen and key.first <= held and key.last >= first)
    return EpochPlan(epoch, tuple(chosen), first, held, others)


def _what_follows(listing: GenerationListing, held: EpochPlan) -> tuple[End | None, str]:
    """Return why the coverage ends after ``held``, or None if the next epoch continues it."""
    epoch, last = held.epoch, held.last
    beyond = [key for key in listing.by_epoch.get(epoch, ()) if key.first > last + 1]
    if beyond:
        return _missing(listing, epoch, last + 1, min(key.first for key in beyond) - 1)
    if epoch + 1 in listing.by_epoch:
        return _epoch_join(listing, held)
    later = [number for number in listing.by_epoch if number > epoch]
    if later:
        return _missing_epochs(listing, epoch + 1, later[0] - 1)
    return _after_the_last(listing, held)


def _epoch_join(listing: GenerationListing, held: EpochPlan) -> tuple[End | None, str]:
    """Whether the next epoch begins where this one ended."""
    epoch, last = held.epoch, held.last
    stated = {key.previous for key in listing.by_epoch[epoch + 1] if key.previous is not None}
    if not stated:
        return _missing(listing, epoch + 1, 1, min(key.first for key in listing.by_epoch[epoch + 1]) - 1)
    if len(stated) > 1:
        frames = " and ".join(str(frame) for frame in sorted(stated))
        return End.FORK, f"epoch {epoch + 1} says that it follows frames {frames} of epoch {epoch}"
    previous = stated.pop()
    if previous > last:
        return _missing(listing, epoch, last + 1, previous)
    if previous < last:
        detail = f"epoch {epoch + 1} follows frame {previous} of epoch {epoch}, which goes on to frame {last}"
        return End.FORK, detail
    return None, ""


def _after_the_last(listing: GenerationListing, held: EpochPlan) -> tuple[End, str]:
    """Return why the coverage ends if no later epoch has frames. A base may show that a later epoch had frames."""
    beyond = [m for m in listing.manifests if (m.epoch, m.frame) > (held.epoch, held.last)]
    if not beyond:
        return End.COMPLETE, ""
    epoch, frame = max((m.epoch, m.frame) for m in beyond)
    if epoch == held.epoch:
        return _missing(listing, epoch, held.last + 1, frame)
    if frame == 0 and epoch == held.epoch + 1:
        return End.COMPLETE, ""  # the base lies at the very start of an epoch that has no frame yet
    return _missing_epochs(listing, held.epoch + 1, epoch if frame else epoch - 1)


def _missing(listing: GenerationListing, epoch: int, first: int, last: int) -> tuple[End, str]:
    if listing.is_pruned(epoch, epoch):
        return End.PRUNED, f"retention removed epoch {epoch}"
    frames = f"frame {first} is" if first == last else f"frames {first} to {last} are"
    return End.HOLE, f"{frames} missing in epoch {epoch}"


def _missing_epochs(listing: GenerationListing, first: int, last: int) -> tuple[End, str]:
    epochs = f"epoch {first}" if first == last else f"epochs {first} to {last}"
    if listing.is_pruned(first, last):
        return End.PRUNED, f"retention removed {epochs}"
    return End.HOLE, f"{epochs} {'is' if first == last else 'are'} missing"
