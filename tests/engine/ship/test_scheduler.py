"""Tests of what the uploader's threads do next, without threads and with a clock of the test's own."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from walsyncd.core.send.merge import CROWD
from walsyncd.core.send.pacing import Bucket
from walsyncd.engine.ship.database_queue import DatabaseQueue
from walsyncd.engine.ship.ownership import Standing, Verdict
from walsyncd.engine.ship.scheduler import (
    SINGLE_TASKS,
    TASK_MS_MAX,
    AbortUploads,
    DrainQueue,
    Finish,
    Merge,
    RunTask,
    Scheduler,
    Task,
    Wait,
)
from walsyncd.engine.ship.shipper import QueueResult
from walsyncd.errors import FaultError, ImpossibleError, TransientError

DONE = QueueResult(reached_storage=True)


@pytest.fixture
def dispatch() -> Scheduler:
    return Scheduler(tasks_running_max=1)


def add_lane(dispatch: Scheduler, database_id: int, *, level: float = 1.0, is_claimed: bool = True) -> DatabaseQueue:
    queue = DatabaseQueue(database_id, f"db-{database_id}", Bucket(level, 0.0), 1000.0, is_claimed=is_claimed)
    dispatch.queues[database_id] = queue
    return queue


def add_task(dispatch: Scheduler, database_id: int, call: object = None) -> Task:
    task = Task(database_id, lambda: call, Future())
    dispatch.add_task(task)
    return task


def turn_of(dispatch: Scheduler, now_ms: float) -> DrainQueue:
    act = dispatch.next(now_ms)
    assert isinstance(act, DrainQueue)
    return act


def test_nothing_to_do_is_no_wake_up(dispatch: Scheduler) -> None:
    """No thread wakes, for any number of queues."""
    for database_id in range(100):
        add_lane(dispatch, database_id)
    assert dispatch.next(0.0) == Wait(None)


def test_a_queue_without_a_token_is_waited_for(dispatch: Scheduler) -> None:
    """The wait lasts exactly until the queue is due."""
    queue = add_lane(dispatch, 1, level=0.5)
    dispatch.mark(queue, 10)
    assert dispatch.next(100.0) == Wait(0.4)
    assert turn_of(dispatch, 500.0).queue is queue


def test_a_queue_is_one_threads_at_a_time(dispatch: Scheduler) -> None:
    """An offer that comes while a thread has the queue is not forgotten."""
    queue = add_lane(dispatch, 1)
    dispatch.mark(queue, 10)
    turn_of(dispatch, 0.0)
    dispatch.mark(queue, 20)
    assert dispatch.next(0.0) == Wait(None)
    dispatch.settle(queue, DONE)
    assert turn_of(dispatch, 0.0).queue is queue
    assert queue.bytes_waiting == 0


def test_queues_take_turns(dispatch: Scheduler) -> None:
    """The queue that is due first comes first."""
    first, second = add_lane(dispatch, 1, level=0.2), add_lane(dispatch, 2, level=0.9)
    dispatch.mark(first, 10)
    dispatch.mark(second, 10)
    assert turn_of(dispatch, 2000.0).queue is second
    assert turn_of(dispatch, 2000.0).queue is first


def test_what_becomes_urgent_comes_sooner(dispatch: Scheduler) -> None:
    """An urgent queue is drained only once, although it is on the schedule twice."""
    queue = add_lane(dispatch, 1, level=0.0)
    dispatch.mark(queue, 10)
    queue.urgent_upto = 7
    dispatch.schedule(queue)
    assert turn_of(dispatch, 10.0).queue is queue
    dispatch.settle(queue, DONE)
    assert dispatch.next(2000.0) == Wait(None)


@pytest.mark.parametrize(("next_id", "upto"), [(None, 0), (7, 7), (8, 0), (0, 7)])
def test_urgency_ends_behind_its_last_object(dispatch: Scheduler, next_id: int | None, upto: int) -> None:
    """A single sync does not disable the pacing of a busy database for ever."""
    queue = add_lane(dispatch, 1)
    queue.urgent_upto = 7
    dispatch.mark(queue, 10)
    turn_of(dispatch, 0.0)
    dispatch.settle(queue, QueueResult(next_id=next_id, reached_storage=True))
    assert queue.urgent_upto == upto


def test_queues_go_before_leftovers_before_tasks(dispatch: Scheduler) -> None:
    """Commits are to be stored within seconds, and bases may take longer."""
    queue = add_lane(dispatch, 1)
    task = add_task(dispatch, 1)
    dispatch.has_leftovers = True
    dispatch.mark(queue, 10)
    assert turn_of(dispatch, 0.0).queue is queue
    assert dispatch.next(0.0) == AbortUploads()
    assert dispatch.next(0.0) == RunTask(task)


def test_tasks_leave_a_thread_for_the_queues(dispatch: Scheduler) -> None:
    """The next task waits, without a clock, until another task ends."""
    add_lane(dispatch, 1)
    add_task(dispatch, 1)
    second = add_task(dispatch, 1)
    dispatch.next(0.0)
    assert dispatch.next(0.0) == Wait(None)
    dispatch.task_ended(None, took_ms=1.0)
    assert dispatch.next(0.0) == RunTask(second)


@pytest.mark.parametrize(
    ("error", "took_ms"), [(TransientError("reset"), 1.0), (None, TASK_MS_MAX + 1)], ids=["failed", "slow"]
)
def test_parts_go_one_at_a_time_after_two_that_failed_or_took_long(
    error: TransientError | None, took_ms: float
) -> None:
    """With one part at a time a slow line has less to lose.

    This ends after some parts have gone well. One bad part changes nothing.
    """
    scheduler = Scheduler(tasks_running_max=3)
    add_lane(scheduler, 1)
    for _ in range(3):
        add_task(scheduler, 1)
        assert isinstance(scheduler.next(0.0), RunTask)
    scheduler.task_ended(error, took_ms=took_ms)
    add_task(scheduler, 1)
    assert isinstance(scheduler.next(0.0), RunTask)
    scheduler.task_ended(error, took_ms=took_ms)
    scheduler.task_ended(error, took_ms=took_ms)
    add_task(scheduler, 1)
    assert scheduler.next(0.0) == Wait(None)
    scheduler.task_ended(None, took_ms=1.0)
    for _ in range(SINGLE_TASKS - 1):
        assert isinstance(scheduler.next(0.0), RunTask)
        add_task(scheduler, 1)
        assert scheduler.next(0.0) == Wait(None)
        scheduler.task_ended(None, took_ms=1.0)
    add_task(scheduler, 1)
    assert isinstance(scheduler.next(0.0), RunTask)
    assert isinstance(scheduler.next(0.0), RunTask)


def test_a_task_waits_for_its_claim(dispatch: Scheduler) -> None:
    """The task's queue is drained first, though it has nothing to send."""
    queue = add_lane(dispatch, 1, level=0.0, is_claimed=False)
    task = add_task(dispatch, 1)
    drain = turn_of(dispatch, 0.0)
    assert drain.check_ownership
    assert dispatch.next(0.0) == Wait(None)
    queue.ownership_checked(0.0, 0.0)
    dispatch.settle(queue, DONE)
    assert dispatch.next(0.0) == RunTask(task)


