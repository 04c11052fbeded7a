"""One scan of a database without a WAL: what differs from the page map at a committed moment becomes a transaction.

It runs in the scan thread. Blocks that come from the page cache are read without a pause, because the file must be
quiet until the last one. Blocks that come from a disk are paced.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from walsyncd.adapters.files.source import OpenFile
from walsyncd.adapters.journal.journal import NewObject
from walsyncd.core.content.bridge_passes import PageList, size_without_frames
from walsyncd.core.content.page_entry import entries_of_pages
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
from walsyncd.engine.rollback.pages_to_read import PagesToRead
from walsyncd.engine.threads.boundary import boundary
from walsyncd.errors import MissingError, WalsyncdError

CACHED_S = 0.0005  # a block from the page cache takes a tenth of this, one from a disk rarely less (measured)


@dataclass(frozen=True, slots=True)
class ScanOrder:
    """What to scan, and what to make of it.

    ``body`` opens the transaction, which follows ``stream``; it gets the size of the file in bytes. ``is_current``:
    whether somebody still waits for the result. ``span`` is that of the gap, if one is bridged.
    """

    tracked: FollowedDatabase
    stream: Stream
    page_size: int
    pages: PagesToRead
    body: Callable[[int], BridgeBody]
    is_current: Callable[[], bool]
    span: Callable[[], BridgeSpan | None]


@dataclass(frozen=True, slots=True)
class ScanResult:
    """What a scan found. ``new`` is None if nothing differs, and all but the first three are as of the moment.

    ``hindrance`` is why there is no result. ``took_s`` is how long the file was read.
    """

    hindrance: Hindrance | None
    took_s: float
    file_bytes: int
    new: NewObject | None = None
    stream: Stream | None = None
    facts: FileFacts | None = None
    committed: CommittedScan | None = None


def with_page_1(pages: PageList) -> PageList:
    """Return the list with page 1 in it: every commit that changes anything writes it."""
    return PageList(np.union1d(pages.numbers, [1]).astype(np.uint32), pages.beyond)


def _other_database(page_1: bytes, page_size: int) -> Hindrance | None:
    """Return why pages of this database are of no use to a base of the one that was followed, if they are not."""
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
    """One scan. ``answer`` gets the ``ScanResult`` or an error, and then ``done`` is called."""

    def __init__(
        self, environment: Environment, order: ScanOrder, answer: Future[ScanResult], done: Callable[[], None]
    ) -> None:
        self._environment = environment
        self._order = order
        self._answer = answer
        self._done = done
        self._body: BridgeBody | None = None
        self._began_s = 0.0
        self._page_1 = b""

    def steps(self) -> ScanSteps:
        """Scan. An error becomes the answer."""
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
            size = file.size()
            self._body = order.body(size)
            before = order.pages.before_moment()
            if before is not None:
                self._body.begin_pass()
                yield from self._read(file, before, lambda: not order.is_current())
            self._began_s = time.monotonic()
            looks = DatabaseLooks(order.tracked, self._environment, file, order.page_size)
            moment_s, moment_ms = time.monotonic(), self._environment.wall_ms()
            start = begin_moment(looks)
            journal_events = order.tracked.wal_pairs.trail.journal_events
            if isinstance(start, Hindrance):
                self._answer.set_result(ScanResult(start, 0.0, size))
                return
            if (hindrance := _other_database(start.page_1, order.page_size)) is not None:
                self._answer.set_result(ScanResult(hindrance, 0.0, size))
                return
            self._body.begin_pass()
            self._page_1 = b""
            yield from self._read(file, with_page_1(order.pages.at_moment(start)), lambda: self._is_void(start))
            facts = looks.facts()  # before the last looks: later ones may show a commit that was not read
            hindrance = end_moment(looks, start, self._page_1 or start.page_1)
            if hindrance is None and not order.pages.are_complete():
                hindrance = Hindrance.UNPROVEN
            took_s = time.monotonic() - self._began_s
            pages = size_without_frames(start.page_1, start.times.size, order.page_size)
            if hindrance is None and (not pages or pages * order.page_size > start.times.size):
                # Only a write ends that, so nothing is gained by another scan soon.
                self._answer.set_result(ScanResult(Hindrance.SHORT if pages else Hindrance.EMPTY, 0.0, size))
                return
            if hindrance is not None or not order.is_current():
                self._answer.set_result(ScanResult(hindrance or Hindrance.WRITTEN, took_s, size))
                return
            counter = _counter(start.page_1)
            committed = CommittedScan(start.events, journal_events, moment_s, moment_ms, counter, facts)
            facts = facts if start.times.settled else facts.unknown()
            self._answer.set_result(self._result(start, pages, facts, committed, took_s))

    def _result(
        self, start: MomentStart, pages: int, facts: FileFacts, committed: CommittedScan, took_s: float
    ) -> ScanResult:
        body, order = self._body, self._order
        assert body is not None
        span = order.span()
        if span is None and not body.is_needed(pages):
            return ScanResult(None, took_s, start.times.size, None, order.stream, facts, committed)
        new, stream = body.finish(start.page_1, pages, span, max(committed.moment_ms, order.stream.time_ms))
        self._body = None
        return ScanResult(None, took_s, start.times.size, new, stream, facts, committed)

    def _read(self, file: OpenFile, pages: PageList, is_void: Callable[[], bool]) -> ScanSteps:
        """Read the listed pages, and take those that differ. Ends early once they can be of no use."""
        page_size, body = self._order.page_size, self._body
        assert body is not None
        count = file.size() // page_size
        for first, last in runs_of(pages, count, max(1, BLOCK_BYTES // page_size)):
            if is_void():
                return
            began_s = time.monotonic()
            block = file.pread((first - 1) * page_size, (last - first + 1) * page_size)
            is_cached = time.monotonic() - began_s < CACHED_S
            block = block[: len(block) // page_size * page_size]
            if first == 1:
                self._page_1 = block[:page_size]
            if block:
                body.take_differing(first, block, entries_of_pages(block, page_size), None)
            yield ScanWait(0 if is_cached else len(block))

    def _is_void(self, start: MomentStart) -> bool:
        """Whether an event of a write has come already. The last look drains the queue, and this does not."""
        return not self._order.is_current() or self._order.tracked.wal_pairs.trail.file_events != start.events
