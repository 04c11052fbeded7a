"""Tests of who wrote to a database, by the order of events.

Each script has a word for each event, as the queue reports them.
"""

from __future__ import annotations

import pytest

from walsyncd.core.follow.write_trail import JUST_DRAINS, WriteTrail


def told(script: str) -> tuple[WriteTrail, list[str]]:
    """Return the trail after ``script``, and the words for writes that SQLite does not explain."""
    trail = WriteTrail()
    events = {
        "wal+": trail.wal_created,
        "wal": trail.wal_written,
        "wal.": trail.wal_closed,
        "shm+": trail.shm_seen,
        "shm.": trail.shm_closed,
        "shm-": trail.shm_deleted,
        "db": trail.database_written,
        "db.": trail.database_closed,
    }
    foreign = [word for word in script.split() if events[word]() is False]
    return trail, foreign


LAST_CLOSE = "wal+ shm+ wal db shm- shm. wal."


def test_a_last_close() -> None:
    """A last close deletes and closes -shm, then -wal. It closes the database last, which was written before."""
    trail, foreign = told(LAST_CLOSE)
    assert trail.ends_with_index()
    assert trail.ends_copied_back()
    assert not foreign
    assert not told(f"{LAST_CLOSE} db.")[1]


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("wal+ shm+ wal shm-", "nothing closed -shm after its DELETE"),
        ("wal+ shm+ wal shm. wal. db. shm-", "it was closed before: who had it open was killed"),
        ("wal+ shm+ wal db shm- db shm. wal.", "the database was written between the DELETEs"),
        ("wal+ shm+ wal db shm- shm. wal. db.", "the database was closed between the DELETEs"),
    ],
)
def test_what_is_no_last_close(script: str, why: str) -> None:
    """The events are those of rm, or of a copy that was made between the two DELETEs."""
    assert not told(script)[0].ends_with_index(), why


@pytest.mark.parametrize(
    ("script", "ends"),
    [
        ("wal+ shm+ wal db", True),
        ("wal+ shm+ db wal", False),
        ("wal+ shm+", True),
        ("wal+ wal db wal+ shm+ wal", False),
    ],
)
def test_whether_all_was_copied_back(script: str, *, ends: bool) -> None:
    """All was copied back if the last write of the WAL's life was to the database, or if none was to the WAL."""
    assert told(script)[0].ends_copied_back() is ends


@pytest.mark.parametrize(
    ("script", "ends"),
    [
        ("wal+ wal db wal.", True),
        ("wal+ wal.", True),
        ("wal+ wal wal.", False),
        ("wal+ wal db wal. db.", False),
        ("wal+ wal db db. wal.", False),
        ("wal+ shm+ wal db wal.", False),
        ("wal+ wal db", False),
    ],
)
def test_an_end_in_exclusive_mode(script: str, *, ends: bool) -> None:
    """-wal is closed and then deleted. A process that is killed closes the database after that."""
    assert told(script)[0].ends_without_index(is_empty=False) is ends


def test_an_emptied_wal_ends_in_exclusive_mode() -> None:
    """TRUNCATE writes to the -wal last."""
    assert told("wal+ wal db wal wal.")[0].ends_without_index(is_empty=True)


@pytest.mark.parametrize(
    ("script", "foreign"),
    [
        ("wal+ shm+ wal wal. db.", []),
        ("wal+ shm+ wal db wal. db.", []),
        ("wal+ shm+ wal wal. wal. wal. db. db. db.", []),
        ("wal+ shm+ wal wal. db. wal wal. db.", []),
        ("wal+ shm+ wal db.", ["db."]),
        ("wal+ shm+ wal wal. db db.", ["db."]),
        ("wal+ shm+ wal wal. db. wal db.", ["db."]),
    ],
)
def test_who_closes_the_database(script: str, foreign: list[str]) -> None:
    """A connection closes -wal before the database. If nobody reads the queue, closes in a row are one event."""
    assert told(script)[1] == foreign


def test_the_last_close_of_the_wal_before_may_be_read_in_the_next() -> None:
    """The next process may open the database before the last one has closed it."""
    assert not told(f"{LAST_CLOSE} wal+ shm+ wal db.")[1]


def test_a_new_index_beside_an_old_wal() -> None:
    """SQLite makes a new wal-index only with a new WAL."""
    assert told("wal+ shm+ wal shm- shm+")[1] == ["shm+"]
    assert not told(f"{LAST_CLOSE} wal+ shm+")[1]


def test_who_only_opens_and_closes_writes_nothing() -> None:
    """The close of a connection that wrote nothing counts against it only right beside a write without a cause."""
    trail = WriteTrail()
    assert not trail.is_just_written(1)
    trail.database_written(drain=5)
    assert trail.is_just_written(5 + JUST_DRAINS)
    assert not trail.is_just_written(6 + JUST_DRAINS)


def test_a_change_that_no_event_tells_of() -> None:
    """The change counts from the look that showed it first. An event, however late, explains it."""
    trail = WriteTrail()
    assert [trail.untold_ms(look, now_ms) for look, now_ms in (((1, 1), 0), ((1, 1), 10))] == [-1, -1]
    assert [trail.untold_ms((1, 2), now_ms) for now_ms in (20, 120)] == [0, 100]
    trail.database_written()
    assert trail.untold_ms((1, 2), 220) == -1


def test_a_change_that_was_dealt_with_is_none() -> None:
    """A change that was dealt with does not count again. One that nobody has seen still does."""
    trail = WriteTrail()
    trail.untold_ms((1, 1), 0)
    trail.accept()
    assert trail.is_untold((1, 2))
    assert not trail.is_untold((1, 1))
    assert trail.untold_ms((1, 2), 10) == 0
    trail.accept()
    assert [trail.untold_ms((1, 2), now_ms) for now_ms in (20, 30)] == [-1, -1]


def test_an_event_between_a_look_and_its_judgement_explains_what_the_look_missed() -> None:
    """The look may be older than the write or the loss that the event reports."""
    for tell in (WriteTrail.database_written, WriteTrail.events_lost):
        trail = WriteTrail()
        assert trail.untold_ms((1, 1), 0, told=trail.told) == -1
        told = trail.told
        tell(trail)
        assert trail.untold_ms((1, 1), 10, told=told) == -1
        assert [trail.untold_ms((2, 2), now_ms, told=trail.told) for now_ms in (20, 320)] == [-1, -1]


def test_lost_events_are_held_against_nobody() -> None:
    """The close of -wal may be among the lost events."""
    trail, _ = told("wal+ shm+ wal db")
    trail.untold_ms((1, 1), 0)
    trail.events_lost()
    assert trail.database_closed()
    assert trail.untold_ms((2, 2), 1_000) == -1


def test_lost_events_may_have_been_of_any_file() -> None:
    """Lost events are no proof that the database changed without a journal."""
    trail = WriteTrail()
    trail.events_lost()
    assert (trail.file_events, trail.journal_events) == (1, 1)