def test_the_tasks_of_a_lost_queue_are_refused(dispatch: Scheduler) -> None:
    """The tasks of others continue. Nothing more is sent where another daemon writes."""
    queue, other = add_lane(dispatch, 1, is_claimed=False), add_lane(dispatch, 2)
    task, kept = add_task(dispatch, 1), add_task(dispatch, 2)
    assert dispatch.next(0.0) == RunTask(kept)
    dispatch.task_ended(None, took_ms=1.0)
    turn_of(dispatch, 0.0)
    verdict = Verdict(Standing.TAKEN, "another daemon")
    assert dispatch.settle(queue, QueueResult(next_id=0, reached_storage=True, verdict=verdict)) == [task]
    assert queue.stopped == "another daemon"
    assert not other.stopped
    assert dispatch.next(0.0) == AbortUploads()
    assert dispatch.next(0.0) == Wait(None)


def test_while_the_storage_is_away_one_probes(dispatch: Scheduler) -> None:
    """One queue probes when its time comes, and the others wait for the result."""
    queues = [add_lane(dispatch, number) for number in (1, 2, 3)]
    for queue in queues:
        dispatch.mark(queue, 10)
    failed = [turn_of(dispatch, 0.0), turn_of(dispatch, 0.0)]
    for number, drain in enumerate(failed):
        is_news = dispatch.gone_away("refused", now_ms=0.0, fraction=1.0, database_id=drain.queue.database_id)
        assert is_news == (number == 1)
        dispatch.retry(drain, not_before_ms=400.0)
    assert dispatch.next(0.0) == Wait(0.5)
    probing = turn_of(dispatch, 500.0)
    assert dispatch.next(500.0) == Wait(None)
    assert not dispatch.gone_away("refused", now_ms=600.0, fraction=1.0, database_id=probing.queue.database_id)
    dispatch.retry(probing, not_before_ms=700.0)
    assert dispatch.next(600.0) == Wait(1.0)
    turn_of(dispatch, 1600.0)
    over = dispatch.answered()
    assert over is not None
    assert over.since_ms == 0.0
    assert {turn_of(dispatch, 1600.0).queue.database_id for _ in range(2)} < {1, 2, 3}


