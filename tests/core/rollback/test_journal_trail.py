"""Tests of the orders of events that let the journals account for every write, and of those that do not."""

from __future__ import annotations

import pytest

from walsyncd.core.rollback.journal_trail import Doubt, FileEvent, JournalNow, JournalTrail

ABSENT, IDLE, IN_USE = JournalNow.ABSENT, JournalNow.IDLE, JournalNow.IN_USE

LETTERS: dict[str, FileEvent | Doubt] = {
    "C": FileEvent.JOURNAL_CREATED,
    "c": FileEvent.JOURNAL_CREATED_UNHELD,
    "J": FileEvent.JOURNAL_WRITTEN,
    "+": FileEvent.JOURNAL_COUNTED,
    "-": FileEvent.JOURNAL_UNCOUNTED,
    "D": FileEvent.DATABASE_WRITTEN,
    "X": FileEvent.JOURNAL_DELETED,
    "x": FileEvent.JOURNAL_DELETED_UNHELD,
    "W": Doubt.WAL,
}


def trail(events: str, at_first: JournalNow = ABSENT) -> JournalTrail:
    """Return the trail of these events. A capital letter means that the journal is held open."""
    seen = JournalTrail()
    seen.restart(at_first)
    for event in events:
        seen.take(LETTERS[event])
    return seen


@pytest.mark.parametrize(
    ("events", "at_first", "at_last"),
    [
        ("", ABSENT, ABSENT),
        ("CJX", ABSENT, ABSENT),  # rolled back
        ("CJDXCJJDDX", ABSENT, ABSENT),
        ("CJDJDJDX", ABSENT, ABSENT),  # the cache was full
        ("CJDXCJ", ABSENT, IN_USE),
        ("", IDLE, IDLE),
        ("JDJ", IDLE, IDLE),
        ("JJDDJJ", IDLE, IDLE),
        ("J", IDLE, IDLE),  # rolled back
        ("CJDJ", ABSENT, IDLE),
    ],
)
def test_orders_that_sqlite_makes(events: str, at_first: JournalNow, at_last: JournalNow) -> None:
    """Every write to the database belongs to a journal."""
    assert trail(events, at_first).doubt_now(at_last) is None


@pytest.mark.parametrize(
    ("events", "at_first", "at_last", "doubt"),
    [
        ("D", ABSENT, ABSENT, Doubt.STRAY_WRITE),  # MEMORY, OFF
        ("DJ", IDLE, IDLE, Doubt.STRAY_WRITE),
        ("cJ", ABSENT, IN_USE, Doubt.JOURNAL_MISSED),
        ("CJDXW", ABSENT, ABSENT, Doubt.WAL),
        ("CJXD", ABSENT, ABSENT, Doubt.STRAY_WRITE),  # rolled back, then MEMORY
        ("CJDXD", ABSENT, ABSENT, Doubt.STRAY_WRITE),  # VACUUM cuts the file
        ("cJDx", ABSENT, ABSENT, Doubt.JOURNAL_MISSED),
        ("CJDx", ABSENT, ABSENT, Doubt.JOURNAL_MISSED),
        ("CJDXcx", ABSENT, ABSENT, Doubt.JOURNAL_MISSED),
        ("CJD", ABSENT, ABSENT, Doubt.JOURNAL_MISSED),
        ("CCX", ABSENT, ABSENT, Doubt.JOURNAL_MOVED),
        ("J", ABSENT, ABSENT, Doubt.JOURNAL_UNKNOWN),
        ("X", IDLE, ABSENT, Doubt.JOURNAL_UNKNOWN),
        ("JDX", IDLE, ABSENT, Doubt.JOURNAL_UNKNOWN),
        ("", ABSENT, IDLE, Doubt.JOURNAL_UNKNOWN),
        ("", IDLE, ABSENT, Doubt.JOURNAL_MISSED),
        ("", ABSENT, IN_USE, Doubt.JOURNAL_UNKNOWN),
        ("JDJ", IDLE, IN_USE, Doubt.JOURNAL_UNKNOWN),
        ("CJDXCJD", ABSENT, IN_USE, Doubt.JOURNAL_UNKNOWN),
        ("D", IDLE, IDLE, Doubt.STRAY_WRITE),  # MEMORY next to what PERSIST left
        ("JD", IDLE, IDLE, Doubt.STRAY_WRITE),  # PERSIST was rolled back, then MEMORY
        ("JDJD", IDLE, IDLE, Doubt.STRAY_WRITE),  # PERSIST cuts the file, or MEMORY afterwards
        ("JDJDJ", IDLE, IDLE, Doubt.JOURNAL_REUSED),  # two commits, or one with a full cache, or exclusive mode
        ("CJDJDJ", ABSENT, IDLE, Doubt.JOURNAL_REUSED),
    ],
)
def test_orders_that_leave_doubt(events: str, at_first: JournalNow, at_last: JournalNow, doubt: Doubt) -> None:
    """A write that no journal accounts for, or a journal that can't be read, leaves doubt."""
    assert trail(events, at_first).doubt_now(at_last) is doubt


@pytest.mark.parametrize(
    ("events", "is_whole"),
    [
        ("J+J+DJ+", True),
        ("J+DDJ+", True),
        ("J+J+J+DJ+DJ+", True),  # of the last commit alone
        ("J+DJ+J+", False),  # zeros over the header, then the cut
        ("JDJ", False),  # nobody counts the writes, so the two may be one event
        ("JDJ+", False),  # counted from between the two on, and merged with the first
        ("J+DJ", False),
        ("J+DJJ+", False),
        ("JJ+DJ+", False),
        ("JD+J+", False),
        ("DJ+", False),
        ("J+-DJ+", False),  # the last may be two writes, if somebody counts again after the first of them
        ("J+J-J+DJ+", False),
        ("J+", False),  # rolled back
        ("", False),
    ],
)
def test_a_kept_journal_is_whole_if_it_was_written_once_after_the_database(events: str, is_whole: bool) -> None:
    """Another write, or one that was merged with it, may have cut the journal to a limit."""
    assert trail(events, IDLE).is_whole is is_whole


def test_a_transaction_that_has_begun_at_the_start_is_seen_to_its_end() -> None:
    """The transaction's journal was created before the quiet moment, and its writes to the database come after it."""
    seen = trail("CJ")
    seen.restart(IN_USE)
    seen.database_written()
    seen.journal_deleted(is_held=True)
    assert seen.doubt_now(ABSENT) is None


@pytest.mark.parametrize(("events", "at_first"), [("J", IDLE), ("CJD", ABSENT), ("", ABSENT)])
def test_a_journal_in_use_that_was_not_seen_from_its_beginning(events: str, at_first: JournalNow) -> None:
    """A kept journal may hold the transaction's first records already."""
    seen = trail(events, at_first)
    seen.restart(IN_USE)
    assert seen.doubt_now(IN_USE) is Doubt.JOURNAL_UNKNOWN


def test_the_first_doubt_stays_until_the_next_start() -> None:
    """No later event removes the doubt."""
    seen = trail("D")
    seen.raise_doubt(Doubt.WAL)
    assert seen.doubt_now(ABSENT) is Doubt.STRAY_WRITE
    seen.restart(ABSENT)
    assert seen.doubt_now(ABSENT) is None
