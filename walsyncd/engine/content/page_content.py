"""The page content of all replicas: the scan thread, the page maps, the bridges, and the epochs begun for bases."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from walsyncd.adapters.journal.journal import Journal, ObjectKind, ObjectRow
from walsyncd.core.follow.gap import Gap
from walsyncd.engine.content.base_maps import BaseMaps
from walsyncd.engine.content.bridges import Bridges
from walsyncd.engine.content.epoch_start import EpochStarts
from walsyncd.engine.content.map_making import MapMaker
from walsyncd.engine.content.page_maps import PageMaps
from walsyncd.engine.content.scan_queue import ScanQueue
from walsyncd.engine.content.scrubs import Scrubs
from walsyncd.engine.follow.environment import Environment
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.follower import Follower
from walsyncd.engine.follow.schedule import Schedule


class PageContent:
    """The page contents of all databases. ``follower`` returns the follower, which is created after this."""

    def __init__(
        self, journal: Journal, environment: Environment, schedule: Schedule, follower: Callable[[], Follower]
    ) -> None:
        self._journal = journal
        self.queue = ScanQueue()
        self._limits = environment.limits
        limits = self._limits
        self.maps = PageMaps(journal, redo_bytes=limits.map_redo_bytes, redo_rows=limits.map_redo_rows)
        self.bridges = Bridges(journal, environment, schedule, self.queue, self.maps)
        self._follower = follower
        retry_s = self._limits.map_retry_s
        self.base_maps = BaseMaps(journal, self.maps)
        self._maker = MapMaker(
            journal,
            self.maps,
            self.queue,
            self.ask,
            boot_id=environment.boot_id,
            base_maps=self.base_maps,
            retry_s=retry_s,
        )
        self.scrubs = Scrubs(journal, environment, schedule, self.queue, self.maps, request=self.ask, heal=self._heal)
        self.epoch_starts = EpochStarts(journal, environment, self.queue, self.ask)
        self._tracked: dict[int, FollowedDatabase] = {}
        self.adopted: Callable[[FollowedDatabase], None] = lambda _tracked: None
        """Called with each database that is adopted."""
        self._stored = 0
        self.maps.sweep()  # removes the files that a crash left

    def take_back(self, tracked: FollowedDatabase) -> int | None:
        """Drop what a database has spooled, so that a bridge replaces it (``Bridges.take_back``).

        Only the follower's thread may call this.
        """
        return self.bridges.take_back(tracked)

    def adopt(self, tracked: FollowedDatabase) -> None:
        """Maintain the map of a database from now on, and make one if it has none."""
        self.adopted(tracked)
        self._tracked[tracked.row_id] = tracked
        self._maker.due(tracked)
        self.scrubs.plan(tracked, tracked.spec.scrub_interval_s, was_away=True)

    def forget(self, tracked: FollowedDatabase) -> None:
        """Drop a database that is not followed any more."""
        self._tracked.pop(tracked.row_id, None)
        self.base_maps.forget(tracked)
        self.scrubs.forget(tracked)
        self.bridges.doubted.pop(tracked.row_id, None)
        self.epoch_starts.forget(tracked)

    def stored(self, row: ObjectRow) -> None:
        """Take in that an object became visible. After a base its map can be made. Segments move rows to map files."""
        tracked = self._tracked.get(row.database_id)
        if row.kind is ObjectKind.MANIFEST and tracked is not None:
            self._maker.due(tracked)
        if row.kind is ObjectKind.SEGMENT and tracked is not None:
            self._maker.stored(tracked)
            self._scrub_after_doubt(tracked)
        if row.kind is ObjectKind.SEGMENT:
            self._stored += 1
            if self._stored % self._limits.map_segments == 0:
                self.queue.call(self.maps.write_due)

    def _scrub_after_doubt(self, tracked: FollowedDatabase) -> None:
        """Compare a doubted file a second time, once the WAL has restarted.

        A page that the WAL holds is not compared before the restart. If all frames were copied back, SQLite never
        copies that page again. If somebody else wrote over the page, readers see that content after the restart.
        """
        doubted, state = self.bridges.doubted.get(tracked.row_id), tracked.state
        if doubted is not None and state is not None and state.cursor is not None and state.cursor.salts != doubted:
            self.bridges.doubted.pop(tracked.row_id, None)
            self.scrubs.now(tracked)

    def ask(self, tracked: FollowedDatabase, then: Callable[[FollowedDatabase], object]) -> Future[Any]:
        """See ``Follower.request``."""
        return self._follower().request(tracked, then)

    def _heal(self, tracked: FollowedDatabase, gap: Gap) -> None:
        self._follower().leave(tracked, gap)
