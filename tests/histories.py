"""Makes listings of histories, for everything that uses names alone, and knows what is true of them.

A history is a list of epochs, each a list of commit frames; its objects overlap at random. ``lose`` removes objects.
Each frame is one second later than the one before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from walsyncd.core.restore.coverage import FramesKey, Listing, listing_of
from walsyncd.core.stored.layout import BaseKey, ManifestKey, SegmentKey, WholeKey

G1 = "20261122T105600Z-3f9c1a2b"
G2 = "20261123T105600Z-00000001"
T0 = 1_795_344_960_000
DAY_MS = 86_400_000

Place = tuple[int, int]


def segment(epoch: int, first: int, last: int, *, previous: int = 0, g: str = G1) -> SegmentKey:
    """Return a segment that was seen at ``time_of`` its last frame."""
    return SegmentKey(g, epoch, first, last, time_of((epoch, last), g), previous if first == 1 else None)


def whole(epoch: int, last: int, *, previous: int = 0, g: str = G1) -> WholeKey:
    """Return a closed epoch as one object."""
    return WholeKey(g, epoch, last, time_of((epoch, last), g), previous)


def base(start: Place, consistent: Place | None = None, *, g: str = G1) -> ManifestKey:
    """Return a base's manifest. N is S unless it is given."""
    n = consistent or start
    return ManifestKey(BaseKey(g, *start, f"{start[0]:04x}{start[1]:04x}"), *n, time_of(n, g))


def time_of(place: Place, g: str = G1) -> int:
    """Return when a frame was seen: epochs are a thousand seconds apart, generations a day."""
    return T0 + (DAY_MS if g == G2 else 0) + (place[0] * 1000 + place[1]) * 1000


def listing(*keys: FramesKey | ManifestKey) -> Listing:
    """Return a listing of these. A manifest stands for its base too."""
    return listing_of([*keys, *(key.base for key in keys if isinstance(key, ManifestKey))])


@dataclass(frozen=True)
class History:
    """The history of one generation: the commit frames of each epoch from 1 on, and what is stored of them."""

    generation: str
    epochs: tuple[tuple[int, ...], ...]
    objects: tuple[FramesKey, ...]
    bases: tuple[ManifestKey, ...]

    @property
    def commits(self) -> list[Place]:
        return [(epoch, frame) for epoch, frames in enumerate(self.epochs, 1) for frame in frames]

    @property
    def frames_held(self) -> set[Place]:
        return {(key.epoch, frame) for key in self.objects for frame in range(key.first, key.last + 1)}

    @property
    def last_known(self) -> Place:
        """Return the last frame that anything stored names."""
        return max([*((key.epoch, key.last) for key in self.objects), *((b.epoch, b.frame) for b in self.bases)])

    def is_restorable(self, place: Place) -> bool:
        """Return whether some base is consistent by then, and every frame after its start is held.

        This is the definition.
        """
        return any(
            (b.epoch, b.frame) <= place and self.frames_between((b.base.epoch, b.base.frame), place) <= self.frames_held
            for b in self.bases
        )

    def frames_between(self, after: Place, upto: Place) -> set[Place]:
        every = {(e, f) for e, frames in enumerate(self.epochs, 1) for f in range(1, frames[-1] + 1)}
        return {place for place in every if after < place <= upto}

    def lose(self, lost: Iterable[int]) -> History:
        """Return the listing without some objects, by index."""
        gone = set(lost)
        return replace(self, objects=tuple(key for index, key in enumerate(self.objects) if index not in gone))

    def listing(self) -> Listing:
        return listing(*self.objects, *self.bases)


@st.composite
def histories(draw: st.DrawFn, generation: str = G1) -> History:
    """Return up to four epochs of up to six commits, in overlapping segments, some whole, with up to three bases."""
    lengths = st.lists(st.integers(1, 3), min_size=1, max_size=6)
    epochs = [_running(draw(lengths)) for _ in range(draw(st.integers(1, 4)))]
    objects: list[FramesKey] = []
    for epoch, commits in enumerate(epochs, 1):
        previous = epochs[epoch - 2][-1] if epoch > 1 else 0
        starts = [1, *(commit + 1 for commit in commits[:-1])]
        for first, last in _pieces(draw, starts, commits):
            objects.append(segment(epoch, first, last, previous=previous, g=generation))
        if epoch < len(epochs) and draw(st.booleans()):
            objects.append(whole(epoch, commits[-1], previous=previous, g=generation))
    places = [(epoch, frame) for epoch, commits in enumerate(epochs, 1) for frame in (0, *commits)]
    bases: dict[Place, ManifestKey] = {}
    for at in sorted(draw(st.lists(st.integers(0, len(places) - 1), min_size=1, max_size=3, unique=True))):
        start = places[at]
        ends = [place for place in places if place[0] == start[0] and place >= start]
        end = draw(st.sampled_from(ends))
        if not bases or end > max(bases):
            bases[end] = base(start, end, g=generation)
    return History(generation, tuple(map(tuple, epochs)), tuple(objects), tuple(bases.values()))


def _running(lengths: list[int]) -> list[int]:
    return [sum(lengths[: count + 1]) for count in range(len(lengths))]


def _pieces(draw: st.DrawFn, starts: list[int], commits: list[int]) -> list[Place]:
    """Return segments that together hold all frames, and some more that overlap them."""
    pieces, at = [], 0
    while at < len(commits):
        end = draw(st.integers(at, len(commits) - 1))
        pieces.append((starts[at], commits[end]))
        at = end + 1
    for _ in range(draw(st.integers(0, 2))):
        first, last = sorted([draw(st.integers(0, len(commits) - 1)) for _ in range(2)])
        pieces.append((starts[first], commits[last]))
    return sorted(set(pieces))
