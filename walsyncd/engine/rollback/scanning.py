"""The scans of one database, one at a time: each is ordered by the follower, and its result is taken when it is there.

Both the scans of a followed database and a bridge into rollback mode go this way.
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
    """At most one scan of ``tracked`` is under way. For the follower's thread."""

    def __init__(self, tools: ScanTools, tracked: FollowedDatabase) -> None:
        self.tools = tools
        self.tracked = tracked
        self.pace = ScanPace()
        self.hindrance: Hindrance | None = None
        """Why the last scan had no result, or None if it had one."""
        self._attempt = 0
        """Counts the scans. The results of all but the last are void."""
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
        """Return how long to wait before the next scan. ``is_early``: it will not read all pages of a large file."""
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
        """Order a scan. Its transaction follows ``stream``, and ships also what differs from ``other``.

        ``has_map`` is false if ``other`` is all that is known of the replica, because it has no page map yet.
        ``is_early``: ``pages`` will not be all pages of a large file.

        A scan that ``is_short`` is probably over within its first step. That is taken here, because to wake the scan
        thread, and to be woken by it, costs as much as the step. What is left is the scan thread's.
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
        """Take the result of the scan that is done. Raises what the scan met."""
        answer, self._answer = self._answer, None
        assert answer is not None
        found, now_ms, interval_ms = answer.result(), self._now_ms(), 1000 * self.tracked.spec.upload_interval_s
        took_ms, self.hindrance = 1000 * found.took_s, found.hindrance
        if found.hindrance is None:
            self.pace = self.pace.accepted(
                now_ms, interval_ms, took_ms=took_ms, file_bytes=found.file_bytes, is_early=self._is_early
            )
        elif not (self._is_early and found.hindrance is Hindrance.UNPROVEN):  # then the next one reads all pages
            has_read = found.took_s > 0
            self.pace = self.pace.hindered(now_ms, took_ms=took_ms, file_bytes=found.file_bytes, has_read=has_read)
        return found

    def event_came(self) -> None:
        """Try again soon, because what was in the way may be over."""
        self.pace = self.pace.woken(self._now_ms())

    def answer_requests(self) -> None:
        """Answer those who asked for what was committed before the last scan began."""
        self.tracked.answer(self.tracked.mailbox.asked_upto(self._ticket))

    def hindered_s(self) -> float:
        """Return for how long no scan has had a result, or 0 if the last one had."""
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
            if known is None or (page_map is None and has_map):  # it was lost, with what was shipped for a base
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
    """Return the gap if scans can't go on because of what the database has become, or None if they can."""
    return Gap.of(GapKind.CHANGED, GAPS[hindrance]) if hindrance in GAPS else None


def after_scan(state: FollowState, found: ScanResult) -> FollowState:
    """Return the state after a scan that had a result. The file holds all that was shipped, so a base begins there."""
    assert found.stream is not None
    assert found.facts is not None
    stream = found.stream
    return FollowState(stream, None, stream.epoch, stream.frame, found.facts, "rollback")
