"""Tests of bases under way in the journal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shipping import G1
from walsyncd.adapters.journal.journal import Journal, Leftover, ObjectKind, ObjectRow, ObjectState, PartRow

WALSYNCD_ID = "0123abcd"


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path) as journal:
        journal.database("app", "/srv/app.db")
        yield journal


def begin(journal: Journal, key: str = "base-1", *, run_id: str = "") -> ObjectRow:
    return journal.base_begun(
        1, generation=G1, key=key, token=WALSYNCD_ID, plan="{}", part_size=8, epoch=2, frame=3, now_ms=5, run_id=run_id
    )


def test_a_base_is_durable_before_its_upload(journal: Journal) -> None:
    """A base is marked as begun from the start. It is part neither of the queue nor of the spool."""
    row = begin(journal)
    (base,) = journal.bases()
    assert base.row == row
    assert (base.plan, base.etag) == ("{}", None)
    assert (row.kind, row.state, row.epoch, row.last) == (ObjectKind.BASE, ObjectState.BEGUN, 2, 3)
    assert (journal.pending(), journal.spool_bytes(), journal.bases(2)) == ([], 0, [])


def test_the_first_base_notes_the_run_that_claims_its_database(journal: Journal) -> None:
    """The run is noted in the same transaction as the row of the base."""
    begin(journal, run_id="run-1")
    row = journal.database_by_id(1)
    assert (row.owner_run, row.owner_next) == (None, "run-1")


def test_a_run_that_may_have_written_is_not_forgotten_for_a_base(journal: Journal) -> None:
    """Without the note the run's ``owner.json`` would be taken for another daemon's."""
    begin(journal, run_id="run-1")
    begin(journal, "base-2", run_id="run-2")
    assert journal.database_by_id(1).owner_next == "run-1"
    journal.claimed(1, "run-1")
    begin(journal, "base-3", run_id="run-2")
    row = journal.database_by_id(1)
    assert (row.owner_run, row.owner_next) == ("run-1", None)


def test_plan_and_parts_come_back(journal: Journal) -> None:
    """Plan and parts come back with the sender's own detail."""
    row = begin(journal)
    journal.upload_opened(row.id, "upload-1", 8)
    journal.part_begun(row.id, 1, 8, "aa", '{"range": 1}')
    (base,) = journal.bases(1)
    assert (base.plan, base.row.upload_id) == ("{}", "upload-1")
    assert journal.parts(row.id) == [PartRow(1, 8, "aa", None, '{"range": 1}')]


def test_a_stored_base_waits_for_its_manifest(journal: Journal) -> None:
    """The journal keeps what the manifest needs."""
    row = begin(journal)
    journal.base_stored(row.id, etag="e", size=99)
    (base,) = journal.bases()
    assert (base.row.state, base.etag, base.row.size) == (ObjectState.STORED, "e", 99)


def test_a_dropped_base_is_to_be_aborted(journal: Journal) -> None:
    """The upload of a dropped base is aborted, whether its upload id is known or not.

    A stored base has no open upload.
    """
    known, unknown, stored = (begin(journal, key) for key in ("k", "u", "s"))
    journal.upload_opened(known.id, "upload-1", 8)
    journal.base_stored(stored.id, etag="e", size=1)
    for row in (known, unknown, stored, stored):
        journal.base_dropped(row.id)
    assert journal.bases() == []
    assert journal.leftovers() == [Leftover(1, 1, "k", "upload-1"), Leftover(2, 1, "u", None)]
