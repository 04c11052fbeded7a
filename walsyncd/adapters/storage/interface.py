"""The interface of object storage that the engine uses, implemented by ``s3`` and ``directory``.

Keys are relative to the storage's root (the ``url`` of the configuration), ``/``-separated. Every method may raise
TransientError (away, overloaded), RefusedError (permission, credentials, no such bucket) or ImpossibleError (this
object will never be accepted). Other errors are documented with the method that raises them. All methods may be called
from any thread.
"""

from __future__ import annotations

import builtins  # ``list`` is a method here
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeGuard, runtime_checkable

from walsyncd.adapters.storage.remark import Remark


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object as LIST or HEAD reports it: ``size`` in bytes, ``modified_ms`` since 1970 by the store's clock.

    ``metadata`` has lower-case keys and is empty in listings.
    """

    key: str
    size: int
    etag: str
    modified_ms: int
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A part of an open multipart upload. A number can be listed twice."""

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
    """One version of an object, or a delete marker; ``size`` in bytes, 0 for a marker."""

    key: str
    version_id: str
    size: int


class Versions(Protocol):
    """Every version of the objects of a storage."""

    def list(self, prefix: str) -> Iterator[ObjectVersion]:
        """Yield versions and delete markers of the keys that begin with ``prefix``; nothing if none are kept."""

    def delete(self, versions: Sequence[ObjectVersion]) -> None:
        """Remove these versions for good. An absent one is no error."""


class Readable(Protocol):
    """The methods that read from a storage."""

    @property
    def url(self) -> str:
        """The root's URL as in the configuration, without a trailing slash."""

    def head(self, key: str) -> ObjectInfo | None:
        """Return what is known of ``key``, or None if it is absent."""

    def get(self, key: str, *, first: int = 0, length: int | None = None) -> bytes:
        """Return the object's bytes from ``first`` on, at most ``length``. Raises MissingError if it is absent."""

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
        """Replace ``key`` only if its ETag is ``etag`` (None: only if it is absent). Returns False if it was not.

        For stores that do not honour conditions, this compares, writes and reads back.
        """

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects. An absent one is no error."""

    def create_upload(self, key: str, *, metadata: Mapping[str, str]) -> str:
        """Open a multipart upload and return its id."""

    def upload_part(self, key: str, upload_id: str, number: int, body: bytes) -> str:
        """Store part ``number`` (from 1) and return its ETag. Raises MissingError if the upload is unknown."""

    def list_parts(self, key: str, upload_id: str) -> builtins.list[StoredPart]:
        """Return all parts the store has, of all pages. Raises MissingError if the upload is unknown."""

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[StoredPart]) -> str:
        """Make the object of ``parts`` visible and return its ETag.

        Raises MissingError if the upload is unknown, and CorruptError if the store does not accept the parts. Then list
        them again and send again those that differ.
        """

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Abort an upload. An unknown one is no error."""

    def list_uploads(self, prefix: str) -> builtins.list[OpenUpload]:
        """Return the open uploads whose key begins with ``prefix``."""

    def clock_ms(self) -> int | None:
        """Return the store's time by its last answer (``Date``). Returns None before any answer, and for a folder."""


@runtime_checkable
class HasConditions(Protocol):
    """What a storage has in addition that knows how ``put_if`` is carried out."""

    @property
    def honours_conditions(self) -> bool | None:
        """Whether of two writers only one succeeds. Returns None if that was not tried yet."""


@runtime_checkable
class HasConfirmation(Protocol):
    """What a storage has in addition that may show an object which a power cut would still take back."""

    def confirm(self, key: str) -> ObjectInfo | None:
        """Make what is known of ``key`` durable, and return it as ``head`` does."""


def confirmed(storage: Storage, key: str) -> ObjectInfo | None:
    """Return what is known of ``key``, as a proof that it is stored for good. Returns None if it is absent."""
    return storage.confirm(key) if isinstance(storage, HasConfirmation) else storage.head(key)


@runtime_checkable
class TakesBlocks(Storage, Protocol):
    """What a storage has in addition that takes an object of any size in one piece, and so needs no parts."""

    @property
    def takes_blocks(self) -> bool:
        """Whether ``put_blocks`` can be used."""

    def put_blocks(self, key: str, blocks: Iterator[bytes], *, sha256: str | None = None) -> None:
        """Store the bytes of ``blocks`` whole under ``key``.

        Raises CorruptError, and stores nothing, if ``sha256`` (hex) is not that of these bytes. Raises what ``blocks``
        raises.
        """


def takes_blocks(storage: Storage) -> TypeGuard[TakesBlocks]:
    """Whether an object of any size is stored by one ``put_blocks``."""
    return isinstance(storage, TakesBlocks) and storage.takes_blocks


@runtime_checkable
class HasRules(Protocol):
    """What a storage with settings of its own has in addition, for ``walsyncd check``."""

    def rules(self, *, deletes: bool, expire_after_s: float | None) -> list[Remark]:
        """Return remarks about the store's own rules that cost money or remove objects. Makes requests."""

    def findings(self) -> list[Remark]:
        """Return remarks about how the store is reached, from the answers so far."""
