"""Lets a thread wait for work, for a moment, or for the end."""

from __future__ import annotations

import threading


class Alarm:
    """Wakes one thread, which waits here. Any thread may call ``wake``, which counts until the next ``wait``."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._is_woken = False
        self._is_urgent = False
        self._is_stopped = False
        self._is_waiting = False

    @property
    def is_stopped(self) -> bool:
        """Whether the thread is to end."""
        return self._is_stopped

    def is_idle(self) -> bool:
        """Whether the thread waits and nothing has woken it."""
        with self._condition:
            return self._is_waiting and not self._is_woken

    def wake(self, *, urgent: bool = False) -> None:
        """Wake the thread. Only an ``urgent`` wake-up ends a ``pause``.

        A wake-up that changes nothing, for example while ``calm_s`` lasts, does not disturb the waiting thread.
        """
        with self._condition:
            is_news = not self._is_woken or (urgent and not self._is_urgent)
            self._is_woken = True
            self._is_urgent |= urgent
            if is_news:
                self._condition.notify_all()

    def stop(self) -> None:
        """Wake the thread for the last time."""
        with self._condition:
            self._is_stopped = True
            self._condition.notify_all()

    def wait(self, timeout_s: float | None = None, *, calm_s: float = 0.0) -> bool:
        """Wait until a wake-up, the timeout or the stop. Returns False if the thread is to end.

        Wake-ups that come within ``calm_s`` after the first one count as one.
        """
        with self._condition:
            self._is_waiting = True
            if self._condition.wait_for(lambda: self._is_woken or self._is_stopped, timeout_s) and calm_s:
                self._condition.wait_for(lambda: self._is_stopped, calm_s)
            self._is_waiting = self._is_woken = self._is_urgent = False
            return not self._is_stopped

    def pause(self, seconds: float) -> bool:
        """Wait for ``seconds``, unless an urgent wake-up or the stop ends it. Returns False if the thread is to end."""
        with self._condition:
            self._condition.wait_for(lambda: self._is_urgent or self._is_stopped, seconds)
            return not self._is_stopped
