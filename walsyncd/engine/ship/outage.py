"""A storage that is away: since when, why, and when the next one may try.

One request that failed is no outage: its lane, or its base, tries again, and nobody else waits. The storage is away
when requests of ``DATABASES_MIN`` databases have failed and none was answered since, or ``FAILURES_MIN`` of one, if no
other asks. As long as no second one says so, the others still try: they are witnesses (``engine.ship.scheduler``).

While it is away one request at a time probes it; the others wait, instead of all workers hammering it. A base's part
may probe as well, but no lane waits for what comes of that: it can be minutes under way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from walsyncd.core.send.backoff import delay_s

DATABASES_MIN = 2  # that fail one after the other, with no answer to anybody between
FAILURES_MIN = 3  # of one database: with back-off a second or two, unless each is a time-out


@dataclass(frozen=True, slots=True)
class Outage:
    """``since_ms`` and ``probe_ms`` by the monotonic clock; ``is_probed``: a request is under way.

    ``is_tried``: so is a base's part.
    """

    since_ms: float
    reason: str
    failures: int
    probe_ms: float
    is_probed: bool = False
    is_tried: bool = False


def begin(reason: str, *, now_ms: float, fraction: float) -> Outage:
    """The first request failed; ``fraction`` is a random number in [0, 1)."""
    return Outage(now_ms, reason, 1, now_ms + 1000 * delay_s(1, fraction=fraction))


def probe(outage: Outage, *, by_part: bool = False) -> Outage:
    """A request is on its way to see."""
    return replace(outage, is_tried=True) if by_part else replace(outage, is_probed=True)


def unprobe(outage: Outage) -> Outage:
    """The probe ended without having asked the storage."""
    return replace(outage, is_probed=False)


def worsen(outage: Outage, reason: str, *, now_ms: float, fraction: float, by_part: bool = False) -> Outage:
    """A probe failed too. What was under way before the outage began and fails now is no news."""
    if not (outage.is_tried if by_part else outage.is_probed):
        return outage
    outage = replace(outage, is_tried=False) if by_part else replace(outage, is_probed=False)
    failures = outage.failures + 1
    wait_ms = 1000 * delay_s(failures, fraction=fraction)
    return replace(outage, reason=reason, failures=failures, probe_ms=now_ms + wait_ms)
