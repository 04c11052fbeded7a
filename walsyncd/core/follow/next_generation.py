"""When the next generation of a database may begin.

It begins at once after a long generation. After each further short generation it begins later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from walsyncd.core.limits import DEFAULT_LIMITS

# A new generation begins no sooner than ``first_s`` after the last one began. The delay doubles each time, until a
# generation has lasted longer than BASE_CALM_S and than ten times its delay.
BASE_DELAY_MAX_S = 3600.0
BASE_CALM_S = 600.0


def _at_once() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class NextGeneration:
    """The generation that follows the current one, as far as it is known; moments are monotonic seconds.

    ``reason`` is why the next generation begins; it is empty if no generation ended. ``may_begin`` is called before the
    generation begins: if the spool was dropped, for example, it returns False until storage is back. ``is_doubtful``:
    somebody may have written over pages of the file that the WAL has, too (``overwritten``).
    """

    reason: str = ""
    not_before_s: float = 0.0
    delay_s: float = 0.0
    began_s: float = 0.0
    may_begin: Callable[[], bool] = _at_once
    is_doubtful: bool = False

    def after_end(
        self,
        reason: str,
        now_s: float,
        *,
        first_s: float = DEFAULT_LIMITS.generation_delay_s,
        may_begin: Callable[[], bool] = _at_once,
    ) -> NextGeneration:
        """Return what is known after the current generation has ended."""
        is_calm = now_s - self.began_s > max(BASE_CALM_S, 10 * self.delay_s)
        doubled = min(BASE_DELAY_MAX_S, max(first_s, self.delay_s * 2))
        delay_s = first_s if is_calm else doubled
        return replace(self, reason=reason, delay_s=delay_s, not_before_s=self.began_s + delay_s, may_begin=may_begin)

    def after_begin(self, now_s: float) -> NextGeneration:
        """Return what is known after the generation has begun."""
        return replace(self, began_s=now_s, may_begin=_at_once)

    def wait_s(self, now_s: float) -> float:
        """Return for how many seconds the next generation still has to wait."""
        return max(0.0, self.not_before_s - now_s)
