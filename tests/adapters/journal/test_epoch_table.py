"""Tests of stored segments that the journal keeps until their epoch is one object."""

from __future__ import annotations

from pathlib import Path

from tests.compaction import make_history, ship
from tests.fakes import FakeStorage
from walsyncd.adapters.journal.epoch_table import Epoch
from walsyncd.adapters.journal.journal import Journal


def test_bodies_are_kept_as_far_as_there_is_room(tmp_path: Path) -> None:
    """All rows are kept, because they name the objects. Bodies are kept up to the limit, also across a restart."""
    history, storage = make_history(tmp_path), FakeStorage()
    sizes = [len(body) for _, body in history.segments]
    with Journal.open(tmp_path / "state") as journal:
        journal.keep_bodies(sum(sizes[:2]))
        database_id = ship(journal, storage, history)
        epochs = [Epoch(database_id, history.generation, epoch) for epoch in (1, 2)]
        assert [row.has_body for epoch in epochs for row in journal.kept(epoch)] == [True, True, *[False] * 4]
        first, *_ = journal.kept(epochs[0])
        assert b"".join(journal.kept_blocks(epochs[0], first)) == history.segments[0][1]


def test_large_bodies_stay_in_their_files(tmp_path: Path) -> None:
    """Large bodies are not copied. The file outlives a sweep, and is deleted with the epoch."""
    history, storage = make_history(tmp_path, page_size=65536, segments=2), FakeStorage()
    with Journal.open(tmp_path / "state") as journal:
        journal.keep_bodies(1 << 30)
        database_id = ship(journal, storage, history)
        epoch = Epoch(database_id, history.generation, 1)
        journal.sweep()
        assert [b"".join(journal.kept_blocks(epoch, row)) for row in journal.kept(epoch)] == [
            body for key, body in history.segments if key.epoch == 1
        ]
        journal.epoch_forgotten(epoch)
        assert journal.kept(epoch) == []


def test_without_deletion_nothing_is_kept(tmp_path: Path) -> None:
    """Segments that an earlier configuration kept are deleted, with their files."""
    history, storage = make_history(tmp_path), FakeStorage()
    with Journal.open(tmp_path / "state") as journal:
        journal.keep_bodies(1 << 30)
        database_id = ship(journal, storage, history)
        journal.whole_begun(Epoch(database_id, history.generation, 1), "key", 1, 0)
        journal.forget_kept(1)
        assert (journal.wholes(database_id), journal.closed_epochs()) == ([], [])
        row = journal.database_by_id(database_id)
        assert row.bucket_objects == len(history.segments)
        assert row.bucket_bytes == sum(len(body) for _, body in history.segments)
