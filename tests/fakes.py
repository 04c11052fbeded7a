"""A storage in memory that behaves like S3 in what matters, and a way to die at any call to the outside.

If a part is sent again, the storage keeps and lists both, and completes by ETag, as SeaweedFS does. It honours
conditions, returns metadata, and lists in key order.
"""

from __future__ import annotations

import builtins
import hashlib
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from walsyncd.adapters.storage.interface import ObjectInfo, OpenUpload, StoredPart
from walsyncd.errors import CorruptError, MissingError


class Killed(BaseException):
    """The process was killed at this point."""


class Deaths:
    """Counts the points at which a process can die, and kills it at one of them. After that it stays dead."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.passed = 0
        self.is_dead = False
        self.dying: Callable[[], None] = lambda: None  # called at the moment of death

    def point(self) -> None:
        """Pass one such point."""
        if self.is_dead:
            raise Killed
        self.passed += 1
        if self.passed == self.at:
            self.is_dead = True
            self.dying()
            raise Killed


@dataclass(frozen=True, slots=True)
class Call:
    """A call to the storage."""

    name: str
    key: str


@dataclass(slots=True)
class FakeObject:
    body: bytes
    etag: str
    metadata: dict[str, str]


@dataclass(slots=True)
class FakeUpload:
    key: str
    metadata: dict[str, str]
    initiated_ms: int
    parts: list[tuple[StoredPart, bytes]] = field(default_factory=list)


class FakeStorage:
    """A storage that calls ``before`` and ``after`` with each call.

    They may raise what a storage, or a kill, raises.
    """

    def __init__(self) -> None:
        self.objects: dict[str, FakeObject] = {}
        self.uploads: dict[str, FakeUpload] = {}
        self.calls: list[Call] = []
        self.visible: list[str] = []  # keys in the order in which they appeared
        self.before: Callable[[Call], None] = lambda _call: None
        self.after: Callable[[Call], None] = lambda _call: None
        self.honours_conditions: bool | None = True
        self._ids = itertools.count(1)
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return "fake://storage"

    @contextmanager
    def _call(self, name: str, key: str) -> Iterator[None]:
        call = Call(name, key)
        self.calls.append(call)
        self.before(call)
        with self._lock:
            yield
        self.after(call)

    def names(self) -> list[str]:
        """Return the names of the calls made so far."""
        return [call.name for call in self.calls]

    def put(self, key: str, body: bytes, *, metadata: Mapping[str, str]) -> str:
        with self._call("put", key):
            return self._make_visible(key, body, _md5(body), metadata)

    def put_if(self, key: str, body: bytes, *, etag: str | None) -> bool:
        with self._call("put_if", key):
            present = self.objects.get(key)
            if (present.etag if present else None) != etag:
                return False
            self._make_visible(key, body, _md5(body), {})
            return True

    def head(self, key: str) -> ObjectInfo | None:
        with self._call("head", key):
            present = self.objects.get(key)
            return None if present is None else _info(key, present, with_metadata=True)

    def get(self, key: str, *, first: int = 0, length: int | None = None) -> bytes:
        with self._call("get", key):
            if key not in self.objects:
                raise MissingError(f"get {key}: no such object")
            return self.objects[key].body[first:][:length]

    def stream(self, key: str) -> Iterator[bytes]:
        yield self.get(key)

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        with self._call("list", prefix):
            found = [
                _info(key, present, with_metadata=False)
                for key, present in sorted(self.objects.items())
                if key.startswith(prefix) and key > start_after
            ]
        yield from found

    def folders(self, prefix: str) -> builtins.list[str]:
        with self._call("folders", prefix):
            below = [key.removeprefix(prefix) for key in self.objects if key.startswith(prefix)]
            return sorted({name.split("/")[0] for name in below if "/" in name})

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            with self._call("delete", key):
                self.objects.pop(key, None)

    def create_upload(self, key: str, *, metadata: Mapping[str, str]) -> str:
        with self._call("create_upload", key):
            number = next(self._ids)
            self.uploads[f"upload-{number}"] = FakeUpload(key, dict(metadata), number)
            return f"upload-{number}"

    def upload_part(self, key: str, upload_id: str, number: int, body: bytes) -> str:
        with self._call("upload_part", key):
            part = StoredPart(number, len(body), f'"{_md5(body)}"')
            self._upload(key, upload_id).parts.append((part, body))
            return part.etag

    def list_parts(self, key: str, upload_id: str) -> builtins.list[StoredPart]:
        with self._call("list_parts", key):
            return [part for part, _ in self._upload(key, upload_id).parts]

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[StoredPart]) -> str:
        with self._call("complete_upload", key):
            upload = self._upload(key, upload_id)
            bodies = {(part.number, part.etag): body for part, body in upload.parts}
            chosen = [bodies.get((part.number, part.etag)) for part in parts]
            if not parts or None in chosen:
                raise CorruptError(f"complete {key}: InvalidPart")
            del self.uploads[upload_id]
            whole = b"".join(body for body in chosen if body is not None)
            etag = f"{_md5(whole)}-{len(parts)}"
            return self._make_visible(key, whole, etag, upload.metadata)

    def abort_upload(self, key: str, upload_id: str) -> None:
        with self._call("abort_upload", key):
            self.uploads.pop(upload_id, None)

    def list_uploads(self, prefix: str) -> builtins.list[OpenUpload]:
        with self._call("list_uploads", prefix):
            return [
                OpenUpload(upload.key, upload_id, upload.initiated_ms)
                for upload_id, upload in self.uploads.items()
                if upload.key.startswith(prefix)
            ]

    def clock_ms(self) -> int | None:
        return None

    def _make_visible(self, key: str, body: bytes, etag: str, metadata: Mapping[str, str]) -> str:
        self.objects[key] = FakeObject(body, etag, dict(metadata))
        self.visible.append(key)
        return etag

    def _upload(self, key: str, upload_id: str) -> FakeUpload:
        upload = self.uploads.get(upload_id)
        if upload is None or upload.key != key:
            raise MissingError(f"{key}: no such upload {upload_id}")
        return upload


def _md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def _info(key: str, present: FakeObject, *, with_metadata: bool) -> ObjectInfo:
    return ObjectInfo(key, len(present.body), present.etag, 0, present.metadata if with_metadata else {})
