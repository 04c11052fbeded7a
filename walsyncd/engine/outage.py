"""A storage that is away: since when, why, and when the next one may try.

While it is away one request at a time probes it; the others wait, instead of all workers hammering it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from walsyncd.core.backoff import delay_s


@dataclass(frozen=True, slots=True)
class Outage:
    """``since_ms`` and ``probe_ms`` by the monotonic clock; ``is_probed``: a request is under way."""

    since_ms: float
    reason: str
    failures: int
    probe_ms: float
    is_probed: bool = False


def begin(reason: str, *, now_ms: float, fraction: float) -> Outage:
    """The first request failed; ``fraction`` is a random number in [0, 1)."""
    return Outage(now_ms, reason, 1, now_ms + 1000 * delay_s(1, fraction=fraction))


def probe(outage: Outage) -> Outage:
    """A request is on its way to see."""
    return replace(outage, is_probed=True)


def unprobe(outage: Outage) -> Outage:
    """The probe ended without having asked the storage."""
    return replace(outage, is_probed=False)


def worsen(outage: Outage, reason: str, *, now_ms: float, fraction: float) -> Outage:
    """A probe failed too. What was under way before the outage began and fails now is no news."""
    if not outage.is_probed:
        return outage
    failures = outage.failures + 1
    wait_ms = 1000 * delay_s(failures, fraction=fraction)
    return replace(outage, reason=reason, failures=failures, probe_ms=now_ms + wait_ms, is_probed=False)
