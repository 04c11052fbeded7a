"""Runs the scrubs of all databases: at their intervals, soon after a start of the daemon, and on request.

A scrub runs in the scan thread. One entry in that thread's queue waits for the next scrub that is due, so nothing wakes
the daemon in between. A difference is reported and healed by a bridge. The positions since the last good scrub are
then suspect.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeAlias

import structlog

from walsyncd.adapters.journal.journal import Journal
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.keep.absence_scan import scan_delay_s
from walsyncd.core.keep.drill_schedule import next_drill_ms
from walsyncd.engine.content.map_making import Request
from walsyncd.engine.content.page_maps import PageMaps
from walsyncd.engine.content.scan_queue import ScanQueue, ScanSteps, ScanWait
from walsyncd.engine.content.scrub_steps import NoMomentError, NotComparedError, Scrub, Scrubbed, ScrubSteps
from walsyncd.engine.follow.environment import Environment
from walsyncd.engine.follow.file_facts import database_identity, file_facts
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.schedule import Schedule
from walsyncd.engine.threads.boundary import boundary
from walsyncd.engine.threads.due_queue import DueQueue
from walsyncd.errors import WalsyncdError

RETRY_S = 300.0  # the wait after ``Limits.scrub_attempts`` attempts
BUSY_POLL_S = 0.1  # the pause between two checks whether an earlier scrub of the database has ended
SHOWN = 10  # the log shows at most this many page numbers
REMEDY = (
    "the pages are shipped as they are now; `walsyncd ls` shows which positions are suspect; "
    "`sqlite3 FILE 'PRAGMA integrity_check'` says whether the live file is sound"
)

_Over: TypeAlias = "Generator[ScanWait, None, bool]"
_Attempts: TypeAlias = "Generator[ScanWait, None, tuple[ScrubResult, bool]]"
# Makes the follower's thread handle the gap.
Heal: TypeAlias = Callable[[FollowedDatabase, Gap], None]

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ScrubResult:
    """The result of a scrub. ``skipped`` is the reason why nothing was compared, or empty if pages were compared."""

    pages: int = 0
    differing: int = 0
    skipped: str = ""


class Scrubs:
    """Plans the scrubs, and keeps the result of each database's last one. Any thread may plan and ask."""

    def __init__(
        self,
        journal: Journal,
        environment: Environment,
        schedule: Schedule,
        queue: ScanQueue,
        maps: PageMaps,
        *,
        request: Request,
        heal: Heal,
    ) -> None:
        self._journal = journal
        self._environment = environment
        self._schedule = schedule
        self._queue = queue
        self._heal = heal
        self._scrub = Scrub(journal, maps, request, boot_id=environment.boot_id)
        self.without_wal: Callable[[FollowedDatabase], ScrubSteps] = self._scrub.steps
        """Compares a database in rollback mode."""
        self._started_s = time.monotonic()
        self._lock = threading.Lock()
        self._planned: dict[int, tuple[FollowedDatabase, float]] = {}
        self._due = DueQueue[int]()
        self._armed_s: float | None = None
        """The monotonic time at which the queue's entry for the next scrub continues, or None if there is no entry."""
        self._under_way: set[int] = set()
        self._tickets = itertools.count(1)
        self._results: dict[int, tuple[int, ScrubResult]] = {}

    def plan(self, tracked: FollowedDatabase, interval_s: float | None, *, was_away: bool = False) -> None:
        """Scrub the database at this interval from now on. If the interval is None, end the regular scrubs.

        ``was_away`` says that nobody has watched the database until now, so that the first scrub comes soon.
        """
        soon_s = self._after_absence_s(tracked) if was_away else None
        with self._lock:
            self._planned.pop(tracked.row_id, None)
            self._due.discard(tracked.row_id)
            if interval_s is not None:
                self._planned[tracked.row_id] = tracked, interval_s
                self._due.put(tracked.row_id, self._next_s(tracked, interval_s))
                if soon_s is not None:
                    self._due.hasten(tracked.row_id, soon_s)
            self._arm()

    def forget(self, tracked: FollowedDatabase) -> None:
        """Drop a database that is no longer followed."""
        self.plan(tracked, None)
        self._results.pop(tracked.row_id, None)

    def now(self, tracked: FollowedDatabase) -> int:
        """Scrub the database as soon as its turn comes. Returns the ticket to pass to ``result``."""
        ticket = next(self._tickets)
        self._queue.add(self._steps(tracked, ticket))
        return ticket

    def result(self, tracked: FollowedDatabase, ticket: int) -> ScrubResult | None:
        """Return the result of the scrub with this ticket, or of a later one. Returns None if it has not ended."""
        known = self._results.get(tracked.row_id)
        return known[1] if known is not None and known[0] >= ticket else None

    # -- when -------------------------------------------------------------------------------------------------------

    def _next_s(self, tracked: FollowedDatabase, interval_s: float) -> float:
        """Return the moment (monotonic) at which the next scrub is due."""
        last, now_ms = self._journal.last_scrub(tracked.row_id), self._environment.wall_ms()
        now_s = time.monotonic()
        generations = self._journal.generations(tracked.row_id)
        began_ms = generations[0].began_ms if generations else now_ms
        due_ms = next_drill_ms(
            f"scrub of {tracked.name}",
            interval_ms=max(1, round(1000 * interval_s)),
            last_ms=last.at_ms if last is not None and last.at_ms else began_ms,
            running_ms=round(1000 * (now_s - self._started_s)),
            now_ms=now_ms,
        )
        return now_s + (due_ms - now_ms) / 1000

    def _after_absence_s(self, tracked: FollowedDatabase) -> float | None:
        """Return the monotonic time at which to compare a file that nobody watched, or None if there is no need to.

        If the file's size and times, also its ctime, are still those of the last look that found no WAL, nobody wrote
        to it. In rollback mode no scrub is needed either, because the first look compares a file that has changed.
        """
        state = tracked.state
        if state is None or state.mode == "rollback" or self._journal.page_map(tracked.row_id) is None:
            return None
        try:
            identity = database_identity(tracked)
        except WalsyncdError:
            return None  # the next look reports the error
        boot_id = self._environment.boot_id
        if state.file.boot_id == boot_id and file_facts(identity, boot_id, None).looks_like(state.file):
            return None
        return time.monotonic() + scan_delay_s(tracked.name, identity.size)

    def _arm(self) -> None:
        first_s = self._due.first()
        if first_s is None or (self._armed_s is not None and self._armed_s <= first_s):
            return
        self._armed_s = first_s
        self._queue.add(self._when_due(first_s), delay_s=max(0.0, first_s - time.monotonic()))

    def _when_due(self, armed_s: float) -> ScanSteps:
        while True:
            with self._lock:
                row_id = self._due.pop(time.monotonic()) if self._armed_s == armed_s else None
                planned = self._planned.get(row_id) if row_id is not None else None
                if row_id is None or planned is None:
                    if self._armed_s == armed_s:
                        self._armed_s = None
                    self._arm()
                    return
            tracked, interval_s = planned
            is_over = yield from self._scrubbed(tracked, next(self._tickets))
            with self._lock:
                if self._planned.get(tracked.row_id) == planned:
                    soon_s = time.monotonic() + min(RETRY_S, interval_s)
                    due_s = max(self._next_s(tracked, interval_s), time.monotonic() + interval_s / 2)
                    self._due.put(tracked.row_id, due_s if is_over else soon_s)

    # -- in the scans' thread -----------------------------------------------------------------------------------------

    def _steps(self, tracked: FollowedDatabase, ticket: int) -> ScanSteps:
        yield from self._scrubbed(tracked, ticket)

    def _scrubbed(self, tracked: FollowedDatabase, ticket: int) -> _Over:
        """Scrub the database. Returns False if it is to be tried again soon."""
        while tracked.row_id in self._under_way:
            yield ScanWait(until_s=time.monotonic() + BUSY_POLL_S)
        self._under_way.add(tracked.row_id)
        try:
            result, is_over = yield from self._attempts(tracked)
        finally:
            self._under_way.discard(tracked.row_id)
        self._results[tracked.row_id] = ticket, result
        return is_over

    def _attempts(self, tracked: FollowedDatabase) -> _Attempts:
        reason = ""
        for _ in range(self._environment.limits.scrub_attempts):
            if tracked.mailbox.dismissed:
                return ScrubResult(skipped="it is not followed any more"), True
            try:
                with boundary("scrub", database=tracked.name):
                    found = yield from self._comparison(tracked)
                    return self._found(tracked, found), True
            except NotComparedError as error:
                self._journal.note_scrub_skipped(tracked.row_id, error.message)
                _log.info("scrub_skipped", database=tracked.name, reason=error.message)
                return ScrubResult(skipped=error.message), True
            except NoMomentError as error:
                reason = error.message
                break
            except WalsyncdError as error:
                reason = error.message
            yield ScanWait(until_s=time.monotonic() + self._environment.limits.scrub_attempt_s)
        self._journal.note_scrub_skipped(tracked.row_id, reason)
        _log.warning("scrub_postponed", database=tracked.name, reason=reason, next_try_in_s=RETRY_S)
        return ScrubResult(skipped=reason), False

    def _comparison(self, tracked: FollowedDatabase) -> ScrubSteps:
        state = tracked.state
        is_rollback = state is not None and state.mode == "rollback"
        return self.without_wal(tracked) if is_rollback else self._scrub.steps(tracked)

    def _found(self, tracked: FollowedDatabase, found: Scrubbed) -> ScrubResult:
        pages, compared = found.finding.pages, found.finding.compared
        now_ms, position = self._environment.wall_ms(), found.origin.state.stream.position
        self._journal.note_cipher(tracked.row_id, found.finding.cipher)
        self._journal.note_scrub(tracked.row_id, at_ms=now_ms, pages=compared, differing=len(pages))
        if not len(pages):
            self._journal.note_scanned(tracked.row_id, position, now_ms)
            _log.info("replica_compared", database=tracked.name, position=str(position), pages=compared)
            return ScrubResult(compared)
        shown = pages[:SHOWN].tolist()
        _log.error(
            "replica_differed",
            database=tracked.name,
            position=str(position),
            differing=len(pages),
            pages=compared,
            first=shown,
            remedy=REMEDY,
        )
        text = "a comparison of the file with its replica found {pages} that differ, first page {first}"
        counted = f"{len(pages)} page" + ("s" if len(pages) > 1 else "")
        gap = Gap.of(GapKind.DIFFERS, text, pages=counted, first=shown[0])

        def heal(tracked: FollowedDatabase) -> None:
            state = tracked.state
            if state is None or tracked.bridge is not None:
                return  # a bridge under way will ship every page that differs, or a base is coming
            if tracked.unbroken(state.stream.generation) == found.origin.unbroken:
                self._heal(tracked, gap)

        self._schedule.interrupt(tracked, heal)
        return ScrubResult(compared, len(pages))