def test_one_that_fails_holds_nobody_back(dispatch: Scheduler) -> None:
    """After the third failure the storage counts as away.

    Queues that have not failed may still try, and an answer ends the outage.
    """
    poor, well = add_lane(dispatch, 1), add_lane(dispatch, 2)
    dispatch.mark(poor, 10)
    for number in range(3):
        drain = turn_of(dispatch, 0.0)
        is_news = dispatch.gone_away("timeout", now_ms=0.0, fraction=1.0, database_id=1)
        assert is_news == (number == 2)
        dispatch.retry(drain, not_before_ms=0.0)
    assert dispatch.next(0.0) == Wait(0.5)
    dispatch.mark(well, 10)
    assert turn_of(dispatch, 0.0).queue is well
    assert dispatch.next(0.0) == Wait(0.5)
    assert dispatch.answered() is not None
    assert turn_of(dispatch, 0.0).queue is poor


def test_a_witness_is_waited_for(dispatch: Scheduler) -> None:
    """The other database may need a token first. If its request fails too, all wait for the probe."""
    poor, well = add_lane(dispatch, 1), add_lane(dispatch, 2, level=0.75)
    dispatch.mark(poor, 10)
    drain = turn_of(dispatch, 0.0)
    for _ in range(3):
        dispatch.gone_away("timeout", now_ms=0.0, fraction=1.0, database_id=1)
    dispatch.retry(drain, not_before_ms=0.0)
    dispatch.mark(well, 10)
    assert dispatch.next(0.0) == Wait(0.25)
    drain = turn_of(dispatch, 250.0)
    assert drain.queue is well
    assert not dispatch.gone_away("timeout", now_ms=250.0, fraction=1.0, database_id=2)
    dispatch.retry(drain, not_before_ms=250.0)
    assert dispatch.next(250.0) == Wait(0.25)


def test_an_answer_to_another_clears_who_failed(dispatch: Scheduler) -> None:
    """A part that times out again and again while commits are stored is no outage."""
    for _ in range(10):
        for _ in range(2):
            assert not dispatch.gone_away("timeout", now_ms=0.0, fraction=1.0, database_id=1, by_part=True)
        assert dispatch.answered() is None


def test_what_came_before_the_outage_is_merged_too(dispatch: Scheduler) -> None:
    """The queue whose request showed that the storage is away is merged as well."""
    waiting, asking = add_lane(dispatch, 1, level=0.0), add_lane(dispatch, 2)
    for queue in (waiting, asking):
        for _ in range(CROWD):
            dispatch.mark(queue, 10)
    drain = turn_of(dispatch, 0.0)
    assert drain.queue is asking
    dispatch.gone_away("refused", now_ms=0.0, fraction=1.0)
    assert dispatch.next(0.0) == Merge(waiting)
    dispatch.retry(drain, not_before_ms=400.0)
    assert dispatch.next(0.0) == Merge(asking)


