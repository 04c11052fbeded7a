"""Makes the page map of a database that has none, from the bytes that its base copied (``base_maps``) or by a scan.

The first base of a generation makes the map if it can. Otherwise a scan makes the map, for example if the WAL restarted
while the base was copied, or if the map's file was lost.

Let S be the stored position before frame 1 of the WAL's current incarnation when the first byte is read. Let N be the
position of a look that begins after the last byte is read. If no frame from S through N holds a page, the page's
content does not change, and the file has that content. For the other pages, the redo rows after S hold the entries at
N, and are kept for that purpose. If rows are missing, because an earlier map took them over and was lost, the frames of
the incarnation are read from the WAL instead. So the entries of the file, together with the rows after S, are the map
at N and at every later position, but not at an earlier one: **the map counts only once N is stored**. If the spool is
dropped before that, the follow state and the rows go back to a position before N, but the file keeps content of frames
that are gone.

A scan assumes that the replica is right at that moment. Drills check this assumption.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import structlog

from walsyncd.adapters.files.source import OpenFile, open_file
from walsyncd.adapters.journal.journal import Journal, ObjectKind
from walsyncd.adapters.journal.page_map_file import PageMapWriter
from walsyncd.adapters.journal.page_map_table import NewPageMap, RedoRow
from walsyncd.core.content.bridge_passes import size_without_frames
from walsyncd.core.content.page_entry import ABSENT, entries_of_pages, lock_page
from walsyncd.core.content.redo import SIZE_MAX, Redo, RedoBuilder, apply, nothing_to_redo
from walsyncd.core.follow.follow_state import FollowState
from walsyncd.core.follow.overwritten import copied_back
from walsyncd.core.limits import DEFAULT_LIMITS
from walsyncd.core.send.backoff import delay_s
from walsyncd.core.stored.base import BASE_BYTES_MAX
from walsyncd.core.stored.position import Position
from walsyncd.engine.content.base_maps import BaseMap, BaseMaps
from walsyncd.engine.content.bridge_sources import frames_upto
from walsyncd.engine.content.map_sealing import MapSealing, UnsealedMap
from walsyncd.engine.content.page_maps import PageMaps
from walsyncd.engine.content.scan_queue import BLOCK_BYTES, ScanQueue, ScanSteps, ScanWait
from walsyncd.engine.follow.file_facts import database_identity, file_facts, page_size_of
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.threads.boundary import boundary
from walsyncd.errors import TransientError, WalsyncdError

RETRY_S_MAX = 60.0
POLL_S = 0.05  # the pause between two checks whether the follower has answered
STORED_POLL_S = 1.0
STORED_WAIT_S = 600.0  # after this time the next attempt begins at a later S, and its N may be stored sooner

Request = Callable[[FollowedDatabase, Callable[[FollowedDatabase], object]], "Future[Any]"]

_log = structlog.get_logger()


class _NotYetError(WalsyncdError):
    """The map can't be made before the next commit."""


@dataclass(frozen=True, slots=True)
class ScanOrigin:
    """The position of a database after a look that caught up.

    ``unbroken`` stays equal as long as nothing is missed after that position.
    """

    state: FollowState
    unbroken: tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class ScanStart:
    """The origin of a scan, and the WAL if its current incarnation has frames. ``close_wal`` closes the WAL.

    The first ``copied_upto`` of these frames are certainly in the file.
    """

    origin: ScanOrigin
    wal: OpenFile | None
    copied_upto: int = 0


def start_of(tracked: FollowedDatabase) -> ScanStart | None:
    """Return the start of a scan that also reads the WAL, or None if the file can't be compared now.

    Only the follower's thread may call this.
    """
    origin = origin_of(tracked)
    if origin is None:
        return None
    cursor, pair = origin.state.cursor, tracked.wal_pairs.current
    if cursor is None or not cursor.frames:
        return ScanStart(origin, None)
    if pair is None:
        return None
    return ScanStart(origin, pair.wal.duplicate(), copied_back(pair.live_index(), cursor))


def close_wal(answer: Future[Any]) -> None:
    """Close the WAL of the ``ScanStart`` that a request was answered with, if there is one."""
    if not answer.cancelled() and answer.exception() is None and answer.result() is not None:
        wal = answer.result().wal
        if wal is not None:
            wal.close()


def origin_of(tracked: FollowedDatabase) -> ScanOrigin | None:
    """Return the origin of a scan, or None if the file can't be compared now.

    Only the follower's thread may call this.
    """
    state = tracked.state
    if state is None or state.mode != "wal" or tracked.bridge is not None:
        return None
    return ScanOrigin(state, tracked.unbroken(state.stream.generation))


