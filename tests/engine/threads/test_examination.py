"""Tests of how long a database waits for an answer."""

from __future__ import annotations

from walsyncd.core.limits import DEFAULT_LIMITS
from walsyncd.engine.threads.examination import AWAITS_TURN, IS_READ, Examination

ANSWER_S_MAX, TURN_S_MAX = DEFAULT_LIMITS.answer_s_max, DEFAULT_LIMITS.turn_s_max


class Asked:
    """A question with a clock of its own. It counts how often it was asked."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.count = 0
        self.is_there = True
        self.moved_s = 0.0
        self.examination = Examination(
            self._ask, lambda: self.is_there, lambda: self.now_s, moved_s=lambda: self.moved_s
        )

    def _ask(self) -> None:
        self.count += 1

    def waits(self) -> bool:
        return self.examination.must_wait()


def test_it_is_asked_once_when_somebody_waits() -> None:
    """The question is not asked before somebody waits."""
    asked = Asked()
    assert asked.count == 0
    assert asked.waits()
    assert asked.waits()
    assert asked.count == 1


def test_nothing_is_asked_of_a_database_that_is_not_there() -> None:
    """The question is asked when the database appears."""
    asked = Asked()
    asked.is_there = False
    assert not asked.waits()
    asked.is_there = True
    assert asked.waits()
    assert asked.count == 1


def test_an_answer_ends_the_waiting() -> None:
    """After an answer the question is not asked again."""
    asked = Asked()
    assert asked.waits()
    asked.examination.end()
    assert not asked.waits()
    assert asked.examination.is_over


def test_a_storage_that_does_not_answer_is_not_awaited() -> None:
    """An answer that comes later finds that nobody waits any more."""
    asked = Asked()
    assert asked.waits()
    asked.now_s = ANSWER_S_MAX
    assert asked.waits()
    asked.now_s += 0.1
    assert not asked.waits()
    assert not asked.examination.begin()


def test_work_that_has_begun_is_awaited() -> None:
    """The work is awaited however long it takes."""
    asked = Asked()
    assert asked.waits()
    assert asked.examination.begin()
    asked.now_s = 100 * ANSWER_S_MAX
    assert asked.waits()
    asked.examination.end()
    assert not asked.waits()


def test_a_daemon_that_stops_begins_nothing() -> None:
    """The next run asks again."""
    asked = Asked()
    assert asked.waits()
    asked.examination.is_stopped = True
    asked.now_s = 100 * ANSWER_S_MAX
    assert asked.waits()


def test_a_turn_is_awaited_while_those_before_it_move() -> None:
    """Two hundred databases may have been moved at once. Nothing is shipped meanwhile, so the wait has a limit."""
    asked = Asked()
    assert asked.waits()
    while asked.now_s <= TURN_S_MAX:
        assert asked.waits()
        asked.moved_s, asked.now_s = asked.now_s, asked.now_s + ANSWER_S_MAX
    assert not asked.waits()


def test_a_turn_is_not_awaited_once_nothing_moves() -> None:
    """The storage hangs at the turn of an earlier database."""
    asked = Asked()
    assert asked.waits()
    asked.moved_s = asked.now_s = 100.0
    assert asked.waits()
    asked.now_s += ANSWER_S_MAX + 0.1
    assert not asked.waits()


def test_long_waiting_is_reported() -> None:
    """Nothing is shipped meanwhile, so a long wait is reported, before the database's turn and during it.

    A wait that is short or over is not reported.
    """
    asked = Asked()
    assert not asked.examination.trouble()
    assert asked.waits()
    assert not asked.examination.trouble()
    asked.moved_s = asked.now_s = ANSWER_S_MAX + 1.0
    assert asked.examination.trouble() == AWAITS_TURN
    assert asked.examination.begin()
    assert asked.examination.trouble() == IS_READ
    asked.examination.end()
    assert not asked.examination.trouble()
