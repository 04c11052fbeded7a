"""Tests of how a thread waits. No test measures time: a wait that would never end has no timeout, or one of an hour."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from walsyncd.engine.threads.alarm import Alarm

HOUR_S = 3600.0


@contextmanager
def waiting(alarm: Alarm, count: list[bool]) -> Iterator[None]:
    """Let another thread wait again and again, until the stop."""

    def run() -> None:
        while alarm.wait(HOUR_S):
            count.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        alarm.stop()
        thread.join()


class Told(threading.Condition):
    """Counts how often the waiting thread was woken."""

    times = 0

    def notify_all(self) -> None:
        self.times += 1
        super().notify_all()


def until(fact: object) -> None:
    assert callable(fact)
    while not fact():
        threading.Event().wait(0.001)


def test_a_wake_up_before_the_wait_counts_once() -> None:
    """The thread was working when more work came. After one more round no work is left."""
    alarm = Alarm()
    alarm.wake()
    alarm.wake()
    assert alarm.wait()
    assert alarm.wait(0.0), "a timeout is no reason to end"
    count: list[bool] = []
    with waiting(alarm, count):
        until(alarm.is_idle)
        assert not count
        alarm.wake()
        until(lambda: len(count) == 1 and alarm.is_idle())


def test_a_stop_ends_every_wait() -> None:
    """The stop may come before or during the wait, and other things may have woken the thread."""
    alarm = Alarm()
    alarm.wake()
    alarm.stop()
    assert alarm.is_stopped
    assert not alarm.wait()
    assert not alarm.wait(calm_s=HOUR_S)
    assert not alarm.pause(HOUR_S)


def test_wake_ups_that_come_together_are_one() -> None:
    """If a thousand databases begin at once, the thread is busy from the first on, and does one round for all."""
    alarm = Alarm()
    alarm.wake()
    assert not alarm.is_idle()
    assert alarm.wait(calm_s=0.001)
    assert alarm.wait(0.0)


def test_a_wake_up_that_changes_nothing_disturbs_nobody() -> None:
    """A thread that lets wake-ups gather sleeps through those after the first one, but not through an urgent one."""
    alarm = Alarm()
    alarm._condition = told = Told()
    alarm.wake()
    alarm.wake()
    assert told.times == 1
    alarm.wake(urgent=True)
    alarm.wake(urgent=True)
    alarm.wake()
    assert told.times == 2
    assert alarm.wait()
    alarm.wake()
    assert told.times == 3


def test_only_what_is_urgent_ends_a_pause() -> None:
    """The wait after the pause still finds the other wake-ups."""
    alarm = Alarm()
    alarm.wake()
    assert alarm.pause(0.001)
    alarm.wake(urgent=True)
    assert alarm.pause(HOUR_S)
    assert alarm.wait()
    assert alarm.pause(0.001), "it was taken"
