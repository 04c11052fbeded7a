"""Reads a replica: one database's folder in the storage.

Keys are those of ``core.stored.layout``, relative to the folder. While the storage is away, a request is repeated a few
times. If an object that was listed is gone, VanishedError is raised, since a reader may have planned with the object.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeVar

from walsyncd.adapters.storage.interface import ObjectInfo, Readable, Storage
from walsyncd.core.restore.clock_doubt import TimedObject
from walsyncd.core.restore.coverage import FramesKey, Listing, listing_of
from walsyncd.core.send.backoff import delay_s
from walsyncd.core.stored.layout import (
    OWNER_KEY,
    Key,
    ManifestKey,
    base_folder,
    before_epoch,
    format_key,
    parse_key,
    pruned_folder,
    wal_folder,
    whole_folder,
)
from walsyncd.core.stored.manifest import MANIFEST_BYTES_MAX, Manifest, parse_manifest
from walsyncd.core.stored.position import Position, is_generation
from walsyncd.errors import CorruptError, MissingError, NewerFormatError, RefusedError, TransientError, VanishedError

ATTEMPTS_MAX = 6  # with core.send.backoff's delays, half a minute at most: a restore that fails can be run again
OBJECTS_MAX = 2_000_000  # objects of one listing, about 700 MB; a replica has some thousands
EMPTY_HINT = "is the name or the URL right? `walsyncd ls` lists what is stored"
FOLDERS_DEEP_MAX = 64  # folders in a name below the prefix; in practice, names of 900 bytes have fewer folders

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stored:
    """An object of the replica: its parsed key, and what LIST said."""

    key: Key
    size: int
    modified_ms: int


class Replica:
    """One database in a storage. ``name`` is the database's folder, or "" if the folder is the storage's root."""

    def __init__(self, storage: Readable, name: str = "") -> None:
        self._storage = storage
        self._prefix = f"{name}/" if name else ""
        self.name = name
        self._sizes: dict[Key, int] = {}
        self._stored_ms: dict[Key, int] = {}

    @property
    def url(self) -> str:
        """The URL of the folder."""
        return f"{self._storage.url}/{self.name}" if self.name else self._storage.url

    def generations(self) -> list[str]:
        """Return the ids of all generations, oldest first."""
        return [name for name in with_retries(lambda: self._storage.folders(self._prefix)) if is_generation(name)]

    def objects(self, generation: str) -> Iterator[Stored]:
        """Yield all objects of a generation whose names are ours."""
        return self._list(f"{generation}/")

    def list_all(self) -> Listing:
        """Return a listing of everything. A refusal and a second look need it."""
        generations = self.generations()
        return listing_of((stored.key for g in generations for stored in self.objects(g)), generations)

    def bases(self) -> Listing:
        """Return bases, manifests and pruned statements of all generations, and all objects of one without a manifest.

        If a restore falls back from such a generation to an earlier one, its segments show how much is missing.
        """
        generations = self.generations()
        keys: list[Key] = []
        for generation in generations:
            found = self._keys(base_folder(generation)) + self._keys(pruned_folder(generation))
            if not any(isinstance(key, ManifestKey) for key in found):
                found = [stored.key for stored in self.objects(generation)]
            keys += found
        return listing_of(keys, generations)

    def frames_from(self, generation: str, epoch: int) -> list[Key]:
        """Return segments and wholes of ``epoch`` and all later epochs."""
        folders = wal_folder(generation), whole_folder(generation)
        return [key for folder in folders for key in self._keys(folder, start_after=before_epoch(folder, epoch))]

    def manifest(self, key: ManifestKey) -> Manifest:
        """Read a manifest. Raises CorruptError with its name if it is damaged, or its key is that of another base."""
        with naming_object(key):
            manifest = parse_manifest(self.get(format_key(key), length=MANIFEST_BYTES_MAX + 1))
            start = Position(key.generation, key.base.epoch, key.base.frame)
            consistent_from = Position(key.generation, key.epoch, key.frame)
            stated = manifest.key, manifest.start, manifest.consistent_from
            if stated != (format_key(key.base), start, consistent_from):
                raise CorruptError(f"it describes {manifest.key}, from {stated[1]}, consistent from {stated[2]}")
        return manifest

    def size_of(self, key: Key) -> int:
        """Return the size of an object in bytes by the last listing, or 0 if no listing had the object."""
        return self._sizes.get(key, 0)

    def timed(self, keys: Iterable[FramesKey]) -> list[TimedObject]:
        """Return these listed objects with the moments at which the store took them."""
        return [TimedObject((key.epoch, key.last), key.time_ms, self._stored_ms[key]) for key in keys]

    def head(self, key: Key) -> ObjectInfo | None:
        """Return what HEAD says of an object, or None if the object is not there."""
        return with_retries(lambda: self._storage.head(self._prefix + format_key(key)))

    def head_size(self, key: Key) -> int | None:
        """Return the size of an object in bytes by HEAD, or None if the object is not there."""
        found = self.head(key)
        return None if found is None else found.size

    def get(self, key: str, *, first: int = 0, length: int | None = None) -> bytes:
        """Return bytes of an object. Raises VanishedError, which does not name the object, if it is absent."""
        return with_retries(lambda: self._get(key, first, length))

    def stream(self, key: str) -> Iterator[bytes]:
        """Yield an object's bytes in blocks. Raises VanishedError as `get` does. The caller handles TransientError."""
        try:
            yield from self._storage.stream(self._prefix + key)
        except MissingError as error:
            raise _gone() from error

    def _get(self, key: str, first: int, length: int | None) -> bytes:
        try:
            return self._storage.get(self._prefix + key, first=first, length=length)
        except MissingError as error:
            raise _gone() from error

    def _keys(self, folder: str, *, start_after: str = "") -> list[Key]:
        return [stored.key for stored in self._list(folder, start_after=start_after)]

    def _list(self, folder: str, *, start_after: str = "") -> Iterator[Stored]:
        after = self._prefix + start_after if start_after else ""
        listed = partial(self._storage.list, self._prefix + folder, start_after=after)
        found = with_retries(lambda: list(islice(listed(), OBJECTS_MAX + 1)))
        if len(found) > OBJECTS_MAX:
            raise RefusedError(f"list {self.url}/{folder}: it holds more than {OBJECTS_MAX} objects")
        for info in found:
            key = parse_key(info.key.removeprefix(self._prefix))
            if key is not None:
                self._sizes[key] = info.size
                self._stored_ms[key] = info.modified_ms
                yield Stored(key, info.size, info.modified_ms)


