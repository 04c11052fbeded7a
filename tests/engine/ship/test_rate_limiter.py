"""Tests of waiting for the rate limit."""

from __future__ import annotations

import threading

import pytest

from walsyncd.engine.ship.rate_limiter import RateLimiter


class Clock:
    """A clock that moves only when somebody waits."""

    def __init__(self) -> None:
        self.now_ms = 0.0

    def __call__(self) -> float:
        return self.now_ms


def test_without_a_limit_nobody_waits() -> None:
    """The amount that is sent makes no difference."""
    throttle = RateLimiter(None)
    throttle.part_begins(1 << 40)
    throttle.wait_for_segment(1 << 40)
    throttle.wait_for_segment(1)
    assert throttle.parts_not_before_ms == 0.0


def test_segments_wait_for_segments_and_parts_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments and parts wait as long as the bytes before them take."""
    clock = Clock()
    throttle = RateLimiter(1000.0, clock)

    def wait(timeout_s: float) -> bool:
        clock.now_ms += 1000 * timeout_s
        return True

    monkeypatch.setattr(throttle._changed, "wait", wait)
    throttle.part_begins(5000)
    throttle.wait_for_segment(2000)
    assert clock.now_ms == 0.0
    throttle.wait_for_segment(1000)
    assert clock.now_ms == 2000.0
    assert throttle.parts_not_before_ms == 8000.0


def test_a_stop_ends_the_waiting() -> None:
    """Requests under way are finished within the time of the stop."""
    throttle = RateLimiter(1.0)
    throttle.wait_for_segment(1000)
    waiting = threading.Thread(target=throttle.wait_for_segment, args=[1])
    waiting.start()
    throttle.open()
    waiting.join(60)
    assert not waiting.is_alive()
    throttle.wait_for_segment(1000)
