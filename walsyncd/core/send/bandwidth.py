"""The bandwidth limit for all bodies together. Segments go before the parts of bases.

Each body occupies the line for ``size / bytes_per_s``. The state is the moment until which the bodies sent so far
occupy the line:

    a segment is sent when no segment occupies the line any more, however late the bases are
    a base's part is sent when nothing occupies the line any more

So bases get the bandwidth that segments leave. Together they never exceed the limit, except for the bodies that are
being sent.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Until when segments occupy the line, and until when all bodies do, both in milliseconds of some clock."""

    bytes_per_s: float
    segments_until_ms: float = 0.0
    all_until_ms: float = 0.0

    def segment_sent(self, size: int, *, now_ms: float) -> RateLimit:
        """Return the state of the line after a segment of ``size`` bytes that is sent now."""
        took_ms = 1000 * size / self.bytes_per_s
        return RateLimit(
            self.bytes_per_s,
            max(self.segments_until_ms, now_ms) + took_ms,
            max(self.all_until_ms, now_ms) + took_ms,
        )

    def part_sent(self, size: int, *, now_ms: float) -> RateLimit:
        """Return the state of the line after a base's part of ``size`` bytes that is sent now."""
        until_ms = max(self.all_until_ms, now_ms) + 1000 * size / self.bytes_per_s
        return RateLimit(self.bytes_per_s, self.segments_until_ms, until_ms)
