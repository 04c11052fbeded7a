"""Tests of walsyncd.engine.follow.step."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from tests.engine.following import spec_of
from walsyncd.core.follow.evidence import Evidence
from walsyncd.core.follow.follow_state import FileFacts, FollowState, Stream
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.follow.other_path import OtherPath
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.segment_builder import LongTransaction
from walsyncd.engine.follow.step import AT_ONCE, SHORTLY, Belief, Step
from walsyncd.engine.follow.wal_pairs import WalPairs

G1 = "20261122T105600Z-00000001"


def test_the_two_ways_to_look_again() -> None:
    """Neither of the two steps has caught up, and neither changes anything."""
    assert Step(again_s=0) == AT_ONCE
    assert Step(moving=True) == SHORTLY
    for step in (AT_ONCE, SHORTLY):
        assert (step.caught_up, step.state, step.gap) == (False, None, None)


class StillScans:
    """Scans with or without a map, and with or without trouble."""

    def __init__(self, *, has_map: bool, trouble: tuple[str, str] | None = None) -> None:
        self._has_map, self._trouble = has_map, trouble
        self.dropped = 0

    def has_map(self) -> bool:
        return self._has_map

    def trouble(self) -> tuple[str, str] | None:
        return self._trouble

    def drop(self) -> None:
        self.dropped += 1


def database(path: Path, scans: Any, mode: str = "rollback") -> FollowedDatabase:
    tracked = FollowedDatabase(spec_of(path), 1, WalPairs(path))
    tracked.scans = scans
    tracked.resume(FollowState(Stream(G1), None, 1, 0, FileFacts(1, 2, 3, "boot"), mode))
    return tracked


def test_only_without_a_map_and_a_wal_bases_hold_the_changes(tmp_path: Path) -> None:
    """Without a map and a WAL, `sync` waits for a base."""
    for has_map, mode, needs in ((True, "rollback", False), (False, "rollback", True), (False, "wal", False)):
        assert database(tmp_path / "app.db", StillScans(has_map=has_map), mode).needs_bases() is needs


def test_the_trouble_of_scans_is_reported_before_that_of_bases(tmp_path: Path) -> None:
    """The trouble of scans is also the reason why the base is not ready."""
    tracked = database(tmp_path / "app.db", StillScans(has_map=True, trouble=("a writer", "wait")))
    tracked.note_base(problem="no base could be taken")
    assert tracked.trouble("pause") == ("a writer", "wait")
    tracked.scans = None
    assert tracked.trouble("pause") == ("no base could be taken", "pause")


def test_scans_are_dropped_with_all_that_they_follow(tmp_path: Path) -> None:
    """Scans are dropped when the generation ends, when the spool is taken back, and when the daemon stops."""
    scans = StillScans(has_map=True)
    tracked = database(tmp_path / "app.db", scans)
    assert tracked.state is not None
    tracked.go_back(tracked.state, 1)
    tracked.forget()
    tracked.release()
    assert scans.dropped == 3


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
    """The code that handles the gap still knows where the generation was."""
    gap = Step(state=LATER, evidence=Evidence(), gap=Gap.of(GapKind.OTHER, "a test"), other_path=OtherPath())
    assert BELIEF.after(gap) == Belief(STATE, VERIFIED, UNFINISHED, OtherPath())


def test_at_another_state_nothing_else_is_known() -> None:
    """The other state may be verified already. The signs of another path are of the folder, and stay."""
    assert BELIEF.at(LATER) == Belief(LATER, Evidence(), None, SIGNS)
    assert BELIEF.at(LATER, verified=True) == Belief(LATER, VERIFIED, None, SIGNS)
    assert BELIEF.at(None) == Belief(None, Evidence(), None, SIGNS)
