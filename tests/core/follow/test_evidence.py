"""What a look hands on to the next."""

from __future__ import annotations

from walsyncd.core.follow.evidence import Evidence


def test_a_start_has_no_evidence() -> None:
    """Nothing was verified, nothing counted; a live wal-index is believed until something speaks against it."""
    evidence = Evidence()
    assert (evidence.verified, evidence.mark, evidence.provisional) == (False, None, None)
    assert evidence.believe_index
