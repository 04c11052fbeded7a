"""Tests of when the next generation of a database may begin."""

from __future__ import annotations

from walsyncd.core.follow.next_generation import BASE_CALM_S, BASE_DELAY_MAX_S, NextGeneration
from walsyncd.core.limits import DEFAULT_LIMITS

BASE_DELAY_S = DEFAULT_LIMITS.generation_delay_s


def test_short_generations_are_followed_later_each_time() -> None:
    """The delay grows up to an hour, and counts from the beginning of the last generation."""
    following, delays = NextGeneration(), []
    for number in range(20):
        following = following.after_begin(100_000.0 * number).after_end("a gap", 100_000.0 * number)
        delays.append(following.wait_s(100_000.0 * number))
    assert delays[:4] == [BASE_DELAY_S, 2.0, 4.0, 8.0]
    assert delays[-1] == BASE_DELAY_MAX_S
    assert following.reason == "a gap"


def test_a_calm_generation_is_followed_at_once() -> None:
    """A calm generation has lasted longer than the delay, so the next begins at once."""
    following = NextGeneration(delay_s=30.0).after_begin(0.0).after_end("a gap", BASE_CALM_S + 1)
    assert (following.delay_s, following.wait_s(BASE_CALM_S + 1)) == (BASE_DELAY_S, 0.0)


def test_a_delay_outlives_a_generation_that_is_not_much_longer() -> None:
    """A generation is calm if it lasts ten times the delay."""
    following = NextGeneration(delay_s=200.0).after_begin(0.0)
    assert following.after_end("a gap", 1999.0).delay_s == 400.0
    assert following.after_end("a gap", 2001.0).delay_s == BASE_DELAY_S


def test_what_it_waits_for_is_asked_once() -> None:
    """When a generation begins, the condition that it waited for ends. The next end brings its own condition."""
    waiting = NextGeneration().after_end("the spool was full", 0.0, may_begin=lambda: False)
    assert not waiting.may_begin()
    assert waiting.after_begin(1.0).may_begin()
    assert waiting.after_begin(1.0).after_end("a gap", 2.0).may_begin()
