"""Tests of walsyncd.engine.rollback.scanning."""

from __future__ import annotations

import pytest

from walsyncd.core.follow.follow_state import FileFacts, FollowState, Stream
from walsyncd.core.follow.gap import GapKind
from walsyncd.engine.follow.step import CommittedScan
from walsyncd.engine.rollback.committed_moment import Hindrance
from walsyncd.engine.rollback.page_scan import ScanResult
from walsyncd.engine.rollback.scanning import after_scan, gap_of


@pytest.mark.parametrize("hindrance", [*Hindrance, None])
def test_only_what_the_database_has_become_is_a_gap(hindrance: Hindrance | None) -> None:
    """A writer, a journal or a change is waited for."""
    gap = gap_of(hindrance)
    assert (gap is not None) == (hindrance in {Hindrance.WAL, Hindrance.PAGE_SIZE, Hindrance.UNREADABLE})
    assert gap is None or gap.kind is GapKind.CHANGED


def test_a_base_may_begin_where_a_scan_left() -> None:
    """The file holds everything that was shipped, so the next base begins at that position."""
    facts = FileFacts(1, 2, 3, "boot", size=4096, mtime_ns=5, ctime_ns=6)
    stream = Stream("20261122T105600Z-00000001", epoch=3, frame=8)
    found = ScanResult(None, 0.1, 4096, None, stream, facts, CommittedScan(1, 0, 2.0, 3))
    state = after_scan(FollowState(Stream(stream.generation), None, 1, 0, facts.unknown(), "rollback"), found)
    assert state.start == stream.position
    assert (state.cursor, state.mode, state.file) == (None, "rollback", facts)
