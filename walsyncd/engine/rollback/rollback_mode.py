"""All databases in rollback mode: each has its scans and scrubs, and gaps that lead into rollback mode are bridged."""

from __future__ import annotations

from dataclasses import replace

from walsyncd.adapters.journal.journal import Journal
from walsyncd.core.follow.gap import Gap
from walsyncd.engine.content.page_content import PageContent
from walsyncd.engine.follow.begin_generation import is_in_rollback_mode
from walsyncd.engine.follow.environment import Environment
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.schedule import Schedule
from walsyncd.engine.rollback.database_scans import DatabaseScans
from walsyncd.engine.rollback.file_scrub import FileScrub
from walsyncd.engine.rollback.rollback_bridge import RollbackBridge
from walsyncd.engine.rollback.rollback_look import has_page_size
from walsyncd.engine.rollback.scanning import Scanning, ScanTools
from walsyncd.engine.rollback.shipped_moment import ShippedMoments


class RollbackMode:
    """Everything about rollback mode, for all databases of the process. It adopts each one that ``content`` adopts."""

    def __init__(self, journal: Journal, environment: Environment, schedule: Schedule, content: PageContent) -> None:
        self._tools = ScanTools(journal, environment, schedule, content.queue, content.maps)
        self._bridges = content.bridges
        content.adopted = self.adopt
        content.scrubs.without_wal = FileScrub(
            environment, content.maps, ShippedMoments(environment, content.ask)
        ).steps

    def adopt(self, tracked: FollowedDatabase) -> None:
        """Scan the database from now on while it is in rollback mode."""
        tracked.scans = DatabaseScans(self._tools, tracked)

    def begin_bridge(self, tracked: FollowedDatabase, gap: Gap) -> bool:
        """Bridge a gap, whatever mode the database is in now. Returns False if a base is needed.

        Only the follower's thread may call this.
        """
        bridge = tracked.bridge
        is_rollback = is_in_rollback_mode(tracked)
        if bridge is not None and bridge.has_other_mode and bridge.is_for_wal and not has_page_size(tracked):
            return False  # the file is encrypted and not in WAL mode, so neither kind of bridge can be built
        has_other_mode = bridge is not None and (bridge.has_other_mode or bridge.is_for_wal is is_rollback)
        if bridge is not None and not has_other_mode:
            if not bridge.is_impossible:
                bridge.gap_again(gap)
            return not bridge.is_impossible
        old = bridge.old if bridge is not None else tracked.state
        page_map = self._bridges.map_for(tracked, old.stream.generation) if old is not None else None
        if old is None or page_map is None:
            return False
        if bridge is not None:
            gap = bridge.gap
        if not is_rollback:
            return self._bridges.begin(tracked, gap, old)
        bridge = RollbackBridge(
            Scanning(self._tools, tracked),
            old=replace(old, gap=gap),
            gap=gap,
            page_size=page_map.page_size,
            proven_ms=max(tracked.proven_ms, old.stream.time_ms),
            suspect=self._bridges.suspect(page_map, old, gap),
        )
        self._bridges.enter(tracked, bridge)
        return True
