"""When the next generation of a database may begin: at once after a calm life, later each time after short ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

BASE_DELAY_S = 1.0  # a new generation begins no sooner after the last one began, then twice as late each time …
BASE_DELAY_MAX_S = 3600.0
BASE_CALM_S = 600.0  # … until one has lived for so long, and ten times its delay


def _at_once() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class NextGeneration:
    """What is known of the generation that follows the current one; moments are monotonic seconds.

    ``reason`` is why it begins, empty if nothing ended. ``may_begin`` is asked before it begins: not before storage
    is back, if the spool was dropped.
    """

    reason: str = ""
    not_before_s: float = 0.0
    delay_s: float = 0.0
    began_s: float = 0.0
    may_begin: Callable[[], bool] = _at_once

    def after_end(self, reason: str, now_s: float, *, may_begin: Callable[[], bool] = _at_once) -> NextGeneration:
        """The current one ended."""
        is_calm = now_s - self.began_s > max(BASE_CALM_S, 10 * self.delay_s)
        doubled = min(BASE_DELAY_MAX_S, max(BASE_DELAY_S, self.delay_s * 2))
        delay_s = BASE_DELAY_S if is_calm else doubled
        return replace(self, reason=reason, delay_s=delay_s, not_before_s=self.began_s + delay_s, may_begin=may_begin)

    def after_begin(self, now_s: float) -> NextGeneration:
        """It began."""
        return replace(self, began_s=now_s, may_begin=_at_once)

    def wait_s(self, now_s: float) -> float:
        """For how long it has to wait yet."""
        return max(0.0, self.not_before_s - now_s)