def test_no_queue_waits_for_a_part_that_probes(dispatch: Scheduler) -> None:
    """The part may take long. The next queue may probe as well, but not the next part."""
    queue = add_lane(dispatch, 1)
    dispatch.gone_away("refused", now_ms=0.0, fraction=0.0, database_id=8)
    dispatch.gone_away("refused", now_ms=0.0, fraction=0.0, database_id=9)
    task, second = add_task(dispatch, 1), add_task(dispatch, 1)
    assert dispatch.next(10.0) == RunTask(task)
    dispatch.task_ended(None, took_ms=1.0)
    assert dispatch.next(10.0) == Wait(None)
    dispatch.mark(queue, 10)
    assert turn_of(dispatch, 10.0).queue is queue
    dispatch.gone_away("timeout", now_ms=10.0, fraction=1.0, database_id=1, by_part=True)
    assert dispatch.next(1010.0) == Wait(None)
    dispatch.answered()
    assert dispatch.next(1010.0) == RunTask(second)


def test_a_probe_that_found_nothing_to_send_is_no_answer(dispatch: Scheduler) -> None:
    """The storage still counts as away, and the next probe may be made."""
    empty, full = add_lane(dispatch, 1), add_lane(dispatch, 2)
    dispatch.gone_away("refused", now_ms=0.0, fraction=0.0)
    dispatch.mark(empty, 0)
    dispatch.mark(full, 10)
    first = turn_of(dispatch, 10.0).queue
    dispatch.settle(first, QueueResult())
    assert dispatch.outage is not None
    assert turn_of(dispatch, 10.0).queue is not first


def test_tasks_probe_when_nothing_else_waits(dispatch: Scheduler) -> None:
    """Without such a probe a base would wait for the next commit."""
    add_lane(dispatch, 1)
    dispatch.gone_away("refused", now_ms=0.0, fraction=1.0)
    task = add_task(dispatch, 1)
    assert dispatch.next(0.0) == Wait(0.5)
    assert dispatch.next(500.0) == RunTask(task)


def test_a_failed_turn_is_tried_again_later(dispatch: Scheduler) -> None:
    """The new attempt wants the same as the failed one. The other queues do not wait for it."""
    queue = add_lane(dispatch, 1, is_claimed=False)
    add_task(dispatch, 1)
    failed = turn_of(dispatch, 0.0)
    dispatch.retry(failed, not_before_ms=1000.0)
    assert dispatch.next(0.0) == Wait(1.0)
    assert turn_of(dispatch, 1000.0) == failed
    assert queue.failures == 1


def test_stopping_sends_what_waits_without_pacing(dispatch: Scheduler) -> None:
    """When all is sent the scheduler is finished. It also ends at the deadline, and when the storage is away."""
    queue = add_lane(dispatch, 1, level=0.0)
    task = add_task(dispatch, 1)
    dispatch.mark(queue, 10)
    assert dispatch.stop(5000.0) == [task]
    assert turn_of(dispatch, 0.0).is_urgent
    assert isinstance(dispatch.next(0.0), Wait)
    assert dispatch.next(1000.0) == Wait(4.0)
    assert dispatch.next(5000.0) == Finish()
    dispatch.settle(queue, QueueResult(next_id=8, reached_storage=True))
    assert turn_of(dispatch, 10.0).queue is queue
    dispatch.settle(queue, DONE)
    assert dispatch.next(10.0) == Finish()
    dispatch.mark(queue, 10)
    dispatch.gone_away("refused", now_ms=10.0, fraction=0.0)
    assert dispatch.next(20.0) == Finish()


def test_a_task_answers_once() -> None:
    """The answer is its result, the error of the outside, or why it was not done.

    A bug is a fault of this task alone.
    """

    def fail() -> None:
        raise TransientError("timeout")

    def bug() -> None:
        raise ZeroDivisionError

    done, failed, refused = Task(1, lambda: 5, Future()), Task(1, fail, Future()), Task(1, fail, Future())
    assert done.run() is None
    assert done.future.result(0) == 5
    assert isinstance(failed.run(), TransientError)
    assert isinstance(failed.future.exception(0), TransientError)
    refused.refuse("another daemon")
    assert isinstance(refused.future.exception(0), ImpossibleError)
    assert isinstance(Task(1, bug, Future()).run(), FaultError)


def test_a_cancelled_task_is_not_run() -> None:
    """A cancelled task is not refused either."""
    for end in (Task.run, lambda task: task.refuse("late")):
        task = Task(1, lambda: pytest.fail("it ran"), Future())
        task.future.cancel()
        assert end(task) is None