class MapMaker:
    """Makes maps in the scan thread. ``request`` reaches the follower. ``base_maps`` has the maps that bases made."""

    def __init__(
        self,
        journal: Journal,
        maps: PageMaps,
        queue: ScanQueue,
        request: Request,
        *,
        boot_id: str,
        base_maps: BaseMaps | None = None,
        retry_s: float = DEFAULT_LIMITS.map_retry_s,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self._journal = journal
        self._base_maps = base_maps or BaseMaps(journal, maps)
        self._sealing = MapSealing(journal)
        self._maps = maps
        self._queue = queue
        self._request = request
        self._boot_id = boot_id
        self._retry_s, self._block_bytes = retry_s, block_bytes
        self._under_way: set[int] = set()
        self._failures: dict[int, int] = {}
        self._waiting: set[int] = set()
        """Databases whose map can't be made before the next segment. Nothing wakes the daemon for them."""

    def due(self, tracked: FollowedDatabase, delay_s: float = 0.0) -> None:
        """Make the map of this database if it has none, in ``delay_s`` seconds. Any thread may call this."""
        self._queue.add(self._steps(tracked), delay_s=delay_s)

    def stored(self, tracked: FollowedDatabase) -> None:
        """Try again to make a map that could not be made before, because a segment of the database became visible.

        Any thread may call this.
        """
        if tracked.row_id in self._waiting:
            self._waiting.discard(tracked.row_id)
            self.due(tracked)

    def _steps(self, tracked: FollowedDatabase) -> ScanSteps:
        if tracked.row_id in self._under_way or tracked.mailbox.dismissed or not self._is_wanted(tracked):
            return
        self._under_way.add(tracked.row_id)
        try:
            with boundary("make a page map", database=tracked.name):
                yield from self._make(tracked)
            self._failures.pop(tracked.row_id, None)
        except _NotYetError as error:
            self._waiting.add(tracked.row_id)
            _log.debug("page_map_not_made", database=tracked.name, reason=error.message)
        except WalsyncdError as error:
            failures = self._failures[tracked.row_id] = self._failures.get(tracked.row_id, 0) + 1
            wait_s = delay_s(failures, fraction=1.0, base_s=self._retry_s, cap_s=RETRY_S_MAX)
            _log.info("page_map_not_made", database=tracked.name, reason=error.message, next_try_in_s=wait_s)
            self.due(tracked, wait_s)
        finally:
            self._under_way.discard(tracked.row_id)

    def _is_wanted(self, tracked: FollowedDatabase) -> bool:
        row = self._journal.database_by_id(tracked.row_id)
        if not row.has_base:
            return False  # ``due`` is called again after the first base of the generation
        if self._journal.page_map(tracked.row_id) is None:
            return True
        self._base_maps.forget(tracked)
        return False

    def _make(self, tracked: FollowedDatabase) -> ScanSteps:
        if (taken := self._base_maps.take(tracked.row_id)) is not None:
            try:
                yield from self._of_base(tracked, taken)
            except TransientError as error:
                _log.info("page_map_not_made", database=tracked.name, reason=error.message)
            else:
                return
            finally:
                self._base_maps.dropped(taken)
        answer = self._request(tracked, start_of)
        try:
            yield from answered(answer)
            start: ScanStart | None = answer.result()
            if start is None:
                if tracked.bridge is None:
                    raise _NotYetError("the database is not in WAL mode")
                raise TransientError("a gap is being bridged")
            page_size = _page_size(tracked, start.origin.state)
            frames, before = yield from self._frames(tracked, start, page_size)
        finally:
            answer.add_done_callback(close_wal)
        yield from self._scan(tracked, start.origin, page_size, frames, before)

    def _of_base(self, tracked: FollowedDatabase, taken: BaseMap) -> ScanSteps:
        """Make the map from a base's entries, once its N is stored. Raises TransientError if a scan is needed."""
        entries, end = taken.entries, taken.end
        assert end is not None, "a map that is kept has an end"
        yield from self._stored(tracked, end, taken.unbroken)
        span, page_size, file_bytes = (taken.before, end), entries.page_size, entries.reached
        size = yield from self._finish(tracked, entries.writer, page_size, span, taken.page_1, file_bytes)
        _log.info("page_map_made", database=tracked.name, by="base", pages=size)

    def _frames(
        self, tracked: FollowedDatabase, start: ScanStart, page_size: int
    ) -> Generator[ScanWait, None, tuple[Redo, Position]]:
        """Return the changes that were read from the WAL's frames after S, and the position after which rows count.

        The changes are empty, and that position is S, if the redo rows cover all frames after S.
        """
        state = start.origin.state
        rows = [row for row in self._journal.redo_rows(tracked.row_id) if _is_after(row, state.start)]
        if start.wal is None or state.cursor is None or follows(rows, state.start, state.stream.position):
            return nothing_to_redo(), state.start
        if state.overwritten is not None and state.overwritten.frames:
            raise TransientError("somebody wrote over pages that the WAL has, and SQLite reads those of the file")
        redo = RedoBuilder(page_size)
        for frames in frames_upto(start.wal, state.cursor):
            redo.add(frames)
            yield ScanWait(len(frames.data))
        return redo.finish(), state.stream.position

    def _scan(
        self, tracked: FollowedDatabase, origin: ScanOrigin, page_size: int, frames: Redo, before: Position
    ) -> ScanSteps:
        began_s = time.monotonic()
        file = open_file(tracked.path)
        if file is None:
            raise TransientError(f"{tracked.path} does not exist")
        with file:
            if not origin.state.file.is_file(file_facts(file.identity(), self._boot_id, None)):
                raise TransientError("another file was put in the database's place")
            if file.size() > BASE_BYTES_MAX:
                raise TransientError(f"its {file.size()} bytes are more than one object in S3 can hold")
            self._journal.redo_forgotten(tracked.row_id, before)
            with self._maps.writer(tracked.row_id, page_size) as writer:
                count, at = file.size() // page_size, 1
                page_1 = file.pread(0, page_size)
                end_page = max(count, int(frames.pages[-1]) if len(frames.pages) else 0)
                while at <= end_page:
                    pages = min(end_page - at + 1, max(1, self._block_bytes // page_size))
                    block = file.pread((at - 1) * page_size, pages * page_size).ljust(pages * page_size, b"\0")
                    entries = entries_of_pages(block, page_size)
                    entries[max(0, count + 1 - at) :] = ABSENT
                    entries = apply(frames, entries, at)
                    if at <= lock_page(page_size) < at + pages:
                        entries[lock_page(page_size) - at] = ABSENT
                    writer.add(entries)
                    at += pages
                    yield ScanWait(len(block))
                if not file.still_named():
                    raise TransientError("another file was put in the database's place")
                answer = self._request(tracked, origin_of)
                yield from answered(answer)
                end = answer.result()
                if end is None or end.unbroken != origin.unbroken:
                    raise TransientError("something was missed while the file was read")
                position = end.state.stream.position
                yield from self._stored(tracked, position, end.unbroken)
                span = (before, position)
                size = yield from self._finish(tracked, writer, page_size, span, page_1, file.size(), frames.size)
        seconds = round(time.monotonic() - began_s, 3)
        _log.info("page_map_made", database=tracked.name, by="scan", pages=size, seconds=seconds)

    def _finish(
        self,
        tracked: FollowedDatabase,
        writer: PageMapWriter,
        page_size: int,
        span: tuple[Position, Position],
        page_1: bytes,
        file_bytes: int,
        size: int = SIZE_MAX,
    ) -> Generator[ScanWait, None, int]:
        """Make ``writer``'s entries, together with the rows of the frames in ``span``, the database's map.

        Returns the size of the database in pages. ``size`` is its size before these frames, if that is known.
        """
        before, end = span
        rows = [row for row in self._journal.redo_rows(tracked.row_id) if _is_after(row, before)]
        upto = [row for row in rows if (row.epoch, row.last) <= (end.epoch, end.frame)]
        if not follows(upto, before, end):
            raise TransientError("what the last frames changed is not known")
        size = upto[-1].redo.size if upto else size
        if size == SIZE_MAX:
            size = size_without_frames(page_1, file_bytes, page_size)
        new = NewPageMap(tracked.row_id, end.generation, writer.map_id, page_size, before)
        yield from self._sealing.seal(UnsealedMap(new, writer, size))
        return size

    def _stored(self, tracked: FollowedDatabase, position: Position, unbroken: tuple[str, int, int]) -> ScanSteps:
        """Wait until everything up to ``position`` is stored."""
        until_s = time.monotonic() + STORED_WAIT_S
        while any(
            row.kind is ObjectKind.SEGMENT and (row.epoch, row.first) <= (position.epoch, position.frame)
            for row in self._journal.pending(tracked.row_id)
        ):
            if time.monotonic() > until_s:
                raise TransientError("what was committed while the file was read is not stored yet")
            yield ScanWait(until_s=time.monotonic() + STORED_POLL_S)
        if tracked.unbroken(position.generation) != unbroken:
            raise TransientError("something was missed while the file was read")


def _page_size(tracked: FollowedDatabase, state: FollowState) -> int:
    found = page_size_of(tracked, state)
    if found is None:
        database_identity(tracked)  # raises another error if the file is gone, since then no commit will come
        raise _NotYetError("the page size is not known before the first commit")
    return found


def answered(answer: Future[Any]) -> ScanSteps:
    """Yield until the follower has answered."""
    while not answer.done():
        yield ScanWait(until_s=time.monotonic() + POLL_S)


def _is_after(row: RedoRow, start: Position) -> bool:
    return (row.epoch, row.last) > (start.epoch, start.frame)


def follows(rows: Sequence[RedoRow], start: Position, end: Position) -> bool:
    """Whether ``rows`` cover every frame after ``start`` up to ``end``."""
    epoch, frame = start.epoch, start.frame
    for row in rows:
        if (row.epoch, row.first) not in {(epoch, frame + 1), (epoch + 1, 1)}:
            return False
        epoch, frame = row.epoch, row.last
    return (epoch, frame) == (end.epoch, end.frame) or (epoch + 1, 0) == (end.epoch, end.frame)
