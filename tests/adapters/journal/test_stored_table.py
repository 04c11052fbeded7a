"""Tests of how the store's acknowledgements are noted: once, with the next transaction if one comes soon."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.fakes import Killed
from tests.shipping import G1, segment
from walsyncd.adapters.journal import journal_schema
from walsyncd.adapters.journal.deferred_changes import DeferredChanges
from walsyncd.adapters.journal.journal import Advance, Journal, ObjectRow, reader
from walsyncd.errors import MissingError, StateError

LARGE = bytes(range(256)) * 400


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path) as journal:
        for name in ("app", "other"):
            row = journal.database(name, f"/srv/{name}.db")
            journal.begin_generation(row.id, G1, "first", "{}", 0)
        yield journal


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "spool").iterdir())


def commits(journal: Journal) -> list[str]:
    """Return the list of what is committed from now on."""
    seen: list[str] = []
    journal._connection.set_trace_callback(lambda sql: seen.append(sql) if sql == "COMMIT" else None)
    return seen


def test_what_is_deferred_is_in_the_next_transaction(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deferred change is on the disk at the latest when the next row is begun."""
    monkeypatch.setattr(DeferredChanges, "is_worthwhile", lambda _self: True)
    (first,) = journal.advance([Advance(1, "{}", (segment(1, 4),), begin=True)])
    committed = commits(journal)
    assert journal.stored_deferred(first, now_ms=60, tokens=2.5)
    assert journal.deferred_due_s() is not None
    with closing(reader(tmp_path)) as disk:
        assert disk.pending() == [first]
        (second,) = journal.advance([Advance(1, "{}", (segment(5, 5),), begin=True)])
        assert committed == ["COMMIT"]
        assert disk.pending() == [second]
        found = disk.databases()[0]
    assert (found.stored_frame, found.stored_ms, found.tokens, found.tokens_ms) == (4, 60, 2.5, 60)
    assert journal.deferred_due_s() is None


def test_who_reads_finds_what_is_deferred(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deferred change is noted before a query reads.

    If the disk has no room, the query gets what is on the disk, and the change is noted later.
    """
    monkeypatch.setattr(DeferredChanges, "is_worthwhile", lambda _self: True)
    (row,) = journal.advance([Advance(1, "{}", (segment(1, 4),), begin=True)])
    journal.stored_deferred(row, now_ms=60, tokens=2.5)
    with monkeypatch.context() as patch:
        patch.setattr(journal_schema.Connection, "_transaction", full)
        assert journal.pending() == [row]
    assert journal.pending() == []
    assert journal.database_by_id(1).stored_frame == 4


def test_a_claim_is_noted_with_the_next_transaction(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No query asks for a claim. Until the claim is noted, the run is one that may have written, as after a kill."""
    monkeypatch.setattr(DeferredChanges, "is_worthwhile", lambda _self: True)
    journal.claim_begun(1, "run-1")
    committed = commits(journal)
    journal.claimed_deferred(1, "run-1")
    row = journal.database_by_id(1)
    assert (row.owner_run, row.owner_next, committed) == (None, "run-1", [])
    assert journal.deferred_due_s() is not None
    journal.note_error(2, "", 0)
    assert committed == ["COMMIT"]
    with closing(reader(tmp_path)) as disk:
        (found, _) = disk.databases()
    assert (found.owner_run, found.owner_next) == ("run-1", None)


def test_a_claim_among_no_other_transactions_is_noted_at_once(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without other transactions, nothing else would note the claim soon."""
    monkeypatch.setattr(DeferredChanges, "is_worthwhile", lambda _self: False)
    journal.claim_begun(1, "run-1")
    journal.claimed_deferred(1, "run-1")
    assert journal.database_by_id(1).owner_run == "run-1"


@contextmanager
def full(journal: Journal | None = None) -> Iterator[None]:
    if journal is not None:
        raise StateError("write journal: database or disk is full")
    yield


def test_what_was_dropped_is_not_noted_as_stored(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dropped object is not noted, in either order.

    What was stored before the drop is noted, because the store has it.
    """
    monkeypatch.setattr(DeferredChanges, "is_worthwhile", lambda _self: True)
    (row,) = journal.advance([Advance(1, "{}", (segment(1, 4),), begin=True)])
    journal.drop_spool(1)
    journal.stored_deferred(row, now_ms=60, tokens=2.5)
    assert journal.database_by_id(1).stored_frame == 0
    (row,) = journal.advance([Advance(1, "{}", (segment(5, 6),), begin=True)])
    journal.stored_deferred(row, now_ms=60, tokens=2.5)
    assert journal.drop_spool(1) == 0
    assert journal.database_by_id(1).stored_frame == 6


def test_the_size_of_the_spool_is_asked_for_without_writing(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is deferred counts as spooled then, so it is never less than the spool."""
    monkeypatch.setattr(DeferredChanges, "is_worthwhile", lambda _self: True)
    (row,) = journal.advance([Advance(1, "{}", (segment(1, 4),), begin=True)])
    committed = commits(journal)
    journal.stored_deferred(row, now_ms=60, tokens=2.5)
    assert (journal.spool_bytes_at_most(), committed) == (row.size, [])
    assert (journal.spool_bytes(), committed) == (0, ["COMMIT"])
    assert journal.spool_bytes_at_most() == 0


def test_only_small_segments_among_other_transactions_are_deferred(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body in a file is removed with its row, so it is not deferred. Nothing is noted later than necessary."""
    monkeypatch.setattr(DeferredChanges, "is_worthwhile", lambda _self: True)
    rows = journal.advance([Advance(1, "{}", (segment(1, 1, body=LARGE), segment(2, 2)))])
    assert journal.stored_deferred(rows[0], now_ms=60, tokens=1)
    assert (journal.deferred_due_s(), files(tmp_path)) == (None, [])
    monkeypatch.setattr(DeferredChanges, "is_worthwhile", lambda _self: False)
    assert journal.stored_deferred(rows[1], now_ms=60, tokens=1)
    assert journal.deferred_due_s() is None
    assert not journal.stored_deferred(rows[1], now_ms=70, tokens=1)


def test_the_body_of_a_row_that_leaves_at_once_is_held_until_it_is_read(journal: Journal) -> None:
    """The body of a row that waits is not kept in memory, and neither is that of a dropped row."""
    first, second = journal.advance([Advance(1, "{}", (segment(1, 1), segment(2, 2)), begin=True)])
    assert (journal.is_held(first), journal.is_held(second)) == (True, False)
    assert journal.body(first) == segment(1, 1).body
    assert not journal.is_held(first)
    assert journal.body(first) == segment(1, 1).body
    (third,) = journal.advance([Advance(2, "{}", (segment(1, 1),), begin=True)])
    journal.drop_spool(2)
    assert not journal.is_held(third)
    with pytest.raises(MissingError):
        journal.body(third)


def test_a_row_never_gets_the_body_of_one_whose_transaction_failed(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later row gets the same id, but not the body."""
    failed: list[ObjectRow] = []

    def fail(rows: list[ObjectRow], bodies: object) -> None:
        hold(rows, bodies)  # type: ignore[arg-type]
        failed.extend(rows)
        raise Killed

    hold = journal._hold_begun
    monkeypatch.setattr(journal, "_hold_begun", fail)
    with pytest.raises(Killed):
        journal.advance([Advance(1, "{}", (segment(1, 1),), begin=True)])
    monkeypatch.undo()
    (row,) = journal.advance([Advance(1, "{}", (segment(1, 2),))])
    assert row.id == failed[0].id
    assert not journal.is_held(row)
    assert journal.body(row) == segment(1, 2).body
