"""How fast bodies may leave, all of them together, segments before the parts of bases.

Each body takes ``size / bytes_per_s`` of the line; a moment says until when the line is taken by what was sent so far:

    a segment leaves when no segment takes the line any more, however far behind the bases are
    a base's part leaves when nothing takes the line any more

So bases get what segments leave over, and together they are never faster than the limit but for what is under way.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Until when (milliseconds of some clock) segments, and everything together, take the line."""

    bytes_per_s: float
    segments_until_ms: float = 0.0
    all_until_ms: float = 0.0

    def segment_sent(self, size: int, *, now_ms: float) -> RateLimit:
        """The line after a segment of ``size`` bytes that leaves now."""
        took_ms = 1000 * size / self.bytes_per_s
        return RateLimit(
            self.bytes_per_s,
            max(self.segments_until_ms, now_ms) + took_ms,
            max(self.all_until_ms, now_ms) + took_ms,
        )

    def part_sent(self, size: int, *, now_ms: float) -> RateLimit:
        """The line after a base's part of ``size`` bytes that leaves now."""
        until_ms = max(self.all_until_ms, now_ms) + 1000 * size / self.bytes_per_s
        return RateLimit(self.bytes_per_s, self.segments_until_ms, until_ms)
