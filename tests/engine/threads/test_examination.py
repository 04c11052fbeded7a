"""How long a database waits for an answer."""

from __future__ import annotations

from walsyncd.engine.threads.examination import ANSWER_S_MAX, Examination


class Asked:
    """A question with a clock of its own, and how often it was asked."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.count = 0
        self.is_there = True
        self.examination = Examination(self._ask, lambda: self.is_there, lambda: self.now_s)

    def _ask(self) -> None:
        self.count += 1

    def waits(self) -> bool:
        return self.examination.must_wait()


def test_it_is_asked_once_when_somebody_waits() -> None:
    """And not before."""
    asked = Asked()
    assert asked.count == 0
    assert asked.waits()
    assert asked.waits()
    assert asked.count == 1


def test_nothing_is_asked_of_a_database_that_is_not_there() -> None:
    """It is asked when it comes."""
    asked = Asked()
    asked.is_there = False
    assert not asked.waits()
    asked.is_there = True
    assert asked.waits()
    assert asked.count == 1


def test_an_answer_ends_the_waiting() -> None:
    """For good."""
    asked = Asked()
    assert asked.waits()
    asked.examination.end()
    assert not asked.waits()
    assert asked.examination.is_over


def test_a_storage_that_does_not_answer_is_not_awaited() -> None:
    """Who answers after that finds that nobody waits any more."""
    asked = Asked()
    assert asked.waits()
    asked.now_s = ANSWER_S_MAX
    assert asked.waits()
    asked.now_s += 0.1
    assert not asked.waits()
    assert not asked.examination.begin()


def test_work_that_has_begun_is_awaited() -> None:
    """However long it takes."""
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
