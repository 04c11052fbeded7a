"""Tests of which moments are inside a bridge, and which positions a bridge that heals makes suspect."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests.histories import G1, segment, whole
from walsyncd.core.restore.bridge_points import StoredBridge, bridges_after, suspecting
from walsyncd.core.restore.coverage import GenerationListing
from walsyncd.core.restore.plan import Point
from walsyncd.core.stored.bridge import BridgeSpan, SuspectSpan
from walsyncd.core.stored.position import Position

GAP = StoredBridge(Point(Position(G1, 3, 7), 9_000), BridgeSpan(2, 12, 5_000, "stopped", "the daemon was stopped"))
HEALED = StoredBridge(
    Point(Position(G1, 5, 2), 9_000), BridgeSpan(4, 9, 9_000, "scrub", "", SuspectSpan(2, 3, 1_000, 1))
)


def test_a_moment_is_inside_between_the_proof_and_the_commit() -> None:
    """At the moment of the last proof the old position is restored, and at that of the commit the bridge."""
    assert [GAP.hides(ms) for ms in (4_999, 5_000, 5_001, 8_999, 9_000)] == [False, False, True, True, False]
    assert not any(HEALED.hides(ms) for ms in range(8_990, 9_010))
    assert (GAP.is_gap, HEALED.is_gap) == (True, False)


def test_positions_after_the_last_good_scan_are_suspect() -> None:
    """The scan's own position and the bridge that heals are not suspect. A gap makes no position suspect."""
    places = [(2, 3), (2, 4), (4, 9), (5, 1), (5, 2), (5, 3)]
    assert [HEALED.suspects(Position(G1, *place)) for place in places] == [False, True, True, True, False, False]
    assert not any(GAP.suspects(Position(G1, *place)) for place in places)


@given(st.tuples(st.integers(1, 6), st.integers(0, 12)))
def test_the_first_bridge_that_heals_after_a_position_decides(place: tuple[int, int]) -> None:
    """Later bridges that heal are not considered."""
    position = Position(G1, *place)
    later = replace(HEALED, after=Point(Position(G1, 6, 1), 10_000))
    wide = replace(later, span=replace(later.span, suspect=SuspectSpan(1, 0, 1, 1)))
    found = suspecting(iter([GAP, HEALED, wide]), position)
    if position < HEALED.after.position:
        assert found == (HEALED if HEALED.suspects(position) else None)
    else:
        assert found == (wide if wide.suspects(position) else None)


def test_texts_name_both_ends_and_the_reason() -> None:
    """The text about a bridge names both ends and the reason."""
    assert "4 s after 1970-01-01T00:00:05.000Z" in GAP.gap_text()
    assert "the daemon was stopped" in GAP.gap_text()
    assert "1 wrong page," in HEALED.suspect_text()
    assert f"{G1}/00000002/00000003" in HEALED.suspect_text()


def test_one_object_is_read_for_each_bridge() -> None:
    """Of each bridge after the position only the segment is read, which is cheaper than the whole."""
    bridges = [replace(segment(epoch, 1, 3), bridge=True) for epoch in (2, 4)]
    wholes = [replace(whole(epoch, 9), bridge=True) for epoch in (2, 3)]
    part = GenerationListing(G1, frames=(*bridges, *wholes, segment(5, 1, 2)))
    assert bridges_after(part, Position(G1, 0, 0)) == [bridges[0], wholes[1], bridges[1]]
    assert bridges_after(part, Position(G1, 3, 20)) == [wholes[1], bridges[1]]
