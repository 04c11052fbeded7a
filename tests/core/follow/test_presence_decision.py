"""Tests of walsyncd.core.follow.presence_decision: which locks are taken for what is seen."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from walsyncd.core.follow.presence_decision import (
    ALONE_MS,
    GiveUp,
    HeldLocks,
    Others,
    Seen,
    Stay,
    TakeDatabase,
    TakeDms,
    decide,
)

SEEN = Seen(others=Others.PROCESS, named=True, fits=True, claimed=False, hot_journal=False, alone_ms=0)


def test_beside_a_process_both_are_taken_one_after_the_other() -> None:
    """DMS is locked, then the database. After that nothing is done until an event reports a close."""
    assert decide(HeldLocks.NOTHING, SEEN) == TakeDms()
    assert decide(HeldLocks.DMS, SEEN) == TakeDatabase()
    assert decide(HeldLocks.BOTH, SEEN) == Stay(None)


@pytest.mark.parametrize("others", [Others.NOBODY, Others.DAEMON, Others.SETTING_UP])
def test_never_first(others: Others) -> None:
    """Another process must hold a lock first.

    A lock of nobody, another walsyncd, or a process that sets up is not enough.
    """
    assert isinstance(decide(HeldLocks.NOTHING, replace(SEEN, others=others)), GiveUp)
    assert isinstance(decide(HeldLocks.DMS, replace(SEEN, others=others)), GiveUp)


@pytest.mark.parametrize("others", [Others.NOBODY, Others.DAEMON])
def test_ten_seconds_without_another_process(others: Others) -> None:
    """For ten seconds the lock stays, and the next look is planned. Another daemon does not count as a process."""
    alone = replace(SEEN, others=others)
    assert decide(HeldLocks.BOTH, alone) == Stay(ALONE_MS)
    assert decide(HeldLocks.BOTH, replace(alone, alone_ms=ALONE_MS - 1)) == Stay(1)
    assert isinstance(decide(HeldLocks.BOTH, replace(alone, alone_ms=ALONE_MS)), GiveUp)
    assert decide(HeldLocks.BOTH, replace(SEEN, alone_ms=ALONE_MS)) == Stay(None)


def test_who_wants_the_database_for_himself_goes_first() -> None:
    """The database is not locked while another process wants it exclusively."""
    assert isinstance(decide(HeldLocks.DMS, replace(SEEN, claimed=True)), GiveUp)


@pytest.mark.parametrize("held", HeldLocks)
@pytest.mark.parametrize("change", [{"named": False}, {"fits": False}, {"hot_journal": True}])
def test_what_ends_it_at_once(held: HeldLocks, change: dict[str, bool]) -> None:
    """Another file, another WAL in place, or a hot journal ends presence, whatever is locked and whoever is there."""
    assert isinstance(decide(held, replace(SEEN, **change)), GiveUp)  # type: ignore[arg-type]


def test_nothing_is_ever_taken_without_a_process_or_out_of_order() -> None:
    """The rule is checked for every combination of what can be seen."""
    flags = (False, True)
    for held, others, named, fits, claimed, hot, alone_ms in itertools.product(
        HeldLocks, Others, flags, flags, flags, flags, (0, ALONE_MS)
    ):
        decision = decide(held, Seen(others, named, fits, claimed, hot, alone_ms))
        if isinstance(decision, TakeDms | TakeDatabase):
            assert (others, named, fits, hot) == (Others.PROCESS, True, True, False)
            assert held is (HeldLocks.NOTHING if isinstance(decision, TakeDms) else HeldLocks.DMS)
        elif isinstance(decision, Stay):
            assert held is HeldLocks.BOTH
        else:
            assert decision.reason
