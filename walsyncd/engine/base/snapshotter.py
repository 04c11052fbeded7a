"""The snapshotter: takes bases when they are due, in one thread that interleaves them (``copy_queue``).

A restore applies the frames from S on, and the result is consistent from N on. The follower gives S before the first
byte is read. N comes from a look that begins after the object was completed. The manifest goes into the database's
queue after every segment up to N.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar
from weakref import ref

import structlog

from walsyncd.adapters.files.source import OpenFile
from walsyncd.adapters.journal.journal import (
    Advance,
    Base,
    Journal,
    ObjectRow,
    ObjectState,
    StoredBase,
)
from walsyncd.adapters.storage.interface import Storage
from walsyncd.core.follow.follow_state import FollowState
from walsyncd.core.limits import DEFAULT_LIMITS, Limits
from walsyncd.core.send.backoff import delay_s
from walsyncd.core.sqlite.dbheader import HEADER_SIZE
from walsyncd.core.stored.base import FrameCompressor
from walsyncd.engine.base.base_closing import close_base, is_closed
from walsyncd.engine.base.base_copy import (
    AbandonedError,
    BaseCopy,
    CopyContext,
    CopyWait,
    FinishedBase,
    Steps,
    begin_base,
    ranges_of,
)
from walsyncd.engine.base.base_origin import BaseOrigin, BeginMap, no_map, origin_of
from walsyncd.engine.base.base_plan import can_resume, parse_plan
from walsyncd.engine.base.base_timing import BaseTiming
from walsyncd.engine.base.copy_queue import CopyQueue
from walsyncd.engine.base.manifest_making import manifest_object
from walsyncd.engine.base.renewal import Renewal
from walsyncd.engine.base.whole_copies import WholeCopies
from walsyncd.engine.follow.file_facts import file_facts
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.threads.boundary import boundary
from walsyncd.errors import MissingError, StateError, WalsyncdError

RETRY_S = 5.0  # the pause after an abandoned base; it doubles each time, up to RETRY_S_MAX
RETRY_S_MAX = 300.0
REQUEST_TIMEOUT_S = 60.0
BEGIN_EPOCH_S = 3600.0  # the pause after an abandoned base, because what its epoch began with was stored for nothing
WRITTEN = "the database was written while it was copied"
T = TypeVar("T")
_log = structlog.get_logger()


class Snapshotter:
    """Takes the bases of all databases; ``request`` and ``interrupt`` reach the follower, ``submit`` the uploads' pool.

    If a base has to wait for the WAL to restart, ``begin_epoch`` begins an epoch in so many seconds in which the base
    can begin, and then calls ``due``. ``leaves_at_once`` says whether a database's manifest would be sent without
    waiting. With a ``renewal`` bases are also taken at intervals when nothing changes, since the store removes objects
    by age.
    """

    def __init__(
        self,
        journal: Journal,
        storage: Storage,
        *,
        request: Callable[[FollowedDatabase, Callable[[FollowedDatabase], object]], Future[Any]],
        interrupt: Callable[[FollowedDatabase, Callable[[FollowedDatabase], object]], None],
        submit: Callable[[int, Callable[[], object], int], Future[Any]],
        offer: Callable[[list[ObjectRow]], None],
        abort_leftovers: Callable[[], None],
        now_ms: Callable[[], int],
        boot_id: str,
        renewal: Renewal | None = None,
        begin_epoch: Callable[[FollowedDatabase, float], None] = lambda _tracked, _delay_s: None,
        begin_map: BeginMap = no_map,
        leaves_at_once: Callable[[int], bool] = lambda _database_id: False,
        limits: Limits = DEFAULT_LIMITS,
        run_id: str = "",
    ) -> None:
        self._journal, self._run_id = journal, run_id
        self._storage = storage
        self._request = request
        self._interrupt = interrupt
        self._submit = submit
        self._offer = offer
        self._abort_leftovers = abort_leftovers
        self._now_ms = now_ms
        self._boot_id = boot_id
        self._renewal = renewal
        self._begin_epoch, self._begin_map, self._leaves_at_once = begin_epoch, begin_map, leaves_at_once
        self._compressor: ref[FrameCompressor] | None = None
        self._copy_queue = CopyQueue(self._take, limits)
        self._timing = BaseTiming(now_ms, limits)
        self._whole_copies = WholeCopies(bytes_per_s=limits.whole_copy_bytes_per_s)
        self._failures: dict[int, int] = {}

    def due(self, tracked: FollowedDatabase, delay_s: float = 0.0) -> None:
        """Request a base of this database in ``delay_s`` seconds. A base that is under way already is not affected.

        The base comes later if the database rests after a copy of its whole file (``whole_copies``).
        """
        delay_s = max(delay_s, self._whole_copies.rest_s(tracked))
        self._copy_queue.due(tracked, delay_s, may_hasten=tracked.row_id not in self._failures)

    def now(self, tracked: FollowedDatabase) -> None:
        """Request a base of this database now, for a user."""
        self._whole_copies.hasten(tracked)
        self._failures.pop(tracked.row_id, None)
        self._copy_queue.due(tracked, 0.0, anew=True)

    def hasten(self, tracked: FollowedDatabase) -> None:
        """Request a base that is wanted already to come without a rest, for a user who waits for what is committed."""
        self._whole_copies.hasten(tracked)
        if tracked.base.wanted:
            self.due(tracked)

    def adopt(self, tracked: FollowedDatabase) -> None:
        """Load what an earlier run left: the time of the last base, and a base under way."""
        self._timing.adopt(tracked, self._journal.database_by_id(tracked.row_id))
        left_s = self._timing.left_s(tracked)
        if left_s is not None:
            self.due(tracked, max(0.0, left_s))
        self._interrupt(tracked, self._resume)

    def _resume(self, tracked: FollowedDatabase) -> None:
        tracked.note_base(under_way=bool(self._journal.bases(tracked.row_id)) and tracked.state is not None)
        if tracked.base.under_way or tracked.base.wanted:
            self.due(tracked)

    def replan(self, tracked: FollowedDatabase, interval_s: float) -> None:
        """Apply another interval between bases. A base that is due by the new interval is taken now."""
        left_s = self._timing.left_s(tracked, interval_s)
        if left_s is not None:
            self.due(tracked, max(0.0, left_s))

    def stored(self, row: ObjectRow) -> None:
        """Note that a segment became visible. A base is due when a restore would have to apply enough segments."""
        due = self._timing.stored(row)
        if due is not None:
            self.due(*due)

    def forget(self, tracked: FollowedDatabase) -> None:
        """Stop taking bases of this database, which is no longer followed. A copy under way ends when it notices."""
        self._copy_queue.forget(tracked)
        self._failures.pop(tracked.row_id, None)
        self._timing.forget(tracked)
        self._whole_copies.forget(tracked)

    def is_due(self, tracked: FollowedDatabase) -> bool:
        """Whether a base is due or under way. A base that rests or waits for the WAL to restart does not count."""
        base = tracked.base
        if not (base.under_way or self.failures(tracked)) and self._whole_copies.rest_s(tracked) > 0:
            return False
        wanted = base.wanted or base.under_way or self.failures(tracked)
        return not base.awaits_restart and (bool(wanted) or self._copy_queue.is_due(tracked))

    def failures(self, tracked: FollowedDatabase) -> int:
        """Return how many bases of this database were abandoned in a row."""
        return self._failures.get(tracked.row_id, 0)

    def run(self) -> None:
        """Run the thread until ``stop``."""
        self._copy_queue.run()

    def stop(self) -> None:
        """End the thread and leave the bases under way, which continue at the next start."""
        self._copy_queue.stop()

    def _plan_next(self, tracked: FollowedDatabase) -> None:
        """Request the next base by the interval, unless the database was forgotten when its last base was completed."""
        left_s = self._timing.left_s(tracked)
        if left_s is not None:
            self.due(tracked, left_s if left_s > 0 else tracked.spec.snapshot_interval_s)

    def _is_wanted(self, tracked: FollowedDatabase, state: FollowState) -> bool:
        """Whether a base was requested, or is due and something was committed since the last one."""
        taken = self._timing.last(tracked)
        if tracked.base.wanted or taken is None:
            return True
        if taken[0] == state.stream.position and self._renewal is None:
            return False
        return self._timing.is_due(tracked)

    # -- one base ---------------------------------------------------------------------------------------------------

    def _take(self, tracked: FollowedDatabase) -> Steps[None]:
        try:
            with boundary("copy_base", database=tracked.name):
                finished = yield from self._copy(tracked)
                if finished:
                    self._failures.pop(tracked.row_id, None)
                    self._plan_next(tracked)
        except WalsyncdError as error:
            self._let_go(tracked, error)

    def _let_go(self, tracked: FollowedDatabase, error: WalsyncdError) -> None:
        if self._copy_queue.is_stopping:
            return
        failures = self._failures.get(tracked.row_id, 0) + 1
        self._interrupt(tracked, lambda tracked: tracked.base_failed(failures, error.message))
        with suppress(StateError):  # what stays in the journal is resumed or dropped by the next attempt
            for base in self._journal.bases(tracked.row_id):
                self._drop(base)
        if tracked.state is None:
            return  # the follower requests a base again when the next generation begins
        self._failures[tracked.row_id] = failures
        wait_s = delay_s(failures, fraction=1.0, base_s=RETRY_S, cap_s=RETRY_S_MAX)
        wait_s = 0.0 if self._whole_copies.begins_again(tracked) else max(wait_s, self._whole_copies.rest_s(tracked))
        if not isinstance(error, MissingError):
            _log.warning("base_abandoned", database=tracked.name, reason=str(error), next_try_in_s=wait_s)
        self._copy_queue.due(tracked, wait_s, anew=True)

    def _copy(self, tracked: FollowedDatabase) -> Steps[bool]:
        """Copy a base and publish its manifest. Returns False if none is wanted now."""
        origin = yield from self._ask(tracked, self._origin)
        if origin is None:
            return False
        if (file := tracked.open()) is None:
            raise MissingError(f"{tracked.path} does not exist")
        with file:
            if not origin.state.file.is_file(file_facts(file.identity(), self._boot_id, None)):
                raise AbandonedError("another file was put in the database's place")
            origin = self._taking(tracked, origin, file)
            if origin.reading is None and origin.state.mode == "rollback":
                return (yield from self._copy_whole(tracked, origin, file))
            try:
                base = yield from self._copy_file(tracked, origin, file)
                yield from self._publish(tracked, base, origin)
            finally:
                if origin.taking is not None:
                    origin.taking.drop()
        return True

    def _copy_whole(self, tracked: FollowedDatabase, origin: BaseOrigin, file: OpenFile) -> Steps[bool]:
        """Copy a file whose changes only bases store, and have the database rest after the copy."""
        begun, copied_bytes = self._whole_copies.begin(tracked), 0
        try:
            base = yield from self._copy_file(tracked, origin, file)
            yield from self._publish(tracked, base, origin)
            copied_bytes = base.plan.shape.file_size
        finally:
            self._whole_copies.end(tracked, begun, copied_bytes)
        return True

    def _taking(self, tracked: FollowedDatabase, origin: BaseOrigin, file: OpenFile) -> BaseOrigin:
        """Return the origin with the reading or the map that takes in the copied pages, if there is one."""
        if origin.state.mode != "rollback":
            return replace(origin, new_map=self._begin_map(tracked, origin.state, origin.unbroken))
        if tracked.scans is None:
            return origin
        return replace(origin, reading=tracked.scans.begin_base(file.pread(0, HEADER_SIZE)))

    def _origin(self, tracked: FollowedDatabase) -> BaseOrigin | None:
        """Return the origin of a base that begins now, or None if no base can begin. Runs in the follower's thread."""
        state = tracked.state
        tracked.note_base(awaits_restart=False)
        if state is None:
            return None
        if not tracked.base.under_way and not self._is_wanted(tracked, state):
            self._plan_next(tracked)
            return None
        if self._renewal is not None and self._renewal.begins_anew(tracked, state, self._timing.last(tracked)):
            return None
        if state.start_epoch != state.stream.epoch:
            tracked.base_waits()
            self._begin_epoch(tracked, BEGIN_EPOCH_S if self.failures(tracked) else 0.0)
            if self._renewal is not None:  # renewal waits at most one interval for the restart
                self.due(tracked, tracked.spec.snapshot_interval_s)
            return None
        tracked.note_base(under_way=True, waits_since_s=None)
        return origin_of(tracked, state)

    def _copy_file(self, tracked: FollowedDatabase, origin: BaseOrigin, file: OpenFile) -> Steps[FinishedBase]:
        reading = origin.reading
        quiet = file.identity() if origin.state.mode == "rollback" and reading is None else None
        world = self._world(tracked, origin, lambda: quiet in {None, file.identity()})
        if reading is None and (why := origin.disturbance(tracked, file)):
            raise AbandonedError(why)
        resumed = self._resumable(tracked, origin, file)
        if resumed is not None and resumed.row.state is ObjectState.STORED:
            row, plan = resumed.row, parse_plan(resumed.plan)
            return FinishedBase(row, plan, row.size, resumed.etag or "", ranges_of(self._journal.parts(row.id), plan))
        if resumed is not None:
            plan, row = parse_plan(resumed.plan), resumed.row
        else:
            database_id, start = tracked.row_id, origin.start
            plan, row = begin_base(world, database_id=database_id, start=start, file=file, boot_id=self._boot_id)
        finished = yield from BaseCopy(world, name=tracked.name, file=file, plan=plan, row=row).run()
        if (reading is None and origin.disturbance(tracked, file)) or quiet not in {None, file.identity()}:
            raise AbandonedError(WRITTEN)
        return finished

    def _resumable(self, tracked: FollowedDatabase, origin: BaseOrigin, file: OpenFile) -> Base | None:
        generation = origin.start.generation
        for base in self._journal.bases(tracked.row_id):
            plan = parse_plan(base.plan)
            if can_resume(plan, base.row, file, generation=generation, boot_id=self._boot_id):
                goes_on = base.row.state is not ObjectState.STORED
                if origin.state.mode != "rollback":
                    goes_on = goes_on or bool(self._journal.parts(base.row.id))
                elif origin.reading is None:  # a reading would find out what the parts hold by reading all again
                    goes_on = False
                if goes_on and plan.epoch == origin.state.stream.epoch:
                    return base
            self._drop(base)
        return None

    def _drop(self, base: Base) -> None:
        self._journal.base_dropped(base.row.id)
        self._abort_leftovers()

    def _world(self, tracked: FollowedDatabase, origin: BaseOrigin, is_quiet: Callable[[], bool]) -> CopyContext:
        def go_on() -> None:
            if not is_quiet():  # the rest would be uploaded for nothing
                raise AbandonedError(WRITTEN)
            if self._copy_queue.is_stopping:
                raise AbandonedError("the daemon stops")
            origin.check(tracked)

        compressor = (self._compressor and self._compressor()) or FrameCompressor()
        self._compressor = ref(compressor)  # the bases under way keep it alive
        in_flight_max, run_id = self._copy_queue.in_flight_max, self._run_id
        world = CopyContext(self._journal, self._storage, self._submit, in_flight_max, go_on, self._now_ms, compressor)
        if origin.taking is None:
            return replace(world, run_id=run_id)
        return replace(world, run_id=run_id, took=origin.taking.took, took_all=origin.reading is not None)

    # -- the manifest -----------------------------------------------------------------------------------------------

    def _publish(self, tracked: FollowedDatabase, base: FinishedBase, origin: BaseOrigin) -> Steps[None]:
        """Find N and put the manifest into the database's queue, after the segments up to N.

        If the origin has a ``reading``, N is the position after a scan that ships what the base lacks.
        """

        def finish(tracked: FollowedDatabase) -> None:
            state = tracked.state
            if state is None or state.stream.generation != base.plan.generation:
                raise AbandonedError("the generation ended")
            if base.row.id not in {known.row.id for known in self._journal.bases(tracked.row_id)}:
                raise AbandonedError("the spool is read again")
            if state.mode == "rollback" and not is_closed(base, state, origin.reading):
                raise AbandonedError(WRITTEN)
            if origin.new_map is not None:
                origin.new_map.copied(base.plan.shape.file_size, state.stream.position)
            self._spool_manifest(tracked, base, state)
            tracked.note_base(under_way=False, wanted="", problem="", unbased_since_s=None)
            self._timing.taken(tracked, state.stream.position)

        if origin.reading is None:
            yield from self._ask(tracked, finish)
        else:
            yield from close_base(self._interrupt, tracked, base, origin.reading, finish)
        again = tracked.base.begun_for_base(base.plan.epoch, base.plan.frame)
        self._timing.begin_work(tracked, base.size + again)
        _log.info(
            "base_copied",
            database=tracked.name,
            key=base.row.key,
            file_bytes=base.plan.shape.file_size,
            stored_bytes=base.size,
        )

    def _spool_manifest(self, tracked: FollowedDatabase, base: FinishedBase, state: FollowState) -> None:
        generations = self._journal.generations(tracked.row_id)
        generation = next(each for each in generations if each.generation == base.plan.generation)
        new = manifest_object(tracked, base, state, generation, now_ms=self._now_ms())
        stored = StoredBase(base.row.id, base.etag, base.size)
        begin = self._leaves_at_once(tracked.row_id)
        advance = Advance(tracked.row_id, None, (new,), begin=begin, rewinds=tracked.rewinds, base=stored)
        self._offer(self._journal.advance([advance]))

    def _ask(self, tracked: FollowedDatabase, then: Callable[[FollowedDatabase], T]) -> Steps[T]:
        """Have the follower call ``then`` in its thread after a look that begins now, and return the result."""
        answer: Future[T] = self._request(tracked, then)
        yield CopyWait(answer, time.monotonic() + REQUEST_TIMEOUT_S)
        if not answer.done() and answer.cancel():
            raise AbandonedError("the follower did not get to the database in time")
        return answer.result()
