"""Tests that a whole replica is deleted, and nothing beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from tests.fakes import Call, FakeStorage
from walsyncd.adapters.storage.interface import ObjectVersion
from walsyncd.engine.upkeep.erasure import Eraser
from walsyncd.errors import RefusedError

G1, G2 = "20261122T105600Z-3f9c1a2b", "20261122T105700Z-00000002"
OWN = [f"app/{G1}/wal/00000001/x", f"app/{G1}/strange", f"app/{G2}/base/y", "app/owner.json"]
OTHERS = ["app/inner/owner.json", f"app/inner/{G1}/x", "app2/owner.json", f"app2/{G1}/x", "app/README", "owner.json"]


@pytest.fixture
def storage() -> FakeStorage:
    storage = FakeStorage()
    for key in (*OWN, *OTHERS):
        storage.put(key, b"body", metadata={})
    storage.create_upload(f"app/{G2}/base/open", metadata={})
    storage.create_upload(f"app2/{G2}/base/open", metadata={})
    return storage


class FakeVersions:
    """Versions in a fake storage: an object that is deleted without its version's id stays as a version."""

    def __init__(self, storage: FakeStorage) -> None:
        self._storage = storage
        self.kept = [ObjectVersion(f"app/{G1}/old", "v1", 7), ObjectVersion(f"app/{G1}/old", "marker", 0)]
        self.foreign = ObjectVersion(f"app/inner/{G1}/old", "v1", 7)
        self.refusal = ""

    def list(self, prefix: str) -> Iterator[ObjectVersion]:
        if self.refusal:
            raise RefusedError(self.refusal)
        current = [ObjectVersion(key, "now", 4) for key in self._storage.objects]
        yield from (each for each in (*current, *self.kept, self.foreign) if each.key.startswith(prefix))

    def delete(self, versions: Sequence[ObjectVersion]) -> None:
        for version in versions:
            assert version != self.foreign
            if version.version_id == "now":
                del self._storage.objects[version.key]
            else:
                self.kept.remove(version)


def test_what_there_is_is_counted(storage: FakeStorage) -> None:
    """Only the replica's own objects count. Databases below, beside and above are not counted."""
    remains = Eraser(storage, "app", None).look()
    assert sorted(info.key for info in remains.objects) == sorted(OWN)
    assert (remains.generations, remains.size, remains.uploads, remains.foreign) == (2, 16, 1, 1)
    assert not remains.is_empty
    assert Eraser(storage, "nothing", None).look().is_empty


def test_only_the_replica_goes(storage: FakeStorage) -> None:
    """The replica's open upload is deleted too. Everything else stays as before."""
    eraser = Eraser(storage, "app", None)
    assert eraser.erase() == len(OWN)
    assert sorted(storage.objects) == sorted(OTHERS)
    assert [upload.key for upload in storage.uploads.values()] == [f"app2/{G2}/base/open"]
    assert eraser.look().is_empty


def test_the_storage_itself_can_be_the_folder(storage: FakeStorage) -> None:
    """The folder's ``owner.json`` is deleted, and databases below it stay."""
    assert Eraser(storage, "", None).erase() == 1
    assert set(storage.objects) == {*OWN, *OTHERS} - {"owner.json"}


def test_versions_go_where_the_store_keeps_them(storage: FakeStorage) -> None:
    """Hidden versions, their delete markers, and the current ones are deleted."""
    versions = FakeVersions(storage)
    eraser = Eraser(storage, "app", versions)
    assert len(eraser.look().versions) == len(OWN) + 2
    assert eraser.erase() == len(OWN) + 2
    assert versions.kept == []
    assert eraser.look().is_empty


def test_a_replica_of_which_only_versions_are_left_is_found(storage: FakeStorage) -> None:
    """A tool that knows no versions has deleted its objects."""
    storage.delete(OWN)
    storage.uploads.clear()
    remains = Eraser(storage, "app", FakeVersions(storage)).look()
    assert (remains.objects, len(remains.versions), remains.generations) == ((), 2, 1)


def test_versions_that_may_not_be_seen_are_said(storage: FakeStorage) -> None:
    """The objects are deleted anyway, and the caller is told that something may be left."""
    versions = FakeVersions(storage)
    versions.refusal = "AccessDenied"
    eraser = Eraser(storage, "app", versions)
    assert eraser.erase() == len(OWN)
    assert "AccessDenied" in eraser.versions_refused


def test_what_arrives_meanwhile_goes_too(storage: FakeStorage) -> None:
    """A request that was under way lands while the objects are deleted."""
    late = [f"app/{G2}/wal/00000001/late"]

    def arrive(call: Call) -> None:
        if call.name == "delete" and late:
            storage.objects[late.pop()] = storage.objects["app/README"]

    storage.after = arrive
    assert Eraser(storage, "app", None).erase() == len(OWN) + 1
    assert sorted(storage.objects) == sorted(OTHERS)


def test_a_store_that_keeps_what_it_deleted_is_an_error(storage: FakeStorage) -> None:
    """The error names one of the objects, and the deletion does not continue for ever."""
    kept = storage.objects[OWN[0]]

    def keep(call: Call) -> None:
        if call.name == "list":
            storage.objects[OWN[0]] = kept

    storage.before = keep
    with pytest.raises(RefusedError, match=r"1 objects are still there, first app/.*/wal/00000001/x"):
        Eraser(storage, "app", None).erase()
