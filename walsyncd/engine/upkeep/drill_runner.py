"""Runs restore drills in one thread. Each database has its own time for drills, and one drill runs at a time.

The thread sleeps until the next drill is due (`drill_schedule`). The journal has the time of the last drill. While a
restored file is examined, it is in ``drill/`` in the state directory. At the start, files that a killed daemon left
there are removed.

====================  =========================================================================================
passed                it is noted, with the base that it proves: retention keeps one such base
failed                it is reported (log, status, metrics); if the fault is the replica's, its generation ends
skipped               there was no room, or no permission to read; it is noted with the reason, and the next drill
                      runs at its usual time
storage is away       the drill is tried again in a few minutes; the same holds if its generation ended meanwhile
the daemon stops      nothing is noted, so the drill is due again
====================  =========================================================================================
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeAlias, TypeVar

import structlog

from walsyncd.adapters.files.source import OpenFile
from walsyncd.adapters.journal.drill_table import DrillOutcome, DrillRow
from walsyncd.adapters.journal.journal import DatabaseRow, Journal, ObjectKind, ObjectRow
from walsyncd.adapters.storage.interface import Storage
from walsyncd.adapters.storage.paced_reads import PacedReads
from walsyncd.core.follow.follow_state import FollowState
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.keep.drill_schedule import next_drill_ms
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.restore.replica import Replica
from walsyncd.engine.threads.alarm import Alarm
from walsyncd.engine.threads.boundary import boundary
from walsyncd.engine.threads.due_queue import DueQueue
from walsyncd.engine.upkeep.drill import DamagedReplicaError, Rehearsal, StoppedError, rehearse
from walsyncd.errors import RefusedError, TransientError, WalsyncdError
from walsyncd.file_calls import FILE_CALLS

FOLDER = "drill"
RETRY_S = 300.0  # the wait after an outage; a drill can wait
STORED_S_MAX = 300.0  # the longest wait until frames written during a drill are stored; it is many upload intervals
REMEDY = "`walsyncd verify` says what is wrong with which object; a new base is taken"

T = TypeVar("T")
# Reads a database without a WAL at a moment when it has the content of the returned state. Also returns the result of
# reading. The last argument is called to wait for a number of seconds.
ReadShipped: TypeAlias = (
    "Callable[[FollowedDatabase, int, Callable[[OpenFile], Any], Callable[[float], None]], tuple[FollowState, Any]]"
)

_log = structlog.get_logger()


class Driller:
    """Runs drills. ``request`` asks the follower for a look. ``on_generation_lost`` has it begin a new generation."""

    def __init__(
        self,
        journal: Journal,
        storage: Storage,
        *,
        request: Callable[[FollowedDatabase, Callable[[FollowedDatabase], object]], Future[Any]],
        read_shipped: ReadShipped,
        on_generation_lost: Callable[[int, Gap], None],
        bytes_per_s_max: float,
        wall_ms: Callable[[], int],
    ) -> None:
        self._journal = journal
        self._request = request
        self._read_shipped = read_shipped
        self._on_generation_lost = on_generation_lost
        self._wall_ms = wall_ms
        self._folder = journal.folder / FOLDER
        self._storage = PacedReads(storage, bytes_per_s_max, self.pause)
        self._alarm = Alarm()
        self._lock = threading.Lock()
        # Guarded by the lock:
        self._intervals: dict[int, tuple[FollowedDatabase, float]] = {}
        self._changed: set[int] = set()  # databases whose next drill has to be planned again
        # Used by the drills' thread alone:
        self._due: DueQueue[int] = DueQueue()  # databases that have a base (monotonic, seconds)
        self._not_before_s: dict[int, float] = {}
        self._is_waiting = False  # whether a drill waits for another thread
        self._started_s = time.monotonic()

    def plan(self, tracked: FollowedDatabase, interval_s: float | None) -> None:
        """Drill the database at this interval from now on. With None its drills end."""
        with self._lock:
            before = self._intervals.pop(tracked.row_id, None)
            if interval_s is not None:
                self._intervals[tracked.row_id] = tracked, interval_s
            elif before is None:
                return
            self._changed.add(tracked.row_id)
        self._alarm.wake()

    def stored(self, row: ObjectRow) -> None:
        """Note that an object became visible. A first base allows drills, and a drill may be waiting for a segment."""
        with self._lock:
            has_base = row.kind is ObjectKind.MANIFEST and row.database_id in self._intervals
            if has_base:
                self._changed.add(row.database_id)
        if has_base or self._is_waiting:
            self._alarm.wake()

    def stop(self) -> None:
        """End the thread and the drill that is under way."""
        self._alarm.stop()

    def run(self) -> None:
        """Run the thread until ``stop``."""
        self._clear()
        wait_s = self.round()
        while self._alarm.wait(wait_s):
            wait_s = self.round()

    def round(self) -> float | None:
        """Run the drills that are due. Returns the seconds until the next one, or None if none is planned."""
        while not self._alarm.is_stopped:
            with self._lock:
                changed, self._changed = self._changed, set()
            for row_id in changed:
                self._plan_next(row_id)
            if (first_s := self._due.first()) is None:
                return None
            if (wait_s := first_s - time.monotonic()) > 0:
                return wait_s
            # Since the moment was planned, the clock may have been set, or the generation may have ended.
            if (first := self._due.pop(first_s)) is not None and (tracked := self._plan_next(first)) is not None:
                self._drill(tracked)
                self._plan_next(first)
        return None

    def _plan_next(self, row_id: int) -> FollowedDatabase | None:
        """Plan the next drill of a database with drills and a base. Returns the database if its drill is due now."""
        with self._lock:
            planned = self._intervals.get(row_id)
        if planned is None or (wait_s := self._wait_s(*planned)) is None:
            self._due.discard(row_id)
            return None
        self._due.put(row_id, time.monotonic() + wait_s)
        return planned[0] if wait_s <= 0 else None

    def _wait_s(self, tracked: FollowedDatabase, interval_s: float) -> float | None:
        """Return the seconds until the drill is due. Returns None while the generation has no base."""
        row = self._journal.database_by_id(tracked.row_id)
        if not row.has_base:
            return None
        last = self._journal.last_drill(row.id)
        began_ms = self._journal.generations(row.id)[0].began_ms if last is None else last.at_ms
        now_s, now_ms = time.monotonic(), self._wall_ms()
        due_ms = next_drill_ms(
            row.name,
            interval_ms=max(1, round(1000 * interval_s)),
            last_ms=began_ms,
            running_ms=round(1000 * (now_s - self._started_s)),
            now_ms=now_ms,
        )
        return max(self._not_before_s.get(row.id, 0.0) - now_s, (due_ms - now_ms) / 1000)

    def _drill(self, tracked: FollowedDatabase) -> None:
        row = self._journal.database_by_id(tracked.row_id)
        if row.generation is None:
            return
        began_ms = self._wall_ms()
        _log.info("drill_began", database=row.name)
        try:
            with boundary("drill", passes=(StoppedError,), database=row.name):
                done = self._rehearse(tracked, row.generation)
        except StoppedError:
            return
        except DamagedReplicaError as error:
            self._failed(row, began_ms, "", error.message, is_replicas=True)
        except RefusedError as error:
            self._note(row, began_ms, DrillOutcome.SKIPPED, "", error.message)
            _log.warning("drill_skipped", database=row.name, reason=error.message, remedy=error.hint)
        except WalsyncdError as error:
            self._postpone(row, error.message)
        else:
            self._tell_of(row, began_ms, done)

    def _rehearse(self, tracked: FollowedDatabase, generation: str) -> Rehearsal:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        replica = Replica(self._storage, tracked.name)
        scratch = self._folder / f"{tracked.row_id}.db"
        try:
            return rehearse(replica, generation, tracked.open, scratch, _Host(self, tracked))
        finally:
            if not FILE_CALLS.is_abandoned():  # if this thread was abandoned, another thread uses the folder
                self._clear()

    def _tell_of(self, row: DatabaseRow, began_ms: int, done: Rehearsal) -> None:
        position = str(done.position)
        if done.problem:
            self._failed(row, began_ms, position, done.problem, is_replicas=done.is_replicas)
            return
        self._note(row, began_ms, DrillOutcome.PASSED, position, done.detail, proven_key=done.manifest_key)
        seconds = round((self._wall_ms() - began_ms) / 1000, 1)
        _log.info("drill_passed", database=row.name, position=position, detail=done.detail, seconds=seconds)

    def _failed(self, row: DatabaseRow, began_ms: int, position: str, problem: str, *, is_replicas: bool) -> None:
        """Report a failed drill. A damaged replica's generation is ended, unless it has ended meanwhile."""
        current = self._journal.database_by_id(row.id)
        if current.generation != row.generation:
            self._postpone(row, "its history ended meanwhile")
            return
        self._note(row, began_ms, DrillOutcome.FAILED, position, problem)
        remedy = REMEDY if is_replicas else "sqlite3's .recover, or a restore of an older position"
        _log.error("drill_failed", database=row.name, position=position, reason=problem, remedy=remedy)
        if is_replicas and row.generation is not None:
            gap = Gap.of(GapKind.DAMAGED, "a rehearsed restore failed: {problem}", problem=problem)
            if self._journal.lose_generation(row.id, row.generation, gap, self._wall_ms()):
                self._on_generation_lost(row.id, gap)

    def _postpone(self, row: DatabaseRow, reason: str) -> None:
        """Try again soon. If the generation has ended, no wait is needed, since the next one must have a base first."""
        if self._journal.database_by_id(row.id).generation == row.generation:
            self._not_before_s[row.id] = time.monotonic() + RETRY_S
        _log.warning("drill_postponed", database=row.name, reason=reason)

    def _note(
        self,
        row: DatabaseRow,
        at_ms: int,
        outcome: DrillOutcome,
        position: str,
        detail: str,
        *,
        proven_key: str | None = None,
    ) -> None:
        self._journal.note_drill(
            DrillRow(row.id, at_ms, outcome, position, detail), name=row.name, proven_key=proven_key
        )

    def _clear(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    # -- waiting ------------------------------------------------------------------------------------------------------

    def pause(self, seconds: float) -> None:
        """Wait this long. Raises StoppedError as soon as the daemon stops."""
        if not self._alarm.pause(seconds):
            raise StoppedError

    def is_stopping(self) -> bool:
        """Whether the daemon stops."""
        return self._alarm.is_stopped

    def room_bytes(self) -> int:
        """How many bytes of the state directory's disk a drill may take."""
        return self._journal.disk.room_bytes()

    def look(self, tracked: FollowedDatabase) -> FollowState | None:
        """Return the follower's state after a look that begins now."""
        future = self._request(tracked, lambda tracked: tracked.state)
        future.add_done_callback(lambda _future: self._alarm.wake())
        if not self._wait_until(future.done, RETRY_S):
            raise TransientError(f"{tracked.name} was not looked at within {RETRY_S:.0f} s")
        state: FollowState | None = future.result()
        return state

    def read_shipped(
        self, tracked: FollowedDatabase, page_size: int, read: Callable[[OpenFile], T]
    ) -> tuple[FollowState, T]:
        """Read a database without a WAL at a moment when its content is shipped. Only the drills' thread calls this."""
        state, found = self._read_shipped(tracked, page_size, read, self.pause)
        content: T = found
        return state, content

    def wait_stored(self, tracked: FollowedDatabase) -> bool:
        """Wait until every segment that exists now is stored."""
        object_id = self._journal.last_object_id()

        def is_stored() -> bool:
            pending = self._journal.pending(tracked.row_id)
            return not any(row.kind is ObjectKind.SEGMENT and row.id <= object_id for row in pending)

        return self._wait_until(is_stored, STORED_S_MAX)

    def _wait_until(self, fact: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until ``fact`` is true, which another thread brings about. Returns False if that takes too long.

        Raises StoppedError as soon as the daemon stops.
        """
        until_s = time.monotonic() + timeout_s
        self._is_waiting = True
        while not (is_so := fact()) and (left_s := until_s - time.monotonic()) > 0:
            if not self._alarm.wait(left_s):
                raise StoppedError
        self._is_waiting = False
        return is_so


class _Host:
    """The daemon's side of one database's drill."""

    def __init__(self, driller: Driller, tracked: FollowedDatabase) -> None:
        self._driller = driller
        self._tracked = tracked

    def check(self) -> None:
        self._driller.pause(0)

    def is_stopped(self) -> bool:
        return self._driller.is_stopping()

    def look(self) -> FollowState | None:
        return self._driller.look(self._tracked)

    def gaps(self) -> int:
        return self._tracked.gaps

    def wait_stored(self) -> bool:
        return self._driller.wait_stored(self._tracked)

    def room_bytes(self) -> int:
        return self._driller.room_bytes()

    def read_shipped(self, page_size: int, read: Callable[[OpenFile], T]) -> tuple[FollowState, T]:
        return self._driller.read_shipped(self._tracked, page_size, read)
