"""The interface of object storage that the engine uses, implemented by ``s3`` and ``directory``.

Keys are relative to the storage's root (the ``url`` of the configuration) and separated by ``/``. Every method may
raise TransientError (storage is unreachable or overloaded), RefusedError (permission, credentials, no such bucket) or
ImpossibleError (this object will never be accepted). Other errors are documented with the method that raises them. All
methods may be called from any thread.
"""

from __future__ import annotations

import builtins  # ``list`` is a method here
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeGuard, runtime_checkable

from walsyncd.adapters.storage.remark import Remark


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object as LIST or HEAD reports it. ``size`` is in bytes, ``modified_ms`` since 1970 by the store's clock.

    ``metadata`` has lower-case keys and is empty in listings.
    """

    key: str
    size: int
    etag: str
    modified_ms: int
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A part of an open multipart upload. A listing can have two parts of the same number."""

    number: int
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """A multipart upload that was neither completed nor aborted."""

    key: str
    upload_id: str
    initiated_ms: int


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """One version of an object, or a delete marker. ``size`` is in bytes, and 0 for a marker."""

    key: str
    version_id: str
    size: int


class Versions(Protocol):
    """Every version of the objects of a storage."""

    def list(self, prefix: str) -> Iterator[ObjectVersion]:
        """Yield versions and delete markers of the keys that begin with ``prefix``. Yields nothing if none are kept."""

    def delete(self, versions: Sequence[ObjectVersion]) -> None:
        """Remove these versions for good. It is no error if a version is absent."""


class Readable(Protocol):
    """The methods that read from a storage."""

    @property
    def url(self) -> str:
        """The root's URL as in the configuration, without a trailing slash."""

    def head(self, key: str) -> ObjectInfo | None:
        """Return what is known of ``key``, or None if it is absent."""

    def get(self, key: str, *, first: int = 0, length: int | None = None) -> bytes:
        """Return at most ``length`` bytes of the object from ``first`` on. Raises MissingError if it is absent."""

    def stream(self, key: str) -> Iterator[bytes]:
        """Yield the object's bytes in blocks of bounded size.

        Raises MissingError, or TransientError if the answer breaks off.
        """

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose key begins with ``prefix``, in key order, strictly after ``start_after``."""

    def folders(self, prefix: str) -> builtins.list[str]:
        """Return the sorted names of the folders directly below ``prefix`` (which is empty or ends in ``/``)."""


class Storage(Readable, Protocol):
    """A store for objects that are written once and never modified."""

    def put(self, key: str, body: bytes, *, metadata: Mapping[str, str]) -> str:
        """Store ``body`` whole under ``key`` and return its ETag. Content-MD5 protects the transfer."""

    def put_if(self, key: str, body: bytes, *, etag: str | None) -> bool:
        """Write ``key`` only if its ETag is ``etag``, or, if ``etag`` is None, only if the key is absent.

        Returns False if it was not written. For stores that do not honour conditions, this compares, writes and reads
        back.
        """

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects. It is no error if an object is absent."""

    def create_upload(self, key: str, *, metadata: Mapping[str, str]) -> str:
        """Open a multipart upload and return its id."""

    def upload_part(self, key: str, upload_id: str, number: int, body: bytes) -> str:
        """Store part ``number`` (from 1) and return its ETag. Raises MissingError if the upload is unknown."""

    def list_parts(self, key: str, upload_id: str) -> builtins.list[StoredPart]:
        """Return all parts that the store has. Raises MissingError if the upload is unknown."""

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[StoredPart]) -> str:
        """Make the object of ``parts`` visible and return its ETag.

        Raises MissingError if the upload is unknown, and CorruptError if the store does not accept the parts. After a
        CorruptError list the parts again, and send again those that differ.
        """

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Abort an upload. It is no error if the upload is unknown."""

    def list_uploads(self, prefix: str) -> builtins.list[OpenUpload]:
        """Return the open uploads whose key begins with ``prefix``."""

    def clock_ms(self) -> int | None:
        """Return the store's time, from the ``Date`` of its last answer.

        Returns None before any answer, and for a folder.
        """


@runtime_checkable
class HasConditions(Protocol):
    """The additional interface of a storage that knows how it carries out ``put_if``."""

    @property
    def honours_conditions(self) -> bool | None:
        """Whether only one of two simultaneous writers succeeds. It is None if this was not tried yet."""


@runtime_checkable
class HasConfirmation(Protocol):
    """The additional interface of a storage that may show an object which a power cut could still undo."""

    def confirm(self, key: str) -> ObjectInfo | None:
        """Make the object at ``key`` durable, and return what ``head`` returns."""


def confirmed(storage: Storage, key: str) -> ObjectInfo | None:
    """Make sure that ``key`` is stored for good, and return what is known of it. Returns None if it is absent."""
    return storage.confirm(key) if isinstance(storage, HasConfirmation) else storage.head(key)


@runtime_checkable
class TakesBlocks(Storage, Protocol):
    """The additional interface of a storage that takes an object of any size in one piece, and so needs no parts."""

    @property
    def takes_blocks(self) -> bool:
        """Whether ``put_blocks`` can be used."""

    def put_blocks(self, key: str, blocks: Iterator[bytes], *, sha256: str | None = None) -> None:
        """Store the bytes of ``blocks`` whole under ``key``.

        Raises CorruptError, and stores nothing, if ``sha256`` (hex) is not the checksum of these bytes. Errors of
        ``blocks`` pass.
        """


def takes_blocks(storage: Storage) -> TypeGuard[TakesBlocks]:
    """Whether ``storage`` stores an object of any size by one ``put_blocks``."""
    return isinstance(storage, TakesBlocks) and storage.takes_blocks


@runtime_checkable
class HasRules(Protocol):
    """The additional interface of a storage with settings of its own, for ``walsyncd check``."""

    def rules(self, *, deletes: bool, expire_after_s: float | None) -> list[Remark]:
        """Return remarks about the store's own rules that cost money or remove objects. This method makes requests."""

    def findings(self) -> list[Remark]:
        """Return remarks about how the store is reached, from the answers so far."""
