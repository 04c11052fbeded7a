"""Decides whether a gap can be bridged, and with which page map the file is compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import structlog

from walsyncd.adapters.journal.journal import Journal
from walsyncd.adapters.journal.page_map_table import PageMapRow
from walsyncd.core.content.comparison import Cipher
from walsyncd.core.follow.follow_state import FollowState, Stream, format_follow_state, parse_follow_state
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.sqlite.wal import Salts
from walsyncd.core.stored.base import BASE_BYTES_MAX
from walsyncd.core.stored.bridge import SuspectSpan
from walsyncd.engine.content.bridge_body import BridgeBody, BridgeImpossibleError
from walsyncd.engine.content.gap_bridge import GapBridge
from walsyncd.engine.content.page_maps import PageMaps
from walsyncd.engine.content.scan_queue import ScanQueue
from walsyncd.engine.follow.environment import Environment
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.schedule import Schedule
from walsyncd.engine.follow.step import Bridging

DATABASE_SHARE = 2  # a bridge larger than 1/DATABASE_SHARE of the database is dropped, because a base costs less

_log = structlog.get_logger()


class Bridges:
    """Begins bridges. Only the follower's thread may call ``begin``."""

    def __init__(
        self, journal: Journal, environment: Environment, schedule: Schedule, queue: ScanQueue, maps: PageMaps
    ) -> None:
        self._journal = journal
        self._environment = environment
        self._schedule = schedule
        self._queue = queue
        self._maps = maps
        self.doubted: dict[int, Salts] = {}
        """The salts of the WAL's incarnation in which something other than SQLite seems to have written to the
        database, by the database's row id."""

    def begin(self, tracked: FollowedDatabase, gap: Gap, state: FollowState) -> bool:
        """Begin to bridge the gap after ``state``. Returns False if a base is needed.

        The new bridge replaces a bridge that is under way.
        """
        page_map = self.map_for(tracked, state.stream.generation)
        if page_map is None:
            return False
        if gap.kind is GapKind.DOUBT and state.cursor is not None:
            self.doubted[tracked.row_id] = state.cursor.salts
        old = replace(state, gap=gap)
        bridge = GapBridge(
            tracked,
            self._environment,
            self._schedule,
            self._queue,
            self._opener(tracked, old),
            old=old,
            gap=gap,
            page_size=page_map.page_size,
            proven_ms=max(tracked.proven_ms, state.stream.time_ms),
            is_stable=page_map.cipher is Cipher.STABLE,
            suspect=self.suspect(page_map, state, gap),
        )
        self.enter(tracked, bridge)
        return True

    def enter(self, tracked: FollowedDatabase, bridge: Bridging) -> None:
        """Begin ``bridge``. Its gap is kept in the follow state, so that a restart bridges it again."""
        old, gap = bridge.old, bridge.gap
        page_map = self._journal.page_map(tracked.row_id)
        if page_map is not None and page_map.cipher is Cipher.UNKNOWN:
            self._journal.note_cipher(tracked.row_id, Cipher.RESTORED)
        self._journal.gap_found(tracked.row_id, format_follow_state(old))
        tracked.begin_bridge(bridge)
        self._schedule.at(tracked, 0)
        position = str(old.stream.position)
        _log.warning("gap_found", database=tracked.name, position=position, kind=str(gap.kind), reason=gap.reason)

    def take_back(self, tracked: FollowedDatabase) -> int | None:
        """Drop what the database has spooled, except for objects whose upload has begun.

        Returns the number of bytes freed. The caller reports the resulting gap. Returns None, and drops nothing, if
        such a gap can't be bridged.
        """
        generation = tracked.generation
        if generation is None or self.map_for(tracked, generation) is None:
            return None
        freed = self._journal.take_back(tracked.row_id)
        if freed is None:
            return None
        row = self._journal.database_by_id(tracked.row_id)
        assert row.follow is not None
        tracked.go_back(parse_follow_state(row.follow), row.rewinds)
        return freed

    def map_for(self, tracked: FollowedDatabase, generation: str) -> PageMapRow | None:
        """Return the map to compare with, or None if the generation lacks a map or a base to add a bridge to."""
        row, page_map = self._journal.database_by_id(tracked.row_id), self._journal.page_map(tracked.row_id)
        is_usable = page_map is not None and page_map.generation == generation
        return page_map if is_usable and (row.base_key or "").startswith(generation) else None

    def suspect(self, page_map: PageMapRow, state: FollowState, gap: Gap) -> SuspectSpan | None:
        """Return the positions since the last good scrub, which are suspect if a scrub has found a difference."""
        if gap.kind is not GapKind.DIFFERS:
            return None
        scrub = self._journal.last_scrub(page_map.database_id)
        pages = max(1, scrub.differing) if scrub is not None else 1
        epoch, frame, time_ms = page_map.scanned_epoch, page_map.scanned_frame, page_map.scanned_ms
        if not epoch:  # this generation has had no scrub yet
            epoch, frame, time_ms = 1, 0, self._journal.generations(page_map.database_id)[-1].began_ms
        position = state.stream.position
        epoch, frame = min((epoch, frame), (position.epoch, position.frame))  # the spool may have been read again
        return SuspectSpan(epoch, frame, time_ms, pages)

    def _opener(self, tracked: FollowedDatabase, old: FollowState) -> Callable[[Stream, int], BridgeBody]:
        def open_body(stream: Stream, file_bytes: int) -> BridgeBody:
            if file_bytes > BASE_BYTES_MAX:  # the file may be sparse: nothing of it is read, and the base reports why
                raise BridgeImpossibleError(f"its {file_bytes} bytes are more than one object in S3 can hold")
            page_map = self._maps.open(tracked.row_id)
            if page_map is None or page_map.row.generation != old.stream.generation:
                raise BridgeImpossibleError("there is no page map")
            return BridgeBody(
                self._journal,
                page_map,
                stream,
                self._environment.salts(),
                pages_bytes_max=file_bytes // DATABASE_SHARE,
                body_bytes_max=self._environment.body_bytes_max(),
                limits=self._environment.limits,
            )

        return open_body
