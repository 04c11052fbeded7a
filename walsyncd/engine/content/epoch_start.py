"""Begins an epoch in which a base can begin although the WAL has not restarted in that epoch.

A base needs every frame of the WAL's current incarnation in the epoch in which the base begins. An incarnation that
lasts longer than an epoch prevents that, and prevents it for ever if the WAL never restarts (``wal_autocheckpoint=0``,
or a reader that stays open). So a new epoch is begun whose first transaction holds the last version of each page of the
incarnation. Let P be the position before this transaction.

- The transaction changes nothing: each of its pages has the content that the page has at P. So a restore to the
  position after the transaction gives the state at P.
- While the incarnation lasts, a page of the database file either has its content from before frame 1, or a checkpoint
  has copied it from one of the frames. If a base that begins now reads a copied page, the transaction or a later frame
  holds that page, too. All other pages did not change. So the base's start S is the position before the transaction.

The frames are read again, and their checksum chain shows that they are the frames that were followed. They can't be
overwritten before the WAL restarts. If the WAL restarts, the new epoch is no longer needed. The scan thread reads the
frames in rounds while following continues. The follower's thread then adds the remaining frames, and makes the object
and the follow state durable in one transaction.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TypeAlias

import structlog

from walsyncd.adapters.files.source import OpenFile
from walsyncd.adapters.journal.journal import Advance, Journal, ObjectRow
from walsyncd.core.content.bridge_passes import last_versions
from walsyncd.core.content.page_entry import ABSENT, Entries, PageNumbers, entries_of_frames
from walsyncd.core.follow.decision import Cursor, cursor_before
from walsyncd.core.follow.follow_state import BegunEpoch, FollowState, format_follow_state
from walsyncd.core.send.backoff import delay_s
from walsyncd.core.sqlite.arrays import NDArray, np
from walsyncd.core.sqlite.wal import Frames
from walsyncd.engine.content.bridge_body import BridgeBody, BridgeImpossibleError
from walsyncd.engine.content.bridge_sources import frames_upto, pages_of
from walsyncd.engine.content.map_making import (
    Request,
    ScanOrigin,
    ScanStart,
    answered,
    close_wal,
    origin_of,
    start_of,
)
from walsyncd.engine.content.scan_queue import ScanQueue, ScanSteps, ScanWait
from walsyncd.engine.follow.environment import Environment
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.step import Step
from walsyncd.engine.threads.boundary import boundary
from walsyncd.errors import TransientError, WalsyncdError

ROUNDS_MAX = 20  # if frames are still left after this many rounds, the writer is faster than a scan
RETRY_S_MAX = 3600.0

_Offer: TypeAlias = Callable[[list[ObjectRow]], None]
_Rounds: TypeAlias = "Generator[ScanWait, None, bool]"

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _NoPages:
    """A page map without entries. It says nothing about the replica, so each page that is taken is stored."""

    page_size: int

    def entries(self, first: int, count: int) -> Entries:
        """Return ``count`` absent entries."""
        return np.full(count, ABSENT, np.uint64)

    def has_more(self, size: int) -> bool:
        """Return False: the map has no page."""
        return False

    def close(self) -> None:
        """Do nothing."""


class _Transaction:
    """The transaction while it is built from the frames of ``wal``. ``reached`` is the last frame that was read.

    The scan thread and the follower's thread use the transaction in turn. The caller must close it.
    """

    def __init__(self, origin: ScanOrigin, wal: OpenFile, body: BridgeBody, before: Cursor) -> None:
        self.origin = origin
        self.reached = before
        self._wal = wal
        self._body = body
        self._is_durable = False
        self._last: tuple[int, bytes, int] = (0, b"", 0)
        """The page number, the content and the database size in the frame ``reached``."""

    def read(self, upto: Cursor) -> Generator[ScanWait, None, None]:
        """Take the last versions of the pages in the frames after ``reached`` through ``upto``."""
        if upto == self.reached:
            return
        numbers: list[PageNumbers] = []
        for frames in frames_upto(self._wal, upto, after=self.reached):
            numbers.append(frames.page_numbers.astype(np.uint32))
            yield ScanWait(len(frames.data))
        last = last_versions(np.concatenate(numbers)) + self.reached.frames
        for frames in frames_upto(self._wal, upto, after=self.reached):
            self._take(frames, last[(last >= frames.first) & (last <= frames.last)] - frames.first)
            yield ScanWait(len(frames.data))
        self.reached = upto

    def _take(self, frames: Frames, rows: NDArray[np.intp]) -> None:
        size = self._body.page_size
        self._body.take(pages_of(frames, rows, size), entries_of_frames(frames.data, size, rows))
        ((number, content),) = pages_of(frames, np.array([frames.count - 1]), size)
        self._last = number, bytes(content), int(frames.sizes[-1])

    def finish(self, state: FollowState, environment: Environment) -> Step:
        """Commit the transaction. Returns the step after which a base can begin in the new epoch.

        Raises TransientError if another epoch has begun since the transaction was begun.
        """
        number, content, size = self._last
        assert size, "what is followed ends with a commit"
        stream = environment.empty_epoch(state.stream)
        self._body.begin_after(stream)
        seen_ms = max(environment.wall_ms(), stream.time_ms)
        new, stream = self._body.finish(content, size, None, seen_ms, number=number)
        begun = BegunEpoch(stream.epoch, new.size)
        return Step(replace(state, stream=stream, start_epoch=stream.epoch, start_frame=0, begun=begun), (new,))

    def is_durable(self) -> None:
        """Note that the journal has the transaction's object."""
        self._is_durable = True

    def close(self) -> None:
        """Close the WAL, and remove the transaction's file unless the journal has the object."""
        self._wal.close()
        if not self._is_durable:
            self._body.drop()