def _gone() -> VanishedError:
    return VanishedError("the object is missing", hint="it was listed before: was it deleted meanwhile?")


def find_replicas(storage: Storage, below: str = "") -> list[str]:
    """Return the names of all databases in a storage, or in its folder ``below``, in sorted order.

    A folder belongs to a database if it holds a generation or an ``owner.json``.
    """
    found: list[str] = []
    pending = [below.strip("/")]
    while pending:
        name = pending.pop()
        prefix = f"{name}/" if name else ""
        folders = _folders(storage, prefix)
        if any(map(is_generation, folders)) or _has_owner(storage, prefix):
            found.append(name)
        if name.count("/") < FOLDERS_DEEP_MAX:
            pending += [prefix + folder for folder in folders if not is_generation(folder)]
    return sorted(found)


def _folders(storage: Storage, prefix: str) -> list[str]:
    return with_retries(lambda: storage.folders(prefix))


def _has_owner(storage: Storage, prefix: str) -> bool:
    return with_retries(lambda: storage.head(prefix + OWNER_KEY)) is not None


def with_retries(action: Callable[[], T]) -> T:
    """Call ``action``. While the storage is away, call it again after growing delays, then raise TransientError."""
    for attempt in Attempts():
        with attempt:
            return action()
    raise AssertionError("the last attempt returns or raises")


class Attempts:
    """Attempts at something. Each attempt is a context manager that the caller enters.

    If an attempt ends with TransientError, the next attempt follows after a delay. The last attempt raises the error.
    After an attempt that ends otherwise there is no further attempt.
    """

    def __init__(self) -> None:
        self._has_failed = False

    def __iter__(self) -> Iterator[AbstractContextManager[None]]:
        for number in range(1, ATTEMPTS_MAX + 1):
            self._has_failed = False
            yield self._attempt(number)
            if not self._has_failed:
                return

    @contextmanager
    def _attempt(self, number: int) -> Iterator[None]:
        try:
            yield
        except TransientError:
            if number == ATTEMPTS_MAX:
                raise
            self._has_failed = True
            pause(number)


def pause(attempt: int) -> None:
    """Wait before the next try, after ``attempt`` failures in a row."""
    time.sleep(delay_s(attempt, fraction=random.random()))  # noqa: S311 - spreads load, guards nothing


class DamagedError(CorruptError):
    """An object is not what it must be. ``key`` is its key, so that another object with the same frames can be used."""

    def __init__(self, message: str, *, key: Key, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.key = key


@contextmanager
def naming_object(key: Key) -> Iterator[None]:
    """Put an object's name before a CorruptError and make it a DamagedError, unless the object vanished or is newer."""
    try:
        yield
    except DamagedError:
        raise
    except (VanishedError, NewerFormatError) as error:
        raise type(error)(f"{format_key(key)}: {error.message}", hint=error.hint) from error
    except CorruptError as error:
        raise DamagedError(f"{format_key(key)}: {error.message}", key=key, hint=error.hint) from error
