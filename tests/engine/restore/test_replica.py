"""Tests of reading a replica: listings, discovery, manifests, and waiting for a storage that is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.replicas import GENERATION, NEXT_GENERATION, ReplicaMaker, make_replica
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.core.stored.layout import format_key
from walsyncd.engine.restore import replica as replica_module
from walsyncd.engine.restore.replica import ATTEMPTS_MAX, Replica, find_replicas, with_retries
from walsyncd.errors import CorruptError, TransientError


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[ReplicaMaker]:
    with make_replica(tmp_path) as made:
        yield made


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record pauses instead of making them, and return the list of them."""
    made: list[int] = []
    monkeypatch.setattr(replica_module, "pause", made.append)
    return made


def test_foreign_objects_are_not_seen(maker: ReplicaMaker) -> None:
    """A foreign object is not listed, and is no generation."""
    maker.base()
    storage = maker.storage
    for key in ("owner.json", "notes.txt", f"{GENERATION}/base/readme", f"{GENERATION}/wal/x/y"):
        storage.put(f"{maker.name}/{key}", b"", metadata={})
    replica = Replica(storage, maker.name)
    assert replica.generations() == [GENERATION]
    assert len(list(replica.objects(GENERATION))) == 2


def test_root_of_a_storage_can_be_the_replica(maker: ReplicaMaker) -> None:
    """A URL that is the database's folder needs no name."""
    maker.base()
    inside = Replica(DirectoryStorage(maker.root / maker.name))
    assert inside.generations() == [GENERATION]
    assert inside.list_all() == Replica(maker.storage, maker.name).list_all()


def test_frames_are_listed_from_an_epoch_on(maker: ReplicaMaker) -> None:
    """The number of listed objects is in proportion to what will be applied."""
    maker.base()
    for _ in range(3):
        maker.commit()
        maker.close_epoch()
        maker.compact()
    found = Replica(maker.storage, maker.name).frames_from(GENERATION, 2)
    assert sorted((type(key).__name__, key.epoch) for key in found if hasattr(key, "epoch")) == [
        ("SegmentKey", 2),
        ("SegmentKey", 3),
        ("WholeKey", 2),
        ("WholeKey", 3),
    ]


def test_listing_of_bases_has_all_of_what_has_none(maker: ReplicaMaker) -> None:
    """The segments of a generation are listed only if it has no manifest, to know by how much the head falls back."""
    maker.base()
    maker.commit()
    maker.begin_generation(NEXT_GENERATION)
    maker.commit()
    maker.ship()
    old, new = Replica(maker.storage, maker.name).bases().generations
    assert (len(old.manifests), len(old.frames)) == (1, 0)
    assert (len(new.manifests), len(new.frames)) == (0, 1)


def test_databases_are_found_at_any_depth(tmp_path: Path) -> None:
    """A folder with a generation or an owner is a database's folder, even if it is within another database's folder."""
    storage = DirectoryStorage(tmp_path)
    for key in (f"a/{GENERATION}/x", "b/c/owner.json", f"a/d/e/{GENERATION}/x", "f/other.txt"):
        storage.put(key, b"", metadata={})
    assert find_replicas(storage) == ["a", "a/d/e", "b/c"]
    assert find_replicas(storage, "b") == ["b/c"]
    assert find_replicas(DirectoryStorage(tmp_path / "a" / "d" / "e")) == [""]
    assert find_replicas(DirectoryStorage(tmp_path / "nothing")) == []


def test_manifest_of_another_base_is_refused(maker: ReplicaMaker) -> None:
    """A manifest must name the base that its key names."""
    first = maker.base()
    maker.commit()
    second = maker.base()
    maker.object_path(second).write_bytes(maker.object_path(first).read_bytes())
    with pytest.raises(CorruptError, match=f"{format_key(second)}: it describes {format_key(first.base)}"):
        Replica(maker.storage, maker.name).manifest(second)


def test_patience_ends(pauses: list[int]) -> None:
    """A storage that is away is tried again with growing pauses, and then given up."""
    attempts: list[int] = []

    def fail() -> None:
        attempts.append(1)
        raise TransientError("away")

    with pytest.raises(TransientError, match="away"):
        with_retries(fail)
    assert len(attempts) == ATTEMPTS_MAX
    assert pauses == list(range(1, ATTEMPTS_MAX))


def test_patience_pays(pauses: list[int]) -> None:
    """A success after failures is returned."""
    outcomes = iter([TransientError("away"), TransientError("away"), None])

    def act() -> str:
        outcome = next(outcomes)
        if outcome:
            raise outcome
        return "done"

    assert with_retries(act) == "done"
    assert pauses == [1, 2]
