"""Runs the scans of one database, one at a time. The follower orders each scan, and takes its result when it is done.

Both the scans of a followed database and the scan of a bridge into rollback mode run in this way.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from walsyncd.adapters.journal.journal import Journal
from walsyncd.core.follow.follow_state import FollowState, Stream
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.send.scan_pace import ScanPace
from walsyncd.core.stored.bridge import BridgeSpan
from walsyncd.engine.content.bridge_body import BridgeBody, BridgeImpossibleError, KnownPages
from walsyncd.engine.content.page_maps import PageMaps
from walsyncd.engine.content.scan_queue import ScanQueue
from walsyncd.engine.follow.environment import Environment
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.schedule import Schedule
from walsyncd.engine.rollback.committed_moment import Hindrance
from walsyncd.engine.rollback.page_scan import PageScan, ScanOrder, ScanResult
from walsyncd.engine.rollback.pages_to_read import PagesToRead

# The findings after which the pages of the database are no longer followed by scans, with their texts.
GAPS = {
    Hindrance.WAL: "the database changed to WAL mode",
    Hindrance.PAGE_SIZE: "the page size changed",
    Hindrance.UNREADABLE: "the first page was encrypted, or damaged",
}


@dataclass(frozen=True, slots=True)
class ScanTools:
    """The parts that all scans of the process share."""

    journal: Journal
    environment: Environment
    schedule: Schedule
    queue: ScanQueue
    maps: PageMaps


class Scanning:
    """The scans of ``tracked``, of which at most one is under way. Only the follower's thread may use this."""

    def __init__(self, tools: ScanTools, tracked: FollowedDatabase) -> None:
        self.tools = tools
        self.tracked = tracked
        self.pace = ScanPace()
        self.hindrance: Hindrance | None = None
        """Why the last scan had no result, or None if it had one."""
        self._attempt = 0
        """The number of scans so far. Only the result of the last scan is valid."""
        self._answer: Future[ScanResult] | None = None
        self._is_early = False
        self._is_here = False
        """Whether the follower's thread takes the scan's first step now."""
        self._ticket = 0

    @property
    def is_under_way(self) -> bool:
        """Whether a scan was ordered whose result was not taken yet."""
        return self._answer is not None

    @property
    def is_done(self) -> bool:
        """Whether the result of the scan under way is there."""
        return self._answer is not None and self._answer.done()

    @property
    def has_result(self) -> bool:
        """Whether the scan under way is done, and has found a committed state."""
        answer = self._answer
        return answer is not None and answer.done() and answer.exception() is None and not answer.result().hindrance

    def wait_s(self, *, is_early: bool = False) -> float:
        """Return for how many seconds to wait before the next scan.

        ``is_early`` says that the scan will not read all pages of a large file.
        """
        tracked = self.tracked
        now_ms, interval_ms = self._now_ms(), 1000 * tracked.spec.upload_interval_s
        is_asked = tracked.mailbox.asked() > 0
        return self.pace.wait_ms(now_ms, interval_ms, is_asked=is_asked, is_early=is_early) / 1000

    def begin(
        self,
        stream: Stream,
        page_size: int,
        pages: PagesToRead,
        *,
        other: KnownPages | None = None,
        has_map: bool = True,
        span: Callable[[], BridgeSpan | None] = lambda: None,
        is_early: bool = False,
        is_short: bool = False,
    ) -> None:
        """Order a scan. Its transaction follows ``stream``, and also ships the pages that differ from ``other``.

        ``has_map`` is False if there is no page map yet, so that only ``other`` says what the replica holds.
        ``is_early`` says that ``pages`` will not be all pages of a large file.

        A scan that ``is_short`` is probably over within its first step. That step is taken here, because waking the
        scan thread, and being woken by it, costs as much as the step. The scan thread takes the remaining steps.
        """
        self._attempt, self._is_early = self._attempt + 1, is_early
        attempt, answer = self._attempt, Future[ScanResult]()
        self._answer, self._ticket = answer, self.tracked.mailbox.ticket()
        order = ScanOrder(
            tracked=self.tracked,
            stream=stream,
            page_size=page_size,
            pages=pages,
            body=self._opener(stream, other, has_map=has_map),
            is_current=lambda: attempt == self._attempt,
            span=span,
        )
        steps = PageScan(self.tools.environment, order, answer, self._wake).steps()
        self._is_here = is_short
        try:
            is_over = is_short and next(steps, None) is None
        finally:
            self._is_here = False
        if not is_over:
            self.tools.queue.add(steps, urgent=True)

    def take(self) -> ScanResult:
        """Take the result of the scan that is done. Raises the error that the scan met."""
        answer, self._answer = self._answer, None
        assert answer is not None
        found, now_ms, interval_ms = answer.result(), self._now_ms(), 1000 * self.tracked.spec.upload_interval_s
        took_ms, self.hindrance = 1000 * found.took_s, found.hindrance
        if found.hindrance is None:
            self.pace = self.pace.accepted(
                now_ms, interval_ms, took_ms=took_ms, file_bytes=found.file_bytes, is_early=self._is_early
            )
        elif not (self._is_early and found.hindrance is Hindrance.UNPROVEN):  # otherwise the next scan reads all pages
            has_read = found.took_s > 0
            self.pace = self.pace.hindered(now_ms, took_ms=took_ms, file_bytes=found.file_bytes, has_read=has_read)
        return found

    def event_came(self) -> None:
        """Try again soon, because the hindrance may have ended."""
        self.pace = self.pace.woken(self._now_ms())

    def answer_requests(self) -> None:
        """Answer the requests that were made before the last scan began."""
        self.tracked.answer(self.tracked.mailbox.asked_upto(self._ticket))

    def hindered_s(self) -> float:
        """Return for how many seconds no scan has had a result, or 0 if the last scan had one."""
        return 0.0 if self.pace.since_ms is None else (self._now_ms() - self.pace.since_ms) / 1000

    def drop(self) -> None:
        """Give up the scan that is under way."""
        self._attempt += 1
        self._answer = None

    def _now_ms(self) -> float:
        return self.tools.environment.monotonic_ms()

    def _wake(self) -> None:
        if not self._is_here:
            self.tools.schedule.at(self.tracked, 0)

    def _opener(self, stream: Stream, other: KnownPages | None, *, has_map: bool) -> Callable[[int], BridgeBody | None]:
        tools, row_id = self.tools, self.tracked.row_id

        def open_body(_file_bytes: int) -> BridgeBody | None:
            page_map = tools.maps.peek(row_id) if self._is_here else tools.maps.open(row_id)
            if page_map is None and self._is_here:
                return None
            if page_map is not None and page_map.row.generation != stream.generation:
                page_map.close()
                page_map = None
            known, extra = (page_map, other) if page_map is not None else (other, None)
            if known is None or (page_map is None and has_map):  # the map was lost, with what was shipped for a base
                raise BridgeImpossibleError("there is no page map")
            return BridgeBody(
                tools.journal,
                known,
                stream,
                tools.environment.salts(),
                other=extra,
                body_bytes_max=tools.environment.body_bytes_max(),
                limits=tools.environment.limits,
            )

        return open_body


def gap_of(hindrance: Hindrance | None) -> Gap | None:
    """Return the gap if scans can't continue because the database has changed its kind, or None if they can."""
    return Gap.of(GapKind.CHANGED, GAPS[hindrance]) if hindrance in GAPS else None


def after_scan(state: FollowState, found: ScanResult) -> FollowState:
    """Return the state after a scan that had a result.

    A base may begin at this state, because the file holds everything that was shipped.
    """
    assert found.stream is not None
    assert found.facts is not None
    stream = found.stream
    return FollowState(stream, None, stream.epoch, stream.frame, found.facts, "rollback")
