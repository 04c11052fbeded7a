"""Tests of which replicas are released to other hosts at a stop, and what that costs at most."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import Call, FakeStorage
from tests.shipping import G1, NAME, T0, begun_journal, segment
from walsyncd.adapters.journal.journal import Advance, DatabaseRow, Journal
from walsyncd.core.stored.owner import Owner, format_owner, parse_owner
from walsyncd.engine.ship.ownership import Identity, Ownership
from walsyncd.engine.ship.release import THREADS_MAX, releasable, release_all
from walsyncd.errors import TransientError

OWNER = f"{NAME}/owner.json"


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with begun_journal(tmp_path) as journal:
        yield journal


def ownership(journal: Journal, storage: FakeStorage, run: str) -> Ownership:
    return Ownership(journal, storage, Identity("web-1", "machine-1", run), lambda: T0)


def claimed(journal: Journal, storage: FakeStorage, *, base: bool = True) -> DatabaseRow:
    """Return the row of the database that ``run-1`` has claimed."""
    ownership(journal, storage, "run-1").claim(journal.database_by_id(1), G1)
    if base:
        with journal._transaction() as connection:
            connection.execute("UPDATE database SET base_key = ?", (f"{G1}/base/x",))
    return journal.database_by_id(1)


def test_who_has_written_releases_what_is_complete(journal: Journal, storage: FakeStorage) -> None:
    """The run must have written, the replica must have a base, and nothing may wait to be stored."""
    claimed(journal, storage, base=False)
    assert releasable(journal, [1], "run-1") == []
    row = claimed(journal, storage)
    assert releasable(journal, [1], "run-1") == [row]
    assert releasable(journal, [1], "run-2") == []
    journal.advance([Advance(1, "{}", (segment(1, 1),))])
    assert releasable(journal, [1], "run-1") == []


@pytest.fixture
def storage() -> FakeStorage:
    return FakeStorage()


def test_a_release_says_which_generation(journal: Journal, storage: FakeStorage) -> None:
    """The release still names the run, so that its own journal can continue."""
    row = claimed(journal, storage)
    assert release_all(ownership(journal, storage, "run-1"), [row], 60.0) == 1
    owner = parse_owner(storage.objects[OWNER].body)
    assert (owner.run_id, owner.released) == ("run-1", G1)


def test_the_store_is_not_examined_for_each_database(
    journal: Journal, storage: FakeStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Examining a folder means reading the mount table, which each thread does once."""
    row = claimed(journal, storage)
    asked: list[Ownership] = []

    def is_exclusive(examined: Ownership) -> bool:
        asked.append(examined)
        return True

    monkeypatch.setattr(Ownership, "is_exclusive", is_exclusive)
    release_all(ownership(journal, storage, "run-1"), [row] * (3 * THREADS_MAX), 60.0)
    assert 1 <= len(asked) <= THREADS_MAX


def test_nothing_is_released_that_another_daemon_has(journal: Journal, storage: FakeStorage) -> None:
    """Such a replica is not released, whatever the journal says."""
    row = claimed(journal, storage)
    other = format_owner(Owner("web-9", "machine-9", "run-9", "2026-11-22T00:00:00+00:00"))
    storage.put(OWNER, other, metadata={})
    assert release_all(ownership(journal, storage, "run-1"), [row], 60.0) == 0
    assert storage.objects[OWNER].body == other


def test_nothing_is_released_over_somebody_who_was_faster(journal: Journal, storage: FakeStorage) -> None:
    """The other daemon takes the replica between the check and the write."""
    row = claimed(journal, storage)
    other = format_owner(Owner("web-9", "machine-9", "run-9", "2026-11-22T00:00:00+00:00"))

    def take(call: Call) -> None:
        if call.name == "put_if":
            storage.before = lambda _call: None
            storage.put(OWNER, other, metadata={})

    storage.before = take
    assert release_all(ownership(journal, storage, "run-1"), [row], 60.0) == 0
    assert storage.objects[OWNER].body == other


def test_without_conditional_writes_nothing_is_released(journal: Journal, storage: FakeStorage) -> None:
    """Two daemons that take over a replica might both believe that it is theirs."""
    row = claimed(journal, storage)
    storage.honours_conditions = False
    assert release_all(ownership(journal, storage, "run-1"), [row], 60.0) == 0
    assert parse_owner(storage.objects[OWNER].body).released == ""


def test_a_storage_that_is_away_ends_it(journal: Journal, storage: FakeStorage) -> None:
    """One failed request is enough to end the release."""
    row = claimed(journal, storage)

    def away(_call: Call) -> None:
        raise TransientError("away")

    storage.before = away
    storage.calls.clear()
    assert release_all(ownership(journal, storage, "run-1"), [row] * 100, 60.0) == 0
    assert len(storage.calls) <= 8


def test_a_storage_that_does_not_answer_is_not_awaited(journal: Journal, storage: FakeStorage) -> None:
    """The daemon ends without the answer."""
    row = claimed(journal, storage)
    answered = threading.Event()

    def hangs(_call: Call) -> None:
        answered.wait(60.0)

    storage.before = hangs
    assert release_all(ownership(journal, storage, "run-1"), [row], 0.05) == 0
    answered.set()
