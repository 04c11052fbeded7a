"""Tests of uploads that nobody will finish, and of those that are not ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import Call, FakeStorage
from tests.shipping import G1, G2, NAME, T0, begun_journal, segment
from walsyncd.adapters.journal.epoch_table import Epoch
from walsyncd.adapters.journal.journal import Advance, Journal
from walsyncd.core.stored.layout import BaseKey, WholeKey, format_key
from walsyncd.engine.ship.orphaned_uploads import FOREIGN_AGE_MS, abort_orphans
from walsyncd.errors import RefusedError

OLD, YOUNG = T0 - FOREIGN_AGE_MS - 1, T0 - FOREIGN_AGE_MS + 1


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with begun_journal(tmp_path) as journal:
        yield journal


@pytest.fixture
def storage() -> FakeStorage:
    return FakeStorage()


def opened(storage: FakeStorage, key: str, initiated_ms: int) -> str:
    upload_id = storage.create_upload(key, metadata={})
    storage.uploads[upload_id].initiated_ms = initiated_ms
    return upload_id


def sweep(journal: Journal, storage: FakeStorage) -> int:
    return abort_orphans(journal, storage, database_id=1, name=NAME, wall_ms=T0)


def base_key(generation: str) -> str:
    return format_key(BaseKey(generation, 1, 0, "0000abcd"))


def test_in_a_generation_of_ours_what_the_journal_does_not_know_goes(journal: Journal, storage: FakeStorage) -> None:
    """An unknown upload is aborted however young it is, because its request landed late.

    An upload under way, or a known leftover, is left.
    """
    (row,) = journal.advance([Advance(1, "{}", (segment(1, 1),))])
    base = journal.base_begun(
        1, generation=G1, key=base_key(G1), token=NAME, plan="", part_size=8, epoch=1, frame=0, now_ms=1
    )
    kept = [opened(storage, f"{NAME}/{key}", YOUNG) for key in (row.key, base.key)]
    late = opened(storage, f"{NAME}/{segment(2, 9).key}", YOUNG)
    assert sweep(journal, storage) == 1
    assert list(storage.uploads) == kept
    assert late not in storage.uploads
    journal.base_dropped(base.id)
    assert sweep(journal, storage) == 0, "leftovers are aborted elsewhere"


def test_what_others_began_goes_after_seven_days(journal: Journal, storage: FakeStorage) -> None:
    """A younger upload is left."""
    kept = [opened(storage, f"{NAME}/{base_key(G2)}", YOUNG)]
    opened(storage, f"{NAME}/{base_key(G2)}", OLD)
    assert sweep(journal, storage) == 1
    assert list(storage.uploads) == kept


def test_a_compaction_that_is_under_way_is_left(journal: Journal, storage: FakeStorage) -> None:
    """What a killed compaction sent, and what arrived after the next attempt had looked, is aborted later."""
    epoch, key = Epoch(1, G1, 1), format_key(WholeKey(G1, 1, 4, T0, 0))
    journal.whole_begun(epoch, key, 100, 1)
    kept = opened(storage, f"{NAME}/{key}", YOUNG)
    late = opened(storage, f"{NAME}/{format_key(WholeKey(G1, 2, 4, T0, 0))}", YOUNG)
    assert sweep(journal, storage) == 1
    assert list(storage.uploads) == [kept]
    assert late != kept
    journal.whole_stored(epoch, 2)
    assert sweep(journal, storage) == 1
    assert storage.uploads == {}


def test_other_folders_and_foreign_names_are_left_alone(journal: Journal, storage: FakeStorage) -> None:
    """Such folders are of a database below ours, of one whose name begins like ours, and of other programs."""
    keys = (f"{NAME}/below/{base_key(G2)}", f"{NAME}-2/{base_key(G1)}", f"{NAME}/notes.txt")
    kept = [opened(storage, key, OLD) for key in keys]
    assert sweep(journal, storage) == 0
    assert list(storage.uploads) == kept


def test_a_store_that_does_not_list_uploads_is_no_obstacle(journal: Journal, storage: FakeStorage) -> None:
    """The permission is needed for nothing else."""

    def refuse(call: Call) -> None:
        if call.name == "list_uploads":
            raise RefusedError("list uploads: AccessDenied")

    storage.before = refuse
    assert sweep(journal, storage) == 0
