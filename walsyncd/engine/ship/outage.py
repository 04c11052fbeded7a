"""A storage outage: since when, why, and when the next request may try.

One failed request is not an outage: its queue, or its base, tries again, and nothing else waits. The storage counts as
away when requests of ``DATABASES_MIN`` databases have failed and no request was answered since. If only one database
has requests, ``FAILURES_MIN`` failed ones are enough. Until a second database confirms the outage, the queues of the
other databases still try. The scheduler calls that a second opinion.

During an outage one request at a time probes the storage and the others wait, so that the workers do not all load the
storage. A base's part may be a probe as well, but no queue waits for its result, because the part can take minutes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from walsyncd.core.send.backoff import delay_s

DATABASES_MIN = 2  # databases that fail one after the other, with no request answered in between
FAILURES_MIN = 3  # failures of one database: with back-off they take a second or two, unless each one times out


@dataclass(frozen=True, slots=True)
class Outage:
    """An outage since ``since_ms``. The next probe may begin at ``probe_ms``. Both are of the monotonic clock.

    ``is_probed`` means that a request is under way as a probe, ``is_tried`` that a base's part is.
    """

    since_ms: float
    reason: str
    failures: int
    probe_ms: float
    is_probed: bool = False
    is_tried: bool = False


def begin(reason: str, *, now_ms: float, fraction: float) -> Outage:
    """Begin an outage after the first failed request; ``fraction`` is a random number in [0, 1)."""
    return Outage(now_ms, reason, 1, now_ms + 1000 * delay_s(1, fraction=fraction))


def probe(outage: Outage, *, by_part: bool = False) -> Outage:
    """Note that a probe is under way."""
    return replace(outage, is_tried=True) if by_part else replace(outage, is_probed=True)


def unprobe(outage: Outage) -> Outage:
    """Note that the probe ended without a request to the storage."""
    return replace(outage, is_probed=False)


def worsen(outage: Outage, reason: str, *, now_ms: float, fraction: float, by_part: bool = False) -> Outage:
    """Note that a probe failed too. A request that was under way before the outage began changes nothing by failing."""
    if not (outage.is_tried if by_part else outage.is_probed):
        return outage
    outage = replace(outage, is_tried=False) if by_part else replace(outage, is_probed=False)
    failures = outage.failures + 1
    wait_ms = 1000 * delay_s(failures, fraction=fraction)
    return replace(outage, reason=reason, failures=failures, probe_ms=now_ms + wait_ms)
