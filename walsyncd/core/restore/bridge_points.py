"""What bridges mean for a restore: which moments and positions can't be restored, and which may be wrong.

1. A bridge begins at the time up to which the old position was proven to be the newest. The bridge ends at the time of
   its own commit. A moment between the two is inside the bridge: the commits of that time can only be restored
   together. A restore to the first of the two moments gives the old position, and a restore to the second gives the
   bridge's commit.
2. A bridge that heals names the last good scan, after which the replica may have been wrong. Positions after that scan
   and before the bridge are suspect. Whatever a scan finds wrong is healed, so these spans do not overlap. The first
   healing bridge after a position decides whether the position is suspect.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from walsyncd.core.restore.coverage import FramesKey, GenerationListing
from walsyncd.core.restore.plan import Point
from walsyncd.core.stored.bridge import BridgeSpan
from walsyncd.core.stored.layout import SegmentKey
from walsyncd.core.stored.moment import format_moment, format_span
from walsyncd.core.stored.position import Position


@dataclass(frozen=True, slots=True)
class StoredBridge:
    """A bridge. ``after`` is the bridge's commit, and ``span`` is what the bridge's trailer says."""

    after: Point
    span: BridgeSpan

    @property
    def before(self) -> Position:
        """The last position before the bridge."""
        return Position(self.after.position.generation, self.span.epoch, self.span.frame)

    @property
    def suspect_from(self) -> Point | None:
        """The last good scan's position, after which positions are suspect. It is None if the bridge does not heal."""
        suspect = self.span.suspect
        if suspect is None:
            return None
        return Point(Position(self.after.position.generation, suspect.epoch, suspect.frame), suspect.time_ms)

    @property
    def is_gap(self) -> bool:
        """Whether commits are missing before the bridge. None are missing before a bridge that only heals."""
        return self.span.suspect is None or self.span.proven_ms < self.after.time_ms

    def hides(self, time_ms: int) -> bool:
        """Whether a moment is inside the bridge."""
        return self.span.proven_ms < time_ms < self.after.time_ms

    def suspects(self, position: Position) -> bool:
        """Whether a position may be wrong."""
        start = self.suspect_from
        return start is not None and start.position < position < self.after.position

    def gap_text(self) -> str:
        """Return a clause that says which time can't be restored, and why."""
        missed = format_span(max(0, self.after.time_ms - self.span.proven_ms))
        return (
            f"the {missed} after {format_moment(self.span.proven_ms)} are one bridge, in which commits can't be told "
            f"apart ({self.span.reason or self.span.kind or 'no reason is stated'})"
        )

    def suspect_text(self) -> str:
        """Return a clause that says what may be wrong, and since when."""
        assert self.span.suspect is not None
        pages = self.span.suspect.pages
        found = f"a scrub found {pages} wrong page{'s' * (pages != 1)}, which are right again at {self.after}"
        return f"{found}; the last good scan was at {self.suspect_from}"


def bridges_after(part: GenerationListing, position: Position) -> list[FramesKey]:
    """Return one object for each bridge that may end after a position, in ascending order.

    If a bridge is in a segment and in a compacted epoch, the segment is returned.
    """
    found: dict[int, FramesKey] = {}
    for key in part.frames:
        if key.bridge and key.epoch >= position.epoch and not isinstance(found.get(key.epoch), SegmentKey):
            found[key.epoch] = key
    return [found[epoch] for epoch in sorted(found)]


def suspecting(bridges: Iterable[StoredBridge], position: Position) -> StoredBridge | None:
    """Return the bridge that makes a position suspect, or None if there is none.

    ``bridges`` are the bridges after the position, in ascending order. No more of them are read than are needed.
    """
    for bridge in bridges:
        if bridge.span.suspect is not None and bridge.after.position > position:
            return bridge if bridge.suspects(position) else None
    return None
