"""How long to wait before trying again: exponential, with full jitter, capped.

Attempt ``n`` (from 1) waits a random time between 0 and ``min(cap, base * 2^(n-1))``. Full jitter spreads clients
that failed together over the whole span, so that they do not retry together.
"""

from __future__ import annotations

BASE_S = 0.5  # two requests take about this long, and nobody notices a shorter outage
CAP_S = 60.0  # an uploader may notice this late that storage is back
_DOUBLINGS_MAX = 32  # far above every cap; keeps 2^n a small number


def delay_s(attempt: int, *, fraction: float, base_s: float = BASE_S, cap_s: float = CAP_S) -> float:
    """Return the seconds to wait before the next try, after ``attempt`` failures in a row (from 1).

    ``fraction`` is a random number in [0, 1) that the caller has drawn.
    """
    assert attempt >= 1, "nothing failed yet"
    assert 0.0 <= fraction <= 1.0, "not a fraction"
    return fraction * min(cap_s, base_s * 2.0 ** min(attempt - 1, _DOUBLINGS_MAX))
