"""What happens when the spool is full: following waits, or, while the storage is away, somebody gives way."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from walsyncd.adapters.journal.journal import Journal
from walsyncd.engine.daemon.databases import Databases
from walsyncd.engine.follow.follower import Follower
from walsyncd.engine.ship.spool_limit import SpoolLimit
from walsyncd.engine.ship.uploader import Uploader

_log = structlog.get_logger()


class FullSpool:
    """Called by the follower before each round. ``uploader`` is the one of the storage that is used now."""

    def __init__(
        self,
        journal: Journal,
        limit: SpoolLimit,
        *,
        uploader: Callable[[], Uploader],
        databases: Callable[[], Databases],
    ) -> None:
        self._journal = journal
        self._limit = limit
        self._uploader = uploader
        self._databases = databases

    def must_wait(self, follower: Follower) -> bool:
        """Whether the follower has to wait; with storage away, the largest spools are dropped instead."""
        if not self._limit.is_full():
            return False
        if self._uploader().outage() is None:
            return True
        for database_id, gap in self._limit.giving_way().items():
            tracked = self._databases().get(database_id)
            if tracked is not None:
                follower.give_way(tracked, gap, until=lambda: self._uploader().outage() is None)
            else:
                self._journal.end_generation(database_id, gap, time.time_ns() // 1_000_000)
            freed = self._uploader().drop_spool(database_id)
            name = tracked.name if tracked else database_id
            _log.error("spool_dropped", database=name, bytes=freed, reason=gap.reason)
        return False
