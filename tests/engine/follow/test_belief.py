"""Tests of walsyncd.engine.follow.belief: what is believed of a database, before and after a step."""

from __future__ import annotations

from typing import Any, cast

from walsyncd.core.follow.evidence import Evidence
from walsyncd.core.follow.follow_state import FileFacts, FollowState, Stream
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.follow.other_path import OtherPath
from walsyncd.engine.follow.belief import Belief
from walsyncd.engine.follow.segment_builder import LongTransaction
from walsyncd.engine.follow.step import AT_ONCE, Step

STATE = FollowState(Stream("g", epoch=2), None, 2, 0, FileFacts(1, 2, None, "boot"))
LATER = FollowState(Stream("g", epoch=2, frame=7), None, 2, 0, FileFacts(1, 2, None, "boot"))
VERIFIED = Evidence(verified=True)
SIGNS = OtherPath().beside_none(1000, is_bare=True, is_locked=True, writes=0)
UNFINISHED = cast("LongTransaction", cast("Any", object()))
BELIEF = Belief(STATE, VERIFIED, UNFINISHED, SIGNS)


def test_all_that_a_step_found_is_believed() -> None:
    """State, evidence, the unfinished transaction and the signs of another path are those of the step."""
    found = Step(state=LATER, evidence=Evidence(), pending=None, other_path=OtherPath())
    assert BELIEF.after(found) == Belief(LATER, Evidence(), None, OtherPath())


def test_what_a_step_did_not_find_stays() -> None:
    """Only the unfinished transaction is that of the step, whatever it is: a look takes it over, or has given it up."""
    assert BELIEF.after(AT_ONCE) == Belief(STATE, VERIFIED, None, SIGNS)
    assert Belief(STATE).after(Step(pending=UNFINISHED)).pending is UNFINISHED


def test_a_gap_shows_nothing_but_the_signs_of_another_path() -> None:
    """Whoever handles it still knows where the generation was."""
    gap = Step(state=LATER, evidence=Evidence(), gap=Gap.of(GapKind.OTHER, "a test"), other_path=OtherPath())
    assert BELIEF.after(gap) == Belief(STATE, VERIFIED, UNFINISHED, OtherPath())


def test_at_another_state_nothing_else_is_known() -> None:
    """It may be verified already. The signs of another path are of the folder, and stay."""
    assert BELIEF.at(LATER) == Belief(LATER, Evidence(), None, SIGNS)
    assert BELIEF.at(LATER, verified=True) == Belief(LATER, VERIFIED, None, SIGNS)
    assert BELIEF.at(None) == Belief(None, Evidence(), None, SIGNS)
