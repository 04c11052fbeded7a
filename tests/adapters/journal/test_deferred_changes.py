"""Tests of changes that wait for the next transaction: each is made once, in order, and a failure loses none."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import pytest

from walsyncd.adapters.journal.deferred_changes import DEFER_S, RETRY_S, DeferredChanges


class Clock:
    def __init__(self) -> None:
        self.now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


def adding(made: list[str], name: str) -> Callable[[sqlite3.Connection], Callable[[], None]]:
    """Return a change that notes when it is made and when it is committed."""

    def change(_connection: sqlite3.Connection) -> Callable[[], None]:
        made.append(name)
        return lambda: made.append(f"{name} committed")

    return change


def test_changes_are_made_in_order_and_then_forgotten() -> None:
    """A change that is added during a transaction waits for the next one."""
    made: list[str] = []
    changes, connection = DeferredChanges(Clock()), sqlite3.connect(":memory:")
    for name in ("a", "b"):
        changes.add(adding(made, name))
    committed = changes.apply(connection)
    changes.add(adding(made, "c"))
    assert made == ["a", "b"]
    committed()
    assert made == ["a", "b", "a committed", "b committed"]
    changes.apply(connection)()
    assert made[4:] == ["c", "c committed"]
    assert not changes


def test_a_transaction_that_fails_keeps_them() -> None:
    """The changes are made again in the next transaction."""
    made: list[str] = []
    changes, connection = DeferredChanges(Clock()), sqlite3.connect(":memory:")
    changes.add(adding(made, "a"))
    changes.apply(connection)
    changes.apply(connection)()
    assert made == ["a", "a", "a committed"]


def test_a_query_waits_only_for_what_it_must_find_made() -> None:
    """A query waits until such changes are committed. A change that no query awaits is made with the others."""
    made: list[str] = []
    changes, connection = DeferredChanges(Clock()), sqlite3.connect(":memory:")
    changes.add(adding(made, "a"), is_awaited=False)
    assert changes
    assert not changes.is_awaited()
    changes.add(adding(made, "b"))
    assert changes.is_awaited()
    changes.apply(connection)  # its transaction fails
    assert changes.is_awaited()
    changes.apply(connection)()
    assert not changes.is_awaited()
    assert made[-2:] == ["a committed", "b committed"]


def test_they_are_due_soon_after_the_first() -> None:
    """Deferred changes are due soon after the first of them. They are also due a moment after a failure."""
    clock = Clock()
    changes = DeferredChanges(clock)
    assert changes.due_s() is None
    changes.add(adding([], "a"))
    clock.now_s += DEFER_S / 2
    changes.add(adding([], "b"))
    assert changes.due_s() == pytest.approx(DEFER_S / 2)
    clock.now_s += DEFER_S
    assert changes.due_s() == 0
    changes.postpone()
    assert changes.due_s() == RETRY_S


def test_deferring_is_worth_while_among_many_transactions() -> None:
    """Deferring a single change would only make it later, and wake a thread."""
    clock, connection = Clock(), sqlite3.connect(":memory:")
    changes = DeferredChanges(clock)
    assert not changes.is_worthwhile()
    changes.apply(connection)()
    assert not changes.is_worthwhile()
    clock.now_s += DEFER_S / 2
    changes.apply(connection)()
    assert changes.is_worthwhile()
    clock.now_s += DEFER_S
    assert not changes.is_worthwhile()
