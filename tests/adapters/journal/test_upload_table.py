"""Tests of multipart uploads in the journal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shipping import begun_journal, segment
from walsyncd.adapters.journal import rows
from walsyncd.adapters.journal.journal import Advance, Journal, ObjectRow, PartRow


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journal]:
    monkeypatch.setattr(rows, "PUT_SIZE_MAX", 10)
    with begun_journal(tmp_path) as journal:
        yield journal


@pytest.fixture
def row(journal: Journal) -> ObjectRow:
    (row,) = journal.advance([Advance(1, None, (segment(1, 1, body=b"x" * 30),))])
    journal.begun([row.id], 5)
    return row


def test_an_upload_and_its_parts_are_kept(journal: Journal, row: ObjectRow) -> None:
    """The journal has the id, the part size, and how far each part has come."""
    assert journal.parts_begun(row.id, [PartRow(1, 20, "aa"), PartRow(2, 10, "bb")])
    assert journal.upload_opened(row.id, "upload-1", 20)
    journal.part_stored(row.id, 2, "etag-2")
    assert journal.parts(row.id) == [PartRow(1, 20, "aa"), PartRow(2, 10, "bb", "etag-2")]
    assert (journal.pending()[0].upload_id, journal.pending()[0].part_size) == ("upload-1", 20)


def test_a_part_begun_again_is_not_stored(journal: Journal, row: ObjectRow) -> None:
    """A base's part that was read again has other bytes."""
    journal.part_begun(row.id, 1, 20, "aa")
    journal.part_stored(row.id, 1, "etag-1")
    journal.part_begun(row.id, 1, 20, "cc", "detail")
    assert journal.parts(row.id) == [PartRow(1, 20, "cc", None, "detail")]


def test_a_forgotten_upload_keeps_its_parts_sizes(journal: Journal, row: ObjectRow) -> None:
    """Acknowledgements do not count any more, but it is still known what has to be sent."""
    journal.parts_begun(row.id, [PartRow(1, 20, "aa")])
    journal.upload_opened(row.id, "upload-1", 20)
    journal.part_stored(row.id, 1, "etag-1")
    journal.upload_forgotten(row.id)
    assert journal.parts(row.id) == [PartRow(1, 20, "aa")]
    assert journal.pending()[0].upload_id is None


def test_a_dropped_row_takes_nothing_more(journal: Journal, row: ObjectRow) -> None:
    """The uploader is told that the row was dropped, and an upload that may be open is aborted later."""
    journal.upload_opened(row.id, "upload-1", 20)
    journal.drop_spool(1)
    assert not journal.upload_opened(row.id, "upload-2", 20)
    assert not journal.part_begun(row.id, 1, 20, "aa")
    journal.part_stored(row.id, 1, "etag-1")
    assert journal.parts(row.id) == []
    (leftover,) = journal.leftovers()
    assert (leftover.key, leftover.upload_id) == (row.key, "upload-1")
    journal.leftover_aborted(leftover.id)
    assert journal.leftovers() == []


def test_what_never_opened_an_upload_leaves_none(journal: Journal) -> None:
    """A small object, and a large one that was never begun, leave no upload."""
    journal.advance([Advance(1, None, (segment(1, 1, body=b"x" * 10), segment(2, 2, body=b"x" * 30)))])
    journal.begun([journal.pending()[0].id], 5)
    journal.drop_spool(1)
    assert journal.leftovers() == []
