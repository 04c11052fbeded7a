"""Tests of which thread of the uploader is woken by what, and what it is given."""

from __future__ import annotations

import pytest

from tests.engine.ship.test_scheduler import add_lane, turn_of
from walsyncd.adapters.journal.journal import ObjectKind, ObjectRow, ObjectState
from walsyncd.engine.ship.scheduler import CommitDeferred, Scheduler, Wait
from walsyncd.engine.ship.shipper import QueueResult


@pytest.fixture
def dispatch() -> Scheduler:
    return Scheduler(tasks_running_max=1)


def test_what_the_journal_has_deferred_is_committed_in_time(dispatch: Scheduler) -> None:
    """A thread that has nothing else to do commits it."""
    queue = add_lane(dispatch, 1, level=0.5)
    assert dispatch.next(100.0, 0.05) == Wait(0.05)
    dispatch.mark(queue, 1)
    assert dispatch.next(100.0, 0.7) == Wait(0.4)
    assert dispatch.next(100.0, 0.0) == CommitDeferred()
    assert turn_of(dispatch, 500.0).queue is queue


def row(object_id: int, state: ObjectState) -> ObjectRow:
    kind = ObjectKind.SEGMENT
    return ObjectRow(object_id, 1, "g", kind, "k", 1, "", "", 1, 1, 1, 0, state, None, None, None, None)


def test_an_object_that_is_alone_is_known_to_the_thread_that_sends_it(dispatch: Scheduler) -> None:
    """The object must be begun, nothing else may wait, and nobody may read the journal at this moment."""
    queue = add_lane(dispatch, 1, level=9.0)
    begun, spooled = row(1, ObjectState.BEGUN), row(2, ObjectState.SPOOLED)
    dispatch.mark(queue, 1, begun)
    assert turn_of(dispatch, 0.0).offered is begun
    dispatch.mark(queue, 1, begun)
    dispatch.settle(queue, QueueResult())
    assert turn_of(dispatch, 0.0).offered is None
    dispatch.settle(queue, QueueResult())
    for rows in ((begun, begun), (begun, spooled), (spooled,)):
        for each in rows:
            dispatch.mark(queue, 1, each)
        assert turn_of(dispatch, 0.0).offered is None
        dispatch.settle(queue, QueueResult())


def test_a_thread_is_woken_only_for_what_comes_first(dispatch: Scheduler) -> None:
    """The others sleep until the first row is due. During an outage and at the end anything may be of use."""
    first, second = add_lane(dispatch, 1, level=0.5), add_lane(dispatch, 2, level=0.1)
    assert dispatch.mark(first, 1)
    assert not dispatch.mark(first, 1)
    assert not dispatch.mark(second, 1)
    third, fourth = add_lane(dispatch, 3, level=1.0), add_lane(dispatch, 4, level=1.0)
    assert dispatch.mark(third, 1, now_ms=5.0)
    assert dispatch.mark(fourth, 1, now_ms=5.0), "each that is due has a thread of its own"
    first.urgent_upto = 5
    dispatch.schedule(first)
    assert dispatch.gone_away("away", now_ms=0.0, fraction=0.5)
    assert dispatch.mark(second, 1)