class EpochStarts:
    """Begins epochs for waiting bases, one after the other in the scan thread. ``request`` reaches the follower."""

    def __init__(self, journal: Journal, environment: Environment, queue: ScanQueue, request: Request) -> None:
        self._journal = journal
        self._environment = environment
        self._queue = queue
        self._request = request
        self._lock = threading.Lock()
        self._tickets = itertools.count()
        self._due: dict[int, tuple[int, float]] = {}
        """The valid ticket of each database, and the monotonic time at which its epoch is due."""
        self._failures: dict[int, int] = {}

    def begin(
        self, tracked: FollowedDatabase, then: Callable[[FollowedDatabase], None], offer: _Offer, delay_s: float = 0.0
    ) -> None:
        """Begin an epoch for the base that waits, in ``delay_s`` seconds, and call ``then``. Any thread may call this.

        ``offer`` is called with the row of the epoch's first transaction. The call has no effect if an epoch for this
        database is being begun, is due sooner, or is due again after a failure.
        """
        due_s = time.monotonic() + delay_s
        with self._lock:
            held = self._due.get(tracked.row_id)
            if held is not None and (held[1] <= due_s or tracked.row_id in self._failures):
                return
            ticket = next(self._tickets)
            self._due[tracked.row_id] = ticket, due_s
        self._queue.add(self._steps(tracked, then, offer, ticket), delay_s=delay_s)

    def forget(self, tracked: FollowedDatabase) -> None:
        """Begin no more epochs for this database, which is no longer followed."""
        with self._lock:
            self._due.pop(tracked.row_id, None)
        self._failures.pop(tracked.row_id, None)

    def _steps(
        self, tracked: FollowedDatabase, then: Callable[[FollowedDatabase], None], offer: _Offer, ticket: int
    ) -> ScanSteps:
        with self._lock:
            if self._due.get(tracked.row_id, (-1, 0.0))[0] != ticket:
                return
            self._due[tracked.row_id] = ticket, -math.inf
        wait_s: float | None = None
        try:
            with boundary("begin an epoch for a base", database=tracked.name):
                is_made = yield from self._make(tracked, offer)
            self._failures.pop(tracked.row_id, None)
            if is_made:
                then(tracked)
        except WalsyncdError as error:
            failures = self._failures[tracked.row_id] = self._failures.get(tracked.row_id, 0) + 1
            wait_s, reason = (
                delay_s(failures, fraction=1.0, base_s=self._environment.limits.epoch_start_retry_s, cap_s=RETRY_S_MAX),
                error.message,
            )
            if isinstance(error, BridgeImpossibleError):
                share = self._environment.body_bytes_max()
                wait_s, reason = RETRY_S_MAX, f"the pages of the WAL take more than {share >> 20} MiB of the spool"
            self._request(tracked, lambda tracked: tracked.note_base(hindrance=reason))
            _log.info("base_still_waits", database=tracked.name, reason=reason, next_try_in_s=wait_s)
        finally:
            with self._lock:
                if self._due.get(tracked.row_id, (-1, 0.0))[0] == ticket:
                    del self._due[tracked.row_id]
        if wait_s is not None:
            self.begin(tracked, then, offer, wait_s)

    def _make(self, tracked: FollowedDatabase, offer: _Offer) -> _Rounds:
        """Make the transaction. Returns False if it is no longer needed."""
        if tracked.mailbox.dismissed or not _is_needed(tracked):
            return False
        answer = self._request(tracked, start_of)
        try:
            yield from answered(answer)
            start: ScanStart | None = answer.result()
            if start is None or start.wal is None:
                return False
            if (known := start.origin.state.overwritten) is not None and known.frames:
                raise TransientError("somebody wrote over pages that the WAL has, and SQLite reads those of the file")
            transaction = self._transaction(start.origin, start.wal)
        finally:
            answer.add_done_callback(close_wal)
        return (yield from self._rounds(tracked, transaction, offer))

    def _transaction(self, origin: ScanOrigin, wal: OpenFile) -> _Transaction:
        cursor = origin.state.cursor
        assert cursor is not None
        assert cursor.header is not None, "frames without a header"
        body = BridgeBody(
            self._journal,
            _NoPages(cursor.header.page_size),
            self._environment.empty_epoch(origin.state.stream),
            self._environment.salts(),
            body_bytes_max=self._environment.body_bytes_max(),
            limits=self._environment.limits,
        )
        return _Transaction(origin, wal.duplicate(), body, cursor_before(cursor.header))

    def _rounds(self, tracked: FollowedDatabase, transaction: _Transaction, offer: _Offer) -> _Rounds:
        answer: Future[Cursor | bool] = Future()
        answer.set_result(False)
        cursor = transaction.origin.state.cursor
        try:
            for _ in range(ROUNDS_MAX):
                assert cursor is not None
                yield from transaction.read(cursor)
                answer = self._request(tracked, lambda tracked: self._settle(tracked, transaction, offer))
                yield from answered(answer)
                found = answer.result()
                if isinstance(found, bool):
                    return found
                cursor = found
            raise TransientError("its WAL grows faster than it is read again")
        finally:  # the transaction is closed after the answer, because the follower's thread may still be using it
            answer.cancel()
            answer.add_done_callback(lambda _answer: transaction.close())

    def _settle(self, tracked: FollowedDatabase, transaction: _Transaction, offer: _Offer) -> Cursor | bool:
        """Add the frames that are left, and make the transaction durable.

        Returns True if the transaction is durable, and False if it is no longer needed. Returns the current cursor if
        another round must read the frames up to it first. Runs in the follower's thread, after a look that caught up.
        """
        now, reached = origin_of(tracked), transaction.reached
        if now is None or now.unbroken != transaction.origin.unbroken:
            raise TransientError("something was missed while the WAL was read again")
        cursor = now.state.cursor
        if not _is_needed(tracked) or cursor is None or cursor.header is None or cursor.salts != reached.salts:
            return False
        left_bytes = (cursor.frames - reached.frames) * cursor.header.frame_size
        if left_bytes > self._environment.limits.epoch_start_bytes or tracked.pending is not None:
            return cursor
        for _ in transaction.read(cursor):
            pass
        step = transaction.finish(now.state, self._environment)
        assert step.state is not None
        follow, rewinds = format_follow_state(step.state), tracked.rewinds
        rows = self._journal.advance([Advance(tracked.row_id, follow, step.objects, rewinds=rewinds)])
        if not rows:
            raise TransientError("the generation ended")
        transaction.is_durable()
        tracked.apply(step)
        tracked.note_base(hindrance="", begun_epoch=rows[0].epoch, begun_bytes=rows[0].size)
        offer(rows)
        position = str(step.state.stream.position)
        _log.info("epoch_begun_for_base", database=tracked.name, position=position, stored_bytes=rows[0].size)
        return True


def _is_needed(tracked: FollowedDatabase) -> bool:
    """Whether a base waits because the WAL has not restarted in the current epoch. Any thread may ask."""
    state = tracked.state
    is_late = state is not None and state.start_epoch != state.stream.epoch
    return is_late and tracked.base.awaits_restart and not tracked.base.under_way
