"""Removes the whole replica of a database for good, for example because a law or a contract requires it.

The replica consists of ``owner.json`` and everything in folders that are named like generations. A database whose name
begins with this database's name may have its folder inside this one. It is not touched, and nor are other objects in
the folder.

1. Every version and delete marker is removed by its id, where the store keeps versions.
2. Every object that is listed is removed, and every open upload is aborted.
3. Versions, objects and uploads are listed again. The replica is erased when these listings are empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from walsyncd.adapters.storage.interface import ObjectInfo, ObjectVersion, Storage, Versions
from walsyncd.core.stored.layout import OWNER_KEY, folder_key
from walsyncd.core.stored.owner import OWNER_BYTES_MAX, Owner, parse_owner
from walsyncd.core.stored.position import is_generation
from walsyncd.engine.upkeep.deletion import KEPT_HINT
from walsyncd.errors import CorruptError, MissingError, RefusedError

ROUNDS_MAX = 5  # how often the folder is listed, since a store may list deleted objects for a while
T = TypeVar("T")
BATCH = 1000  # progress is reported after this many deletions; stores take no more at a time


@dataclass(frozen=True, slots=True)
class Remains:
    """What is left of a replica.

    ``versions`` has all versions and delete markers, including those of ``objects``. It is empty if the store keeps no
    versions. ``foreign`` counts objects in the folder that are not walsyncd's.
    """

    objects: tuple[ObjectInfo, ...]
    versions: tuple[ObjectVersion, ...]
    uploads: int
    owner: Owner | None
    foreign: int

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left of the replica."""
        return not (self.objects or self.versions or self.uploads)

    @property
    def size(self) -> int:
        """The bytes of all versions, or of all objects if the store keeps no versions."""
        return sum(each.size for each in self.versions or self.objects)

    @property
    def generations(self) -> int:
        """The number of generations, including generations of which only versions are left."""
        keys = [*(info.key for info in self.objects), *(version.key for version in self.versions)]
        return len({part for key in keys for part in key.split("/") if is_generation(part)})

    @property
    def last_ms(self) -> int | None:
        """When the newest object was stored, in ms since 1970 by the store's clock, or None if no object is left."""
        return max((info.modified_ms for info in self.objects), default=None)


class Eraser:
    """Removes the replica ``name`` from ``storage``. ``versions`` is None if the store keeps no versions."""

    def __init__(self, storage: Storage, name: str, versions: Versions | None) -> None:
        self._storage = storage
        self._name = name
        self._versions = versions
        self.versions_refused = ""
        """Why the store refused to list versions. It is empty if the store did not refuse."""

    def look(self) -> Remains:
        """List everything that is left."""
        prefix = folder_key(self._name, "")
        listed = list(self._storage.list(prefix))
        objects = tuple(info for info in listed if self._is_ours(info.key))
        versions = tuple(self._kept_versions())
        uploads = sum(self._is_ours(upload.key) for upload in self._storage.list_uploads(prefix))
        return Remains(objects, versions, uploads, self._owner(), self._count_foreign(listed))

    def erase(self, progress: Callable[[int], None] = lambda _count: None) -> int:
        """Remove everything and return the number of objects and versions removed.

        ``progress`` is called with the number removed so far.

        Raises RefusedError if the store keeps an object that was removed, and raises what the store raises.
        """
        removed = 0
        for _ in range(ROUNDS_MAX):
            count = removed
            for batch in _batches(list(self._kept_versions())):
                self._remove_versions(batch)
                removed += len(batch)
                progress(removed)
            left = [info.key for info in self._storage.list(folder_key(self._name, "")) if self._is_ours(info.key)]
            for keys in _batches(left):
                self._storage.delete(keys)
                removed += len(keys) if self._versions is None or self.versions_refused else 0
                progress(removed)
            for upload in self._storage.list_uploads(folder_key(self._name, "")):
                if self._is_ours(upload.key):
                    self._storage.abort_upload(upload.key, upload.upload_id)
            if removed == count and not left:
                break
        remains = self.look()
        if not remains.is_empty:
            keys = [*(info.key for info in remains.objects), *(version.key for version in remains.versions)]
            first, count = keys[0] if keys else "an open upload", len(set(keys)) + remains.uploads
            raise RefusedError(f"forget {self._name}: {count} objects are still there, first {first}", hint=KEPT_HINT)
        return removed

    def _kept_versions(self) -> Iterator[ObjectVersion]:
        if self._versions is None or self.versions_refused:
            return
        try:
            yield from (each for each in self._versions.list(folder_key(self._name, "")) if self._is_ours(each.key))
        except RefusedError as error:
            self.versions_refused = str(error)

    def _remove_versions(self, batch: list[ObjectVersion]) -> None:
        assert self._versions is not None
        self._versions.delete(batch)

    def _is_ours(self, key: str) -> bool:
        """Whether a key belongs to this replica: it is in the folder of a generation, or names ``owner.json``."""
        own = key.removeprefix(folder_key(self._name, ""))
        first, _, rest = own.partition("/")
        return own == OWNER_KEY or bool(rest and is_generation(first))

    def _count_foreign(self, listed: list[ObjectInfo]) -> int:
        """Count foreign objects directly in the folder. Objects in folders below it may belong to other databases."""
        start = len(folder_key(self._name, ""))
        return sum("/" not in info.key[start:] and not self._is_ours(info.key) for info in listed)

    def _owner(self) -> Owner | None:
        try:
            return parse_owner(self._storage.get(folder_key(self._name, OWNER_KEY), length=OWNER_BYTES_MAX + 1))
        except (MissingError, CorruptError):
            return None


def _batches(items: list[T]) -> Iterator[list[T]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]
