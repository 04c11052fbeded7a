"""Chooses the next job of an uploader thread: queues that are due, then leftovers, then tasks; or how long to wait.

The scheduler only decides: it has no clock, lock or storage. The caller holds the uploader's lock and passes the time
(monotonic, milliseconds). During an outage one job runs at a time, and not before the next probe is due. But while only
one database's requests have failed, the other databases' requests continue (``engine.ship.outage``).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeAlias

from walsyncd.adapters.journal.journal import ObjectRow, ObjectState
from walsyncd.core.send.merge import CROWD, MERGED_SIZE_MAX
from walsyncd.engine.ship import outage as outages
from walsyncd.engine.ship.database_queue import DatabaseQueue
from walsyncd.engine.ship.outage import DATABASES_MIN, FAILURES_MIN, Outage
from walsyncd.engine.ship.ownership import Standing
from walsyncd.engine.ship.shipper import QueueResult
from walsyncd.engine.threads.boundary import boundary
from walsyncd.engine.threads.due_queue import DueQueue
from walsyncd.errors import ImpossibleError, TransientError, WalsyncdError

# Parts share the bandwidth. On a slow line, several parts at a time only delay each other and all fail together.
BAD_TASKS_MAX = 2
SINGLE_TASKS = 8
TASK_MS_MAX = 30_000.0  # a part of 8 MiB at 2 Mbit/s


@dataclass(frozen=True, slots=True)
class Task:
    """A job for a thread of the uploader: a part of a base, with a body of ``size`` bytes."""

    database_id: int
    call: Callable[[], object]
    future: Future[object]
    size: int = 0

    def run(self) -> WalsyncdError | None:
        """Run the task. Returns the error that it raised, or None."""
        if not self.future.set_running_or_notify_cancel():
            return None
        try:
            with boundary("send_part"):
                result = self.call()
        except WalsyncdError as error:
            self.future.set_exception(error)
            return error
        self.future.set_result(result)
        return None

    def refuse(self, reason: str) -> None:
        """Fail the task without running it."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(ImpossibleError(f"write to the database's folder: {reason}"))


@dataclass(frozen=True, slots=True)
class DrainQueue:
    """Send what is pending in ``queue``, which is now busy: ``offered``, or what the journal has if that is None."""

    queue: DatabaseQueue
    is_urgent: bool
    check_ownership: bool
    offered: ObjectRow | None = None


@dataclass(frozen=True, slots=True)
class RunTask:
    """Run ``task``."""

    task: Task


@dataclass(frozen=True, slots=True)
class Merge:
    """Merge what is pending in ``queue``, which is now busy. This is done while the storage is away."""

    queue: DatabaseQueue


@dataclass(frozen=True, slots=True)
class AbortUploads:
    """Abort the uploads of abandoned objects."""


@dataclass(frozen=True, slots=True)
class CommitDeferred:
    """Make durable what the journal has deferred, because no other transaction has come in time."""


@dataclass(frozen=True, slots=True)
class Wait:
    """There is nothing to do for ``timeout_s`` seconds or, without a timeout, until something changes."""

    timeout_s: float | None


@dataclass(frozen=True, slots=True)
class Finish:
    """The thread must end."""


Job: TypeAlias = DrainQueue | RunTask | Merge | AbortUploads | CommitDeferred | Wait | Finish


