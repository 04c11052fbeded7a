"""Object storage as the engine sees it: one small interface, implemented by ``s3`` and ``directory``.

Keys are relative to the storage's root (the ``url`` of the configuration), ``/``-separated. Every method may
raise TransientError (away, overloaded), RefusedError (permission, credentials, no such bucket) or
ImpossibleError (this object will never be taken); what else a method raises stands with it.
All methods may be called from any thread.
"""

from __future__ import annotations

import builtins  # ``list`` is a method here
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object as LIST or HEAD tells: ``size`` in bytes, ``modified_ms`` since 1970 by the store's clock.

    ``metadata`` has lower-case keys and is empty in listings.
    """

    key: str
    size: int
    etag: str
    modified_ms: int
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A part of an open multipart upload; a number can be listed twice."""

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
        """Versions and delete markers of the keys that begin with ``prefix``; nothing if none are kept."""

    def delete(self, versions: Sequence[ObjectVersion]) -> None:
        """Remove these versions for good; an absent one is no error."""


class Readable(Protocol):
    """What can be asked of a place for objects."""

    @property
    def url(self) -> str:
        """Where the root is, as in the configuration, without a trailing slash."""

    def head(self, key: str) -> ObjectInfo | None:
        """What is known of ``key``, or None."""

    def get(self, key: str, *, first: int = 0, length: int | None = None) -> bytes:
        """The object's bytes from ``first`` on, at most ``length``; MissingError if it is absent."""

    def stream(self, key: str) -> Iterator[bytes]:
        """The object's bytes in blocks of bounded size; MissingError, TransientError if it breaks off."""

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        """Objects whose key begins with ``prefix``, in key order, strictly after ``start_after``."""

    def folders(self, prefix: str) -> builtins.list[str]:
        """Names of the folders directly below ``prefix`` (which is empty or ends in ``/``), sorted."""


class Storage(Readable, Protocol):
    """A place for objects that are written once and never modified."""

    def put(self, key: str, body: bytes, *, metadata: Mapping[str, str]) -> str:
        """Store ``body`` whole under ``key`` and return its ETag; Content-MD5 protects the way."""

    def put_if(self, key: str, body: bytes, *, etag: str | None) -> bool:
        """Replace ``key`` only if its ETag is ``etag`` (None: only if absent); False if it was not.

        Stores that do not honour conditions answer by writing and reading back.
        """

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; an absent one is no error."""

    def create_upload(self, key: str, *, metadata: Mapping[str, str]) -> str:
        """Open a multipart upload and return its id."""

    def upload_part(self, key: str, upload_id: str, number: int, body: bytes) -> str:
        """Store part ``number`` (from 1) and return its ETag; MissingError if the upload is unknown."""

    def list_parts(self, key: str, upload_id: str) -> builtins.list[StoredPart]:
        """All parts the store has, of all pages; MissingError if the upload is unknown."""

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[StoredPart]) -> str:
        """Make the object of ``parts`` visible and return its ETag.

        MissingError if the upload is unknown, CorruptError if the store does not accept the parts (list
        again, send again what differs).
        """

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Give an upload up; an unknown one is no error."""

    def list_uploads(self, prefix: str) -> builtins.list[OpenUpload]:
        """Open uploads whose key begins with ``prefix``."""

    def clock_ms(self) -> int | None:
        """The store's own time by its last answer (``Date``), or None before any and for a folder."""
