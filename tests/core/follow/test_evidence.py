"""Tests of the evidence that one look hands on to the next."""

from __future__ import annotations

from dataclasses import replace

from walsyncd.core.follow.decision import CounterMark
from walsyncd.core.follow.evidence import Evidence


def test_a_start_has_no_evidence() -> None:
    """At the start nothing is verified or counted. A live wal-index is believed until something speaks against it."""
    evidence = Evidence()
    assert (evidence.verified, evidence.mark, evidence.provisional) == (False, None, None)
    assert evidence.believe_index


def test_it_is_settled_once_the_wal_is_verified_and_counted() -> None:
    """A wal-index that is not believed counts nothing."""
    counted = Evidence(verified=True, mark=CounterMark(7, 0, 1))
    assert counted.is_settled
    assert not replace(counted, verified=False).is_settled
    assert not replace(counted, mark=None).is_settled
    assert not replace(counted, believe_index=False).is_settled
