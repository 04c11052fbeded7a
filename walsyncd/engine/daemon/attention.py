"""Reports what databases wait for: a look that is due, a base that stores their changes, a WAL that restarts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.schedule import Schedule
from walsyncd.engine.threads.stall_detector import StallDetector


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """The waits of one database, in seconds (0 if it does not wait), what hinders its base, and what may be slow.

    ``DatabaseStatus`` has fields of the same names, and explains them.
    """

    unseen_s: float = 0.0
    unbased_s: float = 0.0
    base_waits_s: float = 0.0
    base_hindrance: str = ""
    reads_whole: str = ""


class Attention:
    """Reports the waits. Any thread may ask. ``databases`` returns the followed databases."""

    def __init__(
        self, schedule: Schedule, stalls: StallDetector, databases: Callable[[], Iterable[FollowedDatabase]]
    ) -> None:
        self._schedule = schedule
        self._stalls = stalls
        self._databases = databases

    def waits(self) -> dict[str, Waits]:
        """Return what each followed database waits for, by name."""
        unseen_s, now_s = self._schedule.unseen_s(), time.monotonic()
        blind_s = self._stalls.longest_s("watcher")  # no event is delivered meanwhile
        return {
            each.name: Waits(
                unseen_s=max(blind_s, unseen_s.get(each.row_id, 0.0)),
                unbased_s=_since(each.base.unbased_since_s, now_s),
                base_waits_s=_since(each.base.waits_since_s, now_s),
                base_hindrance=each.base.hindrance,
                reads_whole=_reads_whole(each),
            )
            for each in self._databases()
        }


def _reads_whole(tracked: FollowedDatabase) -> str:
    is_rollback = tracked.state is not None and tracked.state.mode == "rollback"
    return tracked.scans.reads_whole() if is_rollback and tracked.scans is not None else ""


def _since(moment_s: float | None, now_s: float) -> float:
    return 0.0 if moment_s is None else max(0.0, now_s - moment_s)
