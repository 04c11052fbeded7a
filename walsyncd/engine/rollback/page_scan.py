"""One scan of a database without a WAL. Pages that differ from the map at a committed moment become a transaction.

A scan of all pages of a large file goes on while transactions change the file, if the journals of these transactions
can be followed (``rolling_moments``).

The scan runs in the scan thread. Blocks that come from the page cache are read without a pause, because the file must
be quiet until the last block. Blocks that come from a disk are paced.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias, TypeVar

from walsyncd.adapters.files.source import OpenFile
from walsyncd.adapters.journal.journal import NewObject
from walsyncd.core.content.bridge_passes import PageList, size_without_frames
from walsyncd.core.follow.follow_state import FileFacts, Stream
from walsyncd.core.sqlite.arrays import np
from walsyncd.core.sqlite.dbheader import parse_database_header
from walsyncd.core.stored.bridge import BridgeSpan
from walsyncd.engine.content.bridge_body import BridgeBody
from walsyncd.engine.content.bridge_sources import runs_of
from walsyncd.engine.content.scan_queue import BLOCK_BYTES, ScanSteps, ScanWait
from walsyncd.engine.follow.environment import Environment
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.step import CommittedScan
from walsyncd.engine.rollback.committed_moment import Hindrance, MomentStart, begin_moment, end_moment
from walsyncd.engine.rollback.database_looks import DatabaseLooks
from walsyncd.engine.rollback.page_blocks import PageBlocks
from walsyncd.engine.rollback.pages_to_read import PagesToRead
from walsyncd.engine.rollback.rolling_moments import RollingMoments
from walsyncd.engine.threads.boundary import boundary
from walsyncd.errors import MissingError, WalsyncdError

ScanRoll: TypeAlias = Generator[ScanWait, None, Hindrance | None]
Refused = TypeVar("Refused", Hindrance, None)

# If a rolling scan can't take a moment, it tries again after TRY_S, and then after longer and longer pauses. It ends
# after HINDERED_S_MAX without a moment.
TRY_S = 0.001
TRY_S_MAX = 0.05
HINDERED_S_MAX = 1.0
ROLLING_S_MAX = 60.0  # a rolling scan goes on for no longer than this after its first pass
LAST_BYTES_MAX = 1 << 20  # if more bytes are left, a pass reads them before the last moment is tried
CACHED_S = 0.0005  # a block from the page cache takes a tenth of this, a block from a disk rarely less (measured)
TURN_BYTES = BLOCK_BYTES  # this much is read from the page cache before other scans have their turn
CACHED_BLOCKS = 8  # this many are read at once after a cached block: each read costs 35 us beside its pages


@dataclass(frozen=True, slots=True)
class ScanOrder:
    """The task of a scan: what to read, and where the result goes.

    ``body`` opens the transaction, which follows ``stream``. Its argument is the size of the file in bytes, and it
    returns None if only the scan thread may open the transaction. ``is_current`` returns whether somebody still waits
    for the result. ``span`` returns the span of the gap if a gap is bridged, or None.
    """

    tracked: FollowedDatabase
    stream: Stream
    page_size: int
    pages: PagesToRead
    body: Callable[[int], BridgeBody | None]
    is_current: Callable[[], bool]
    span: Callable[[], BridgeSpan | None]


@dataclass(frozen=True, slots=True)
class ScanResult:
    """The result of a scan. ``hindrance`` is the reason why the scan found no committed state, or None if it found one.

    ``new`` is None if no page differs. ``new`` and the fields after it are those of the scan's moment. ``took_s`` is
    the time for which the file was read.
    """

    hindrance: Hindrance | None
    took_s: float
    file_bytes: int
    new: NewObject | None = None
    stream: Stream | None = None
    facts: FileFacts | None = None
    committed: CommittedScan | None = None


@dataclass(frozen=True, slots=True)
class _Moment:
    """The beginning of a moment: the looks, the number of the journal's events so far, and the time.

    ``at_s`` is the monotonic time, and ``at_ms`` the time since 1970.
    """

    start: MomentStart
    journal_events: int
    at_s: float
    at_ms: int


def with_page_1(pages: PageList) -> PageList:
    """Return the list with page 1 added, because every commit that changes anything writes page 1."""
    if len(pages.numbers) and pages.numbers[0] == 1:
        return pages
    return PageList(np.union1d(pages.numbers, [1]).astype(np.uint32), pages.beyond)


def _other_database(page_1: bytes, page_size: int) -> Hindrance | None:
    """Return why pages of this database can't be added to the followed database's base, or None if they can."""
    header = parse_database_header(page_1)
    if header is None:
        return None
    if not header.magic_ok:
        return Hindrance.UNREADABLE
    return None if header.page_size in {None, page_size} else Hindrance.PAGE_SIZE


def _counter(page_1: bytes) -> int | None:
    header = parse_database_header(page_1)
    return None if header is None or not header.magic_ok else header.change_counter


class PageScan:
    """One scan. ``answer`` gets the ``ScanResult`` or an error, and then ``done`` is called.

    The scan thread takes the steps. Another thread may take the first step, which does not read much.
    """

    def __init__(
        self, environment: Environment, order: ScanOrder, answer: Future[ScanResult], done: Callable[[], None]
    ) -> None:
        self._environment = environment
        self._order = order
        self._answer = answer
        self._done = done
        self._body: BridgeBody | None = None
        self._read_s = self._next_try_s = 0.0
        self._file_bytes = 0
        self._page_1 = b""

    def steps(self) -> ScanSteps:
        """Return the steps of the scan. An error becomes the answer."""
        try:
            with boundary("scan", database=self._order.tracked.name):
                yield from self._scan()
        except WalsyncdError as error:
            self._answer.set_exception(error)
        finally:
            body, self._body = self._body, None
            if body is not None:
                body.drop()
        self._done()

    def _scan(self) -> ScanSteps:
        order = self._order
        file = order.tracked.open()
        if file is None:
            raise MissingError(f"{order.tracked.path} does not exist", hint="it is picked up when it appears")
        with file:
            self._file_bytes = file.size()
            self._body = order.body(self._file_bytes)
            if self._body is None:
                yield ScanWait()
                self._body = order.body(self._file_bytes)
            looks = DatabaseLooks(order.tracked, self._environment, file, order.page_size)
            moment = self._moment(lambda: begin_moment(looks))
            if isinstance(moment, Hindrance):
                self._answer.set_result(ScanResult(moment, 0.0, self._file_bytes))
                return
            start = moment.start
            if (hindrance := _other_database(start.page_1, order.page_size)) is not None:
                self._answer.set_result(ScanResult(hindrance, 0.0, self._file_bytes))
                return
            if not order.pages.is_found_soon(start):
                yield ScanWait()
            pages = with_page_1(order.pages.at_moment(looks, start))
            rolling = order.pages.rolling(looks, start)
            if rolling is None:
                yield from self._read(file, pages, partial(self._is_void, start))
                hindrance = self._end(looks, moment)
            else:
                yield from self._read(file, pages, partial(self._is_over, rolling))
                hindrance = Hindrance.WRITTEN if self._has_events_since(rolling.events) else self._end(looks, moment)
                if hindrance is not None:
                    hindrance = yield from self._roll(file, looks, rolling)
            if hindrance is not None:
                self._answer.set_result(ScanResult(hindrance, self._read_s, self._file_bytes))

    def _roll(self, file: OpenFile, looks: DatabaseLooks, rolling: RollingMoments) -> ScanRoll:
        """Take moments, and read the pages that are left, until all pages that were read are one state.

        Returns the hindrance if that failed, or None.
        """
        order, page_size, pause_s = self._order, self._order.page_size, TRY_S
        now_s = time.monotonic()
        until_s, hindered_until_s = now_s + ROLLING_S_MAX, now_s + HINDERED_S_MAX
        while order.is_current() and not rolling.is_over and time.monotonic() < min(until_s, hindered_until_s):
            if len(rolling.left().numbers) * page_size > LAST_BYTES_MAX:
                yield from self._read(file, rolling.begin_pass(), partial(self._is_over, rolling))
            moment = self._moment(rolling.take)
            if moment is None:
                yield ScanWait(until_s=time.monotonic() + pause_s)
                pause_s = min(2 * pause_s, TRY_S_MAX)
                continue
            pause_s, hindered_until_s = TRY_S, time.monotonic() + HINDERED_S_MAX
            yield from self._read(file, with_page_1(rolling.left()), partial(self._is_void, moment.start))
            if self._end(looks, moment) is None:
                return None
        is_known = rolling.is_over and rolling.hindrance is not None
        # After UNPROVEN, unlike after WRITER, an event does not start another scan of all pages at once.
        return rolling.hindrance if is_known else Hindrance.UNPROVEN

    def _moment(self, begin: Callable[[], MomentStart | Refused]) -> _Moment | Refused:
        """Begin a moment, and note the time at which it began."""
        at_s, at_ms = time.monotonic(), self._environment.wall_ms()
        start = begin()
        if not isinstance(start, MomentStart):
            return start
        return _Moment(start, self._order.tracked.wal_pairs.trail.journal_events, at_s, at_ms)

    def _end(self, looks: DatabaseLooks, moment: _Moment) -> Hindrance | None:
        """Set the answer if the last pages were read at one moment. Otherwise return the hindrance."""
        order, start = self._order, moment.start
        hindrance = end_moment(looks, start, self._page_1 or start.page_1)
        if hindrance is None and not order.pages.are_complete():
            hindrance = Hindrance.UNPROVEN
        if hindrance is not None:
            return hindrance
        if not order.is_current():
            return Hindrance.WRITTEN
        size = start.times.size
        pages = size_without_frames(start.page_1, size, order.page_size)
        if not pages or pages * order.page_size > size:
            # Only a write can make the file long enough, so another scan soon would gain nothing.
            self._answer.set_result(ScanResult(Hindrance.SHORT if pages else Hindrance.EMPTY, 0.0, size))
            return None
        counter, facts = _counter(start.page_1), looks.last_facts  # taken before the last look at events
        assert facts is not None
        committed = CommittedScan(start.events, moment.journal_events, moment.at_s, moment.at_ms, counter, facts)
        facts = facts if start.times.settled else facts.unknown()
        self._answer.set_result(self._result(start, pages, facts, committed))
        return None

    def _result(self, start: MomentStart, pages: int, facts: FileFacts, committed: CommittedScan) -> ScanResult:
        body, order = self._body, self._order
        assert body is not None
        span = order.span()
        if span is None and not body.is_needed(pages):
            return ScanResult(None, self._read_s, start.times.size, None, order.stream, facts, committed)
        seen_ms = max(committed.moment_ms, order.stream.time_ms)
        if span is not None:  # the clock may have been ahead when ``proven_ms`` was taken
            span = replace(span, proven_ms=min(span.proven_ms, seen_ms))
        new, stream = body.finish(start.page_1, pages, span, seen_ms)
        self._body = None
        return ScanResult(None, self._read_s, start.times.size, new, stream, facts, committed)

    def _read(self, file: OpenFile, pages: PageList, is_void: Callable[[], bool]) -> ScanSteps:
        """Read the listed pages, and take those that differ. Ends early once ``is_void`` returns True."""
        page_size, body = self._order.page_size, self._body
        assert body is not None
        body.begin_pass()
        self._page_1, pass_s = b"", time.monotonic()
        count, bytes_max = file.size() // page_size, CACHED_BLOCKS * BLOCK_BYTES
        blocks = PageBlocks(file, page_size, bytes_max=bytes_max, small_bytes=BLOCK_BYTES)
        block_pages, is_cached, turn_bytes = max(1, BLOCK_BYTES // page_size), False, 0
        for first, run_last in runs_of(pages, count, CACHED_BLOCKS * block_pages):
            at = first
            while at <= run_last and not is_void():
                last = run_last if is_cached else min(run_last, at + block_pages - 1)
                began_s = time.monotonic()
                block = blocks.read(at, last - at + 1)
                is_cached = time.monotonic() - began_s < CACHED_S * max(1.0, len(block) / BLOCK_BYTES)
                if at == 1:
                    self._page_1 = bytes(block[:page_size])
                if len(block):
                    body.take_differing(at, block, blocks.entries(), None)
                at = last + 1
                turn_bytes += len(block)
                if not is_cached or turn_bytes >= TURN_BYTES:
                    yield ScanWait(0 if is_cached else len(block))
                    turn_bytes = 0
            if at <= run_last:
                break
        self._read_s += time.monotonic() - pass_s

    def _is_void(self, start: MomentStart) -> bool:
        """Whether the reading is of no use, because a write's event has come already or nobody waits for the result.

        Unlike the last look, this does not drain the event queue.
        """
        return not self._order.is_current() or self._has_events_since(start.events)

    def _is_over(self, rolling: RollingMoments) -> bool:
        """Take a moment if an event came. Returns whether the rolling scan can no longer have a result."""
        now_s = time.monotonic()
        if now_s >= self._next_try_s and self._has_events_since(rolling.events):
            rolling.take()
            self._next_try_s = time.monotonic() + TRY_S
        return rolling.is_over or not self._order.is_current()

    def _has_events_since(self, events: int) -> bool:
        return self._order.tracked.wal_pairs.trail.file_events != events
