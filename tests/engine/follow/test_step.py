"""Tests of walsyncd.engine.follow.step."""

from __future__ import annotations

from walsyncd.engine.follow.step import AT_ONCE, SHORTLY, Step


def test_the_two_ways_to_look_again() -> None:
    """Neither has caught up, neither changes anything."""
    assert Step(again_s=0) == AT_ONCE
    assert Step(moving=True) == SHORTLY
    for step in (AT_ONCE, SHORTLY):
        assert (step.caught_up, step.state, step.gap) == (False, None, None)
