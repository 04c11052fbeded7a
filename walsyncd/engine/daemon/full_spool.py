"""Decides what happens when the spool is full: the follower waits, or during an outage databases lose their spool.

Objects whose upload has not begun are dropped, and the gap that this makes is bridged when storage is back. If the gap
can't be bridged, because the database has no page map or no base, its generation ends.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import structlog

from walsyncd.adapters.journal.journal import Journal
from walsyncd.adapters.system import clock
from walsyncd.core.follow.gap import Gap
from walsyncd.engine.daemon.databases import Databases
from walsyncd.engine.daemon.destinations import Destinations
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.follower import Follower
from walsyncd.engine.ship.spool_limit import SpoolLimit

_log = structlog.get_logger()


class FullSpool:
    """Decides about a full spool. The follower asks before each round."""

    def __init__(
        self,
        journal: Journal,
        limit: SpoolLimit,
        *,
        destinations: Callable[[], Destinations],
        databases: Callable[[], Databases],
    ) -> None:
        self._journal = journal
        self._limit = limit
        self._destinations = destinations
        self._databases = databases

    def must_wait(self, follower: Follower) -> bool:
        """Whether the follower has to wait. The largest spools for a storage that is away are dropped instead."""
        if not self._limit.is_full():
            return False
        if all(each.uploader.outage() is None for each in self._destinations().all()):
            return True
        dropped = self._limit.giving_way(lambda each: not self._is_answering(each))
        for database_id, gap in dropped.items():
            tracked = self._databases().get(database_id)
            freed = self._taken_back(tracked, gap, follower) if tracked is not None else 0
            if not freed:
                freed = self._dropped(database_id, tracked, gap, follower)
            name = tracked.name if tracked else database_id
            _log.error("spool_dropped", database=name, bytes=freed, reason=gap.reason)
        return not dropped  # then the spool is full of objects that an answering storage takes

    def _taken_back(self, tracked: FollowedDatabase, gap: Gap, follower: Follower) -> int:
        """Drop what is not begun; the gap is bridged when storage is back. Returns the number of bytes freed."""
        destination = self._destinations().of(tracked.row_id)
        freed = destination.content.take_back(tracked)
        if freed is None:
            return 0
        follower.leave(tracked, gap)
        if tracked.bridge is not None:
            tracked.bridge.wait_for(partial(self._is_answering, tracked.row_id), "storage is back")
        destination.uploader.abort_leftovers()
        return freed

    def _dropped(self, database_id: int, tracked: FollowedDatabase | None, gap: Gap, follower: Follower) -> int:
        """End the generation, and drop all that is spooled. Returns the number of bytes freed."""
        if tracked is not None:
            follower.give_way(tracked, gap, until=partial(self._is_answering, database_id))
        else:
            self._journal.end_generation(database_id, gap, clock.wall_ms())
        return self._destinations().of(database_id).uploader.drop_spool(database_id)

    def has_too_much(self, database_id: int) -> bool:
        """Whether a database has to wait, because the rest of the spool is for the others."""
        return self._limit.has_too_much(database_id) and self._is_answering(database_id)

    def _is_answering(self, database_id: int) -> bool:
        """Whether this database's storage is not away."""
        return self._destinations().of(database_id).uploader.outage() is None
