"""Databases that nobody has looked at, although a look is due."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.schedule import Schedule
from walsyncd.engine.threads.stall_detector import StallDetector


class Attention:
    """Any thread asks. ``databases`` gives those that are followed."""

    def __init__(
        self, schedule: Schedule, stalls: StallDetector, databases: Callable[[], Iterable[FollowedDatabase]]
    ) -> None:
        self._schedule = schedule
        self._stalls = stalls
        self._databases = databases

    def unseen_s(self) -> dict[str, float]:
        """By name, for how long something may have been committed that nobody has looked at."""
        waiting_s = self._schedule.unseen_s()
        blind_s = self._stalls.longest_s("watcher")  # no event gets through meanwhile
        return {each.name: max(blind_s, waiting_s.get(each.row_id, 0.0)) for each in self._databases()}
