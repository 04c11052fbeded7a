"""The uploader: a fixed number of threads that upload the objects of the journal.

Each queue (``database_queue``) sends one database's objects strictly in order, one at a time. Queues run in parallel.
Parts of bases are tasks, which run when no queue is due and never take the last thread. Idle threads sleep.

| the storage              | so                                                                                |
|--------------------------|-----------------------------------------------------------------------------------|
| fails (TransientError)   | that queue tries again, for ever, with exponential back-off and jitter            |
| is away (`outage`)       | one request at a time probes it, and the rest waits                               |
| refuses (RefusedError)   | that queue tries again (``core.send.refused_request``); its status has the reason |
| never takes an object    | the generation ends (``engine.ship.shipper``), the follower begins another        |
| is well, our disk is full| that queue tries again every second (StateError), the reserve is released         |

A thread decides under the lock (``engine.ship.scheduler``) and acts outside it. At most one idle thread sleeps with a
timeout. A thread that takes a job wakes another one if work remains, so an event wakes at most two threads.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress

from walsyncd.adapters.journal.journal import Journal, ObjectRow
from walsyncd.adapters.storage.interface import Storage
from walsyncd.adapters.system import clock
from walsyncd.core.follow.gap import Gap
from walsyncd.core.send.backoff import delay_s
from walsyncd.core.send.pacing import Bucket, refill
from walsyncd.core.send.refused_request import Refused, refused_wait_s
from walsyncd.engine.ship import scheduler as jobs
from walsyncd.engine.ship.database_queue import DatabaseQueue
from walsyncd.engine.ship.object_upload import abort_leftovers
from walsyncd.engine.ship.outage import Outage
from walsyncd.engine.ship.ownership import Identity, Ownership
from walsyncd.engine.ship.rate_limiter import RateLimiter
from walsyncd.engine.ship.scheduler import Job, Scheduler, Task
from walsyncd.engine.ship.shipper import Shipper, UploadEvents
from walsyncd.engine.ship.upload_errors import UploadErrors
from walsyncd.engine.threads.boundary import boundary
from walsyncd.engine.threads.stall_detector import StallDetector
from walsyncd.errors import FaultError, ImpossibleError, RefusedError, StateError, TransientError, UsageError
from walsyncd.log import get_logger

UPLOADS_MAX_DEFAULT = 8  # threads; a request mostly waits
UPLOAD_INTERVAL_DEFAULT_S = 1.0
STATE_WAIT_S = 1.0  # a full disk is checked as often as the follower checks it


class Uploader:
    """Uploads the spool of databases that ``owns`` accepts. ``crash`` gets the error of a bug. Any thread may call."""

    def __init__(
        self,
        journal: Journal,
        storage: Storage,
        events: UploadEvents,
        crash: Callable[[BaseException], None],
        *,
        identity: Identity,
        uploads_max: int = UPLOADS_MAX_DEFAULT,
        stall_detector: StallDetector | None = None,
        bytes_per_s_max: float | None = None,
        expire_s: float | None = None,
        owns: Callable[[int], bool] = lambda _database_id: True,
        wall_ms: Callable[[], int] = clock.wall_ms,
        monotonic_ms: Callable[[], float] = clock.monotonic_ms,
    ) -> None:
        self._journal, self._storage = journal, storage
        self._crash, self._owns = crash, owns
        self._stall_detector = stall_detector or StallDetector()
        self._wall_ms, self._monotonic_ms = wall_ms, monotonic_ms
        self._rate_limiter = RateLimiter(bytes_per_s_max, monotonic_ms, self._stall_detector.beat)
        self._upload_errors = UploadErrors(journal, storage.url, wall_ms)
        self._shipper = Shipper(
            journal,
            storage,
            Ownership(journal, storage, identity, wall_ms, expire_s=expire_s),
            events,
            resumed_upto=journal.last_object_id(),
            before_body=self._rate_limiter.wait_for_segment,
            wall_ms=wall_ms,
            monotonic_ms=monotonic_ms,
        )
        self._threads = [
            threading.Thread(target=self._work, name=f"upload-{number}", daemon=True)
            for number in range(1, uploads_max + 1)
        ]
        self._wake = threading.Condition()
        # Guarded by the lock of _wake:
        self._scheduler = Scheduler(tasks_running_max=max(1, uploads_max - 1))
        self._scheduler.has_leftovers = any(owns(each.database_id) for each in journal.leftovers())
        self._alarm_ms: float | None = None
        self._is_broken = self._is_left = False  # left: ``stop`` no longer waits for the threads

    def start(self) -> None:
        """Start the threads; what earlier runs left in the journal is sent first."""
        spooled = [each for each in self._journal.databases() if each.spooled_bytes and self._owns(each.id)]
        with self._wake:
            for database in spooled:
                self._scheduler.mark(self._queue(database.id), database.spooled_bytes)
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 0.0, *, linger_s: float | None = None) -> bool:
        """Ship what is spooled for at most ``timeout_s``, finish the requests in flight, end the threads.

        During an outage nothing more is tried. Tasks not begun are cancelled. Requests in flight are awaited for
        ``linger_s`` more, or to their end if ``linger_s`` is None. Returns False if a request is still under way. Its
        result is then ignored: the journal may be closed, and the next run finds out what became of the request.
        """
        until_ms = self._monotonic_ms() + 1000 * timeout_s
        with self._wake:
            tasks = self._scheduler.stop(until_ms)
            self._wake.notify_all()
        self._rate_limiter.open()
        for task in tasks:
            task.future.cancel()
        begun = [thread for thread in self._threads if thread.ident is not None]
        for thread in begun:
            thread.join(None if linger_s is None else max(0.0, (until_ms - self._monotonic_ms()) / 1000 + linger_s))
        with self._wake:
            self._is_left = any(thread.is_alive() for thread in begun)
        if not self._is_left:
            with suppress(StateError):  # the next run asks the store instead
                self._journal.commit_deferred()
        return not self._is_left

    def pace(self, database_id: int, upload_interval_s: float) -> None:
        """Set the mean time between two objects of a database."""
        with self._wake:
            queue = self._queue(database_id, upload_interval_s)
            queue.interval_ms = 1000 * upload_interval_s
            self._schedule(queue)

    def offer(self, rows: Sequence[ObjectRow]) -> None:
        """Note that these objects were journaled just now."""
        with self._wake:
            for row in rows:
                if self._scheduler.mark(self._queue(row.database_id), row.size, row, now_ms=self._monotonic_ms()):
                    self._wake.notify()

    def submit(self, database_id: int, task: Callable[[], object], size: int = 0) -> Future[object]:
        """Run ``task``, which sends ``size`` bytes of a base, in a thread once the database is ours to write.

        The future gets what the task returns or raises, or ImpossibleError if the database is not ours any more.
        """
        future: Future[object] = Future()
        with self._wake:
            queue = self._queue(database_id)
            if self._scheduler.stop_at_ms is not None:
                future.cancel()
            elif queue.stopped:
                future.set_exception(ImpossibleError(f"write to {queue.name}: {queue.stopped}"))
            else:
                self._scheduler.add_task(Task(database_id, task, future, size))
                self._wake.notify()
        return future

    def urgent(self, database_ids: Sequence[int]) -> None:
        """Send what these databases have spooled by now without waiting for tokens."""
        upto = self._journal.last_object_id()
        with self._wake:
            for database_id in database_ids:
                queue = self._queue(database_id)
                queue.urgent_upto = upto
                queue.not_before_ms = 0.0  # the caller may have fixed the cause of a refusal
                self._schedule(queue)

    def may_leave_at_once(self, database_id: int) -> bool:
        """Whether an object spooled now would be sent now, so that its row may be written as begun."""
        with self._wake:
            is_open = self._scheduler.outage is None and self._scheduler.stop_at_ms is None
            return is_open and self._queue(database_id).may_leave_at_once(self._monotonic_ms())

    def leaves_in_s(self, database_id: int) -> float:
        """Return how many seconds spooling can wait without delaying an upload, if the storage answers."""
        with self._wake:
            return self._queue(database_id).leaves_in_ms(self._monotonic_ms()) / 1000

    def is_taken(self, database_id: int) -> bool:
        """Whether another daemon writes to the database, and this one does not."""
        with self._wake:
            return bool(self._queue(database_id).stopped)

    def leave(self, database_id: int, reason: str) -> bool:
        """Write nothing of a database any more. Returns False while a request of that database is under way."""
        with self._wake:
            queue = self._queue(database_id)
            queue.stopped = reason
            return not queue.is_busy

    def take_over(self, database_id: int, gap: Gap) -> None:
        """Write again to a database that was taken over, in a generation that the follower has yet to begin."""
        row = self._journal.database_by_id(database_id)
        if row.generation is not None:
            self._journal.lose_generation(database_id, row.generation, gap, self._wall_ms())
        self.drop_spool(database_id)
        with self._wake:
            queue = self._queue(database_id)
            queue.stopped = ""
            queue.is_claimed = False
            self._schedule(queue)

    def drop_spool(self, database_id: int) -> int:
        """Drop all that the database has spooled and abort its open upload. Returns the number of bytes freed."""
        freed = self._journal.drop_spool(database_id)
        self.abort_leftovers()
        return freed

    def abort_leftovers(self) -> None:
        """Request that the uploads which the journal lists as abandoned are aborted soon."""
        with self._wake:
            self._scheduler.has_leftovers = True
            self._wake.notify()

    def outage(self) -> Outage | None:
        """Return the current outage, or None."""
        with self._wake:
            return self._scheduler.outage

    def refusal(self) -> str:
        """Why the storage refuses at least one database at present; empty if it refuses none."""
        return self._upload_errors.refusal

    def heard(self, error: TransientError | None) -> None:
        """Note the result of a request made elsewhere: an error that shows the storage away, or None if it answered."""
        if error is None:
            self._answered()
        else:
            self._gone_away(error)

    def _work(self) -> None:
        try:
            while (act := self._next_act()) is not None:
                with self._stall_detector.work():
                    self._do(act)
                del act  # otherwise a part's body stays in memory until the next job
        except BaseException as error:  # noqa: BLE001 - a bug is never swallowed: ``crash`` ends the process
            self._report(error)

    def _report(self, error: BaseException) -> None:
        with self._wake:
            self._is_broken = True
            self._wake.notify_all()
            is_left = self._is_left
        if not is_left:  # otherwise the journal was closed while this thread used it
            self._crash(error)

    def _next_act(self) -> Job | None:
        """Return the next job when its moment has come. Returns None if the thread must end."""
        with self._wake:
            while not self._is_broken:
                self._scheduler.tasks_not_before_ms = self._rate_limiter.parts_not_before_ms
                act = self._scheduler.next(self._monotonic_ms(), self._journal.deferred_due_s())
                match act:
                    case jobs.Wait(timeout_s):
                        self._sleep(timeout_s)
                    case jobs.Finish():
                        self._wake.notify_all()
                        return None
                    case _:
                        if isinstance(act, jobs.RunTask):
                            self._rate_limiter.part_begins(act.task.size)
                        if self._alarm_ms is None and self._scheduler.has_more:
                            self._wake.notify()
                        return act
            return None

    def _sleep(self, timeout_s: float | None) -> None:
        """Sleep until woken. The timeout is not used if another thread's timeout ends at the same time or sooner."""
        alarm_ms = None if timeout_s is None else self._monotonic_ms() + 1000 * timeout_s
        if alarm_ms is None or (self._alarm_ms is not None and self._alarm_ms <= alarm_ms):
            self._wake.wait()
            return
        self._alarm_ms = alarm_ms
        self._wake.wait(timeout_s)
        self._alarm_ms = None if self._alarm_ms == alarm_ms else self._alarm_ms

    def _do(self, act: Job) -> None:
        match act:
            case jobs.DrainQueue():
                self._drain_queue(act)
            case jobs.RunTask(task):
                self._run_task(task)
            case jobs.Merge(queue):
                self._merge(queue)
            case jobs.AbortUploads():
                self._abort_leftovers()
            case jobs.CommitDeferred():
                try:
                    self._journal.commit_deferred()
                except StateError as error:
                    self._upload_errors.state_failed(error)

    def _drain_queue(self, act: jobs.DrainQueue) -> None:
        queue = act.queue
        try:
            with boundary("upload", database=queue.name):
                checks, offered = act.check_ownership, act.offered
                result = self._shipper.drain(queue, is_urgent=act.is_urgent, check_ownership=checks, offered=offered)
        except StateError as error:
            self._upload_errors.state_failed(error)
            self._retry(act, STATE_WAIT_S)
            return
        except TransientError as error:
            self._gone_away(error, queue.database_id)
            self._upload_errors.away(queue, error, is_away=self.outage() is not None)
            self._retry(act, delay_s(queue.failures + 1, fraction=random.random()))  # noqa: S311  not a secret
            return
        except RefusedError as error:
            self._answered()
            self._upload_errors.refused(queue, error)
            fraction = random.random()  # noqa: S311  not a secret
            self._retry(act, refused_wait_s(Refused.OBJECT, queue.failures, fraction=fraction))
            return
        except (FaultError, UsageError) as error:  # a key that this storage can't have, for example
            self._upload_errors.failed(queue, error)
            self._retry(act, refused_wait_s(Refused.OBJECT, queue.failures))
            return
        if result.reached_storage:
            self._answered()
            self._upload_errors.over(queue)
        with self._wake:
            refused = self._scheduler.settle(queue, result)
        for task in refused:
            task.refuse(result.verdict.reason if result.verdict else "")

    def _merge(self, queue: DatabaseQueue) -> None:
        try:
            with suppress(FaultError), boundary("merge", database=queue.name):  # else they are sent unmerged
                self._shipper.merge_waiting(queue)
        except StateError as error:
            self._upload_errors.state_failed(error)
        with self._wake:
            self._scheduler.merged(queue)

    def _retry(self, act: jobs.DrainQueue, wait_s: float) -> None:
        with self._wake:
            self._scheduler.retry(act, not_before_ms=self._monotonic_ms() + 1000 * wait_s)

    def _run_task(self, task: Task) -> None:
        began_ms = self._monotonic_ms()
        error = task.run()
        if isinstance(error, TransientError):
            self._gone_away(error, task.database_id, by_part=True)
        else:
            self._answered()
        with self._wake:
            self._scheduler.task_ended(error, took_ms=self._monotonic_ms() - began_ms)

    def _abort_leftovers(self) -> None:
        try:
            with boundary("abort_uploads"):
                abort_leftovers(self._journal, self._storage, self._owns)
        except StateError as error:
            self._upload_errors.state_failed(error)
        except TransientError as error:
            self._gone_away(error)
            self.abort_leftovers()
        except (RefusedError, FaultError) as error:  # nothing depends on the aborts; the next run tries again
            self._answered()
            get_logger().warning("leftovers_kept", reason=str(error))
        else:
            self._answered()

    # The storage's answers.

    def _gone_away(self, error: TransientError, database_id: int | None = None, *, by_part: bool = False) -> None:
        with self._wake:
            now_ms, fraction = self._monotonic_ms(), random.random()  # noqa: S311  not a secret
            is_news = self._scheduler.gone_away(
                str(error), now_ms=now_ms, fraction=fraction, database_id=database_id, by_part=by_part
            )
        if is_news:
            get_logger().warning("storage_went_away", url=self._storage.url, reason=str(error))

    def _answered(self) -> None:
        with self._wake:
            over = self._scheduler.answered()
        if over is not None:
            away_s = round((self._monotonic_ms() - over.since_ms) / 1000, 1)
            get_logger().info("storage_came_back", url=self._storage.url, away_s=away_s)

    def _queue(self, database_id: int, interval_s: float = UPLOAD_INTERVAL_DEFAULT_S) -> DatabaseQueue:
        queue = self._scheduler.queues.get(database_id)
        if queue is None:
            row = self._journal.database_by_id(database_id)
            interval_ms = 1000 * interval_s
            level = refill(Bucket(row.tokens, row.tokens_ms), now_ms=self._wall_ms(), interval_ms=interval_ms).level
            queue = DatabaseQueue(database_id, row.name, Bucket(level, self._monotonic_ms()), interval_ms)
            self._scheduler.queues[database_id] = queue
        return queue

    def _schedule(self, queue: DatabaseQueue) -> None:
        self._scheduler.schedule(queue)
        self._wake.notify()