class Scheduler:
    """The queues of all databases, the tasks, and the state of the storage."""

    def __init__(self, *, tasks_running_max: int) -> None:
        self.queues: dict[int, DatabaseQueue] = {}
        self.outage: Outage | None = None
        self.has_leftovers = False
        self.stop_at_ms: float | None = None
        self._failed: Counter[int] = Counter()  # failed requests by database since a request was last answered
        self.tasks_not_before_ms = 0.0  # when the bandwidth allows a base's next part
        self._tasks: deque[Task] = deque()
        self._tasks_running = 0
        self._tasks_running_max = tasks_running_max
        self._bad_tasks = 0  # in a row
        self._single_tasks = 0  # how many tasks must succeed one at a time before they run in parallel again
        self._crowded: set[int] = set()
        self._due: DueQueue[int] = DueQueue()  # database ids

    def next(self, now_ms: float, deferred_s: float | None = None) -> Job:
        """Return the next job, which counts as begun.

        What the journal has deferred must be committed in ``deferred_s`` seconds, which is None if nothing is deferred.
        """
        if self._is_finished(now_ms):
            return Finish()
        if self._may_try(now_ms):
            act = self._begin(now_ms)
            if act is not None:
                if self.outage is not None:
                    self.outage = outages.probe(self.outage, by_part=isinstance(act, RunTask))
                return act
        elif (queue := self._second_opinion(now_ms)) is not None:
            return self._turn_of(queue)
        if self._crowded and not self._is_stopping:
            return self._merge()
        if deferred_s == 0:
            return CommitDeferred()
        waits_s = [wait_s for wait_s in (self._idle_s(now_ms), deferred_s) if wait_s is not None]
        return Wait(min(waits_s, default=None))

    @property
    def has_more(self) -> bool:
        """Whether there is work, now or later, that no thread has taken."""
        return bool(self._due or self._tasks or self.has_leftovers or self._crowded)

    def mark(self, queue: DatabaseQueue, size: int, row: ObjectRow | None = None, *, now_ms: float = 0.0) -> bool:
        """Note that ``size`` more bytes are pending in the queue: those of ``row``, if the caller knows it.

        Returns whether a sleeping thread must be woken. Otherwise a thread wakes in time by itself, or a busy one takes
        the queue after its job.
        """
        is_only = row is not None and row.state is ObjectState.BEGUN and not (queue.has_work or queue.is_busy)
        queue.offered = row if is_only else None
        queue.has_work = True
        queue.bytes_waiting += size
        queue.rows_waiting += 1
        self._note_crowd(queue)
        is_first = self.schedule(queue)
        due_ms = queue.due_ms(is_urgent=self._is_stopping)
        is_due = due_ms is not None and due_ms <= now_ms  # the thread for the first one may be busy for long
        return is_first or is_due or self.outage is not None or self._is_stopping

    def merged(self, queue: DatabaseQueue) -> None:
        """Note that the pending objects of the queue were merged."""
        queue.is_busy = False
        self.schedule(queue)

    def schedule(self, queue: DatabaseQueue) -> bool:
        """Plan a drain for when the queue is due, if that is sooner than planned.

        Returns whether the queue is now the first of all.
        """
        due_ms = queue.due_ms(is_urgent=self._is_stopping)
        return due_ms is not None and self._due.hasten(queue.database_id, due_ms)

    def settle(self, queue: DatabaseQueue, drain: QueueResult) -> list[Task]:
        """End a drain of the queue. Returns the tasks that can't be done any more."""
        queue.is_busy = False
        queue.failures = 0
        queue.not_before_ms = 0.0
        queue.bytes_waiting += drain.bytes_left
        queue.has_work |= drain.next_id is not None
        if drain.next_id is None:
            queue.rows_waiting = 0
        if not queue.has_work or (drain.next_id or 0) > queue.urgent_upto:
            queue.urgent_upto = 0
        if self.outage is not None and not drain.reached_storage:
            self.outage = outages.unprobe(self.outage)
        failed: list[Task] = []
        if drain.verdict is not None:
            self.has_leftovers = True
            queue.stopped = drain.verdict.reason if drain.verdict.standing is Standing.TAKEN else ""
            failed = self._take_tasks(queue.database_id)
        self.schedule(queue)
        return failed

    def retry(self, act: DrainQueue, *, not_before_ms: float) -> None:
        """Plan another attempt after a failed drain."""
        queue = act.queue
        queue.is_busy = False
        queue.has_work = True
        queue.check_ownership |= act.check_ownership
        # The pending objects are still there, but their size was not learned. The next drain finds out, without a
        # token.
        queue.bytes_waiting = max(queue.bytes_waiting, MERGED_SIZE_MAX)
        queue.failures += 1
        queue.not_before_ms = not_before_ms
        self._note_crowd(queue)
        self.schedule(queue)

    def add_task(self, task: Task) -> None:
        """Plan to run ``task`` when no queue is due and the task's database is ours to write."""
        self._tasks.append(task)

    def task_ended(self, error: WalsyncdError | None, *, took_ms: float) -> None:
        """Note that a task has ended after ``took_ms``; ``error`` is what it raised."""
        self._tasks_running -= 1
        is_bad = isinstance(error, TransientError) or took_ms > TASK_MS_MAX
        self._bad_tasks = self._bad_tasks + 1 if is_bad else 0
        if self._bad_tasks >= BAD_TASKS_MAX:
            self._single_tasks = SINGLE_TASKS
        elif not is_bad:
            self._single_tasks = max(0, self._single_tasks - 1)

    def stop(self, at_ms: float) -> list[Task]:
        """Send what is pending, without pacing, until ``at_ms``. Returns the tasks that will not be begun."""
        self.stop_at_ms = at_ms
        for queue in self.queues.values():
            self.schedule(queue)
        left, self._tasks = list(self._tasks), deque()
        return left

    def gone_away(
        self, reason: str, *, now_ms: float, fraction: float, database_id: int | None = None, by_part: bool = False
    ) -> bool:
        """Note that a request found the storage away. Returns True if an outage has begun with that.

        ``database_id`` is the database that the request was for. It is None for a request that only probed the storage.
        """
        if database_id is not None:
            self._failed[database_id] += 1
        if self.outage is not None:
            self.outage = outages.worsen(self.outage, reason, now_ms=now_ms, fraction=fraction, by_part=by_part)
            return False
        few = len(self._failed) < DATABASES_MIN and max(self._failed.values(), default=0) < FAILURES_MIN
        if database_id is not None and few:
            return False
        self.outage = outages.begin(reason, now_ms=now_ms, fraction=fraction)
        for queue in self.queues.values():
            self._note_crowd(queue)
        return True

    def answered(self) -> Outage | None:
        """Note that the storage has answered. Returns the outage that this ends, if any."""
        self._failed.clear()
        over, self.outage = self.outage, None
        return over

    def _note_crowd(self, queue: DatabaseQueue) -> None:
        """Plan a merge if many objects are pending while the storage is away."""
        if self.outage is not None and queue.rows_waiting >= CROWD and not queue.is_busy:
            self._crowded.add(queue.database_id)

    @property
    def _is_stopping(self) -> bool:
        return self.stop_at_ms is not None

    def _is_finished(self, now_ms: float) -> bool:
        if self.stop_at_ms is None:
            return False
        if self.outage is not None or now_ms >= self.stop_at_ms:
            return True
        return not any(queue.is_busy or _is_due(queue, now_ms) for queue in self.queues.values())

    def _may_try(self, now_ms: float) -> bool:
        outage = self.outage
        return outage is None or (not outage.is_probed and now_ms >= outage.probe_ms)

    @property
    def _wants_second_opinion(self) -> bool:
        return len(self._failed) < DATABASES_MIN

    def _second_opinion(self, now_ms: float) -> DatabaseQueue | None:
        """Return a due queue that may try although another database, so far the only one, found the storage away."""
        if self.outage is None or not self._wants_second_opinion:
            return None
        suspects: list[DatabaseQueue] = []
        while (queue := self._due_queue(now_ms)) is not None and queue.database_id in self._failed:
            suspects.append(queue)
        for each in suspects:
            self.schedule(each)
        return queue

    def _begin(self, now_ms: float) -> Job | None:
        queue = self._due_queue(now_ms)
        if queue is not None:
            return self._turn_of(queue)
        if self.has_leftovers:
            self.has_leftovers = False
            return AbortUploads()
        task = self._next_task(now_ms)
        if task is not None:
            self._tasks_running += 1
            return RunTask(task)
        queue = self._due_queue(now_ms)  # a queue that has to be claimed for a task is due now
        return None if queue is None else self._turn_of(queue)

    def _due_queue(self, now_ms: float) -> DatabaseQueue | None:
        while (database_id := self._due.pop(now_ms)) is not None:
            queue = self.queues[database_id]
            due_ms = queue.due_ms(is_urgent=self._is_stopping)
            if due_ms is not None and due_ms <= now_ms:
                return queue
            self.schedule(queue)
        return None

    def _turn_of(self, queue: DatabaseQueue) -> DrainQueue:
        """Clear the latches before the journal is read."""
        drain = DrainQueue(queue, self._is_stopping, queue.check_ownership, queue.offered)
        queue.has_work = queue.check_ownership = False
        queue.offered = None
        queue.bytes_waiting = 0
        queue.is_busy, queue.has_paid = True, False
        return drain

    def _merge(self) -> Job:
        queue = self.queues[self._crowded.pop()]
        if queue.is_busy:
            return self._merge() if self._crowded else Wait(None)
        queue.rows_waiting = 0
        queue.is_busy, queue.offered = True, None
        return Merge(queue)

    def _next_task(self, now_ms: float) -> Task | None:
        running_max = 1 if self._single_tasks else self._tasks_running_max
        if self._tasks_running >= running_max or now_ms < self.tasks_not_before_ms:
            return None
        if self.outage is not None and self.outage.is_tried:
            return None
        for index, task in enumerate(self._tasks):
            queue = self.queues[task.database_id]
            if not queue.needs_ownership_check(now_ms):
                del self._tasks[index]
                queue.tasks_since_look += 1
                return task
            if not queue.is_busy:  # if the queue is busy, its drain may make the claim, and the task is chosen after it
                queue.check_ownership = True
                self.schedule(queue)
        return None

    def _take_tasks(self, database_id: int) -> list[Task]:
        taken = [task for task in self._tasks if task.database_id == database_id]
        self._tasks = deque(task for task in self._tasks if task.database_id != database_id)
        return taken

    def _idle_s(self, now_ms: float) -> float | None:
        """Return for how many seconds there is nothing to do. What is already due waits for a job that is under way."""
        first_ms = self._due.first()
        moments = [] if first_ms is None else [first_ms]
        outage = self.outage
        if self._tasks:
            moments.append(self.tasks_not_before_ms)
        if outage is not None:
            if (self._tasks and not outage.is_tried) or self.has_leftovers:
                moments.append(outage.probe_ms)
            moments = [] if outage.is_probed else [max(outage.probe_ms, moment) for moment in moments]
            if self._wants_second_opinion:
                moments += [due_ms for database_id, due_ms in self._due.items() if database_id not in self._failed]
        if self.stop_at_ms is not None:
            moments.append(self.stop_at_ms)
        ahead = [moment for moment in moments if moment > now_ms]
        return (min(ahead) - now_ms) / 1000 if ahead else None


def _is_due(queue: DatabaseQueue, now_ms: float) -> bool:
    due_ms = queue.due_ms(is_urgent=True)
    return due_ms is not None and due_ms <= now_ms
