"""Tests of when a queue is due: pacing, urgency, pauses."""

from __future__ import annotations

import pytest

from walsyncd.core.send.merge import MERGED_SIZE_MAX
from walsyncd.core.send.pacing import BURST, Bucket
from walsyncd.engine.ship.database_queue import DRIFT_MS_MAX, JOINS_MS, LOOK_MS_MAX, LOOK_UPLOADS_MAX, DatabaseQueue

EMPTY = Bucket(0.0, 1000.0)


def queue(**changes: object) -> DatabaseQueue:
    """Return a queue without a token before 2000, claimed, with work."""
    made = DatabaseQueue(1, "app", EMPTY, 1000.0, has_work=True, is_claimed=True)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("changes", "due_ms"),
    [
        ({}, 2000.0),
        ({"bucket": Bucket(1.0, 1000.0)}, 1000.0),
        ({"has_work": False}, None),
        ({"is_busy": True}, None),
        ({"stopped": "taken"}, None),
        ({"urgent_upto": 5}, 0.0),
        ({"bytes_waiting": MERGED_SIZE_MAX}, 0.0),
        ({"has_work": False, "check_ownership": True}, 0.0),
        ({"not_before_ms": 9000.0}, 9000.0),
        ({"not_before_ms": 9000.0, "urgent_upto": 5}, 9000.0),
    ],
)
def test_when_a_queue_is_due(changes: dict[str, object], due_ms: float | None) -> None:
    """An urgent queue and a full one need no token. Nothing shortens the pause after a failure."""
    found = queue(**changes).due_ms()
    assert found == due_ms or (due_ms is not None and found == pytest.approx(due_ms, abs=1.0))


def test_stopping_is_urgent_for_all() -> None:
    """The last objects of a run do not wait for tokens."""
    assert queue().due_ms(is_urgent=True) == 0.0


@pytest.mark.parametrize(
    "changes",
    [{}, {"has_work": True}, {"is_busy": True}, {"stopped": "taken"}, {"is_claimed": False}, {"bucket": EMPTY}],
)
def test_only_an_idle_queue_lets_the_next_one_leave_at_once(changes: dict[str, object]) -> None:
    """The queue must be claimed and empty, and have a token."""
    idle = queue(**{"has_work": False, "bucket": Bucket(1.0, 1000.0), **changes})
    assert idle.may_leave_at_once(1000.0) == (not changes)


def test_when_an_object_that_is_spooled_now_can_leave() -> None:
    """The object leaves at the next token. If somebody waits for it, it is sent at once."""
    assert queue(has_work=False).leaves_in_ms(1200.0) == pytest.approx(800.0, abs=1.0)
    assert queue(has_work=False, is_busy=True, has_paid=True).leaves_in_ms(1200.0) == pytest.approx(800.0, abs=1.0)
    assert queue(bucket=Bucket(BURST, 1000.0)).leaves_in_ms(1200.0) <= 0
    for changes in ({"urgent_upto": 5}, {"check_ownership": True}, {"is_claimed": False}):
        assert queue(**changes).leaves_in_ms(1200.0) == 0


@pytest.mark.parametrize("waits", [{"has_work": True}, {"has_work": False, "is_busy": True}])
def test_what_waits_already_has_the_next_token(waits: dict[str, bool]) -> None:
    """Another object leaves with the token after that, or together with what waits if there is no token yet."""
    assert queue(bucket=Bucket(1.25, 1000.0), **waits).leaves_in_ms(1000.0) == pytest.approx(750.0, abs=1.0)
    assert queue(bucket=Bucket(2.0, 1000.0), **waits).leaves_in_ms(1000.0) <= 0
    assert 0 < queue(**waits).leaves_in_ms(1200.0) <= 800.0 - JOINS_MS + 1.0


def test_tokens_are_taken_and_come_back() -> None:
    """Each object takes a token, and each interval brings one."""
    paced = queue(bucket=Bucket(BURST, 0.0))
    assert sum(paced.take_token(1000.0) for _ in range(20)) == BURST
    assert paced.level(3000.0) == pytest.approx(2.0)


def test_the_owner_is_looked_at_now_and_then() -> None:
    """The owner is checked first of all, after 64 uploads, and after an hour."""
    fresh = queue(is_claimed=False)
    assert fresh.needs_ownership_check(0.0)
    fresh.ownership_checked(0.0, 0.0)
    assert not fresh.needs_ownership_check(LOOK_MS_MAX - 1)
    assert fresh.needs_ownership_check(LOOK_MS_MAX)
    fresh.uploads_since_look = LOOK_UPLOADS_MAX
    assert fresh.needs_ownership_check(0.0)


@pytest.mark.parametrize("jump_ms", [DRIFT_MS_MAX + 1, -DRIFT_MS_MAX - 1])
def test_clocks_that_drift_apart_cast_doubt(jump_ms: float) -> None:
    """The doubt begins at more than a minute, whichever clock is ahead, and lasts until the owner was checked."""
    claimed = queue(is_claimed=False)
    claimed.compare_clocks(0.0, 9e9)
    assert not claimed.is_doubted
    claimed.ownership_checked(0.0, 1e9)
    claimed.compare_clocks(5e6, 1e9 + 5e6 + DRIFT_MS_MAX)
    assert not claimed.is_doubted
    claimed.compare_clocks(5e6, 1e9 + 5e6 + jump_ms)
    assert claimed.needs_ownership_check(5e6)
    claimed.ownership_checked(5e6, 1e9 + 5e6 + jump_ms)
    assert not claimed.needs_ownership_check(5e6)
