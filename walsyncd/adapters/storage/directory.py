"""Storage in a folder: each object is a plain file at its key, so that any tool can read and copy it.

::

    <key>                                  an object, complete or absent
    .walsyncd/temporary/<random>           being written; what a killed process left is swept after a day
    .walsyncd/uploads/<id>/upload          an open multipart upload: JSON of key, time and metadata
    .walsyncd/uploads/<id>/<number>-<MD5>  a part of it; a number sent twice with different bytes is there twice
    .walsyncd/metadata/<SHA-256 of key>    JSON of metadata that can't be computed from the object
    .walsyncd/lock                         held (flock) by ``put_if`` while it compares and writes

``.walsyncd`` is never listed. All of it must be on one file system.

An ETag is modification time, size and inode, which need no reading. A copied folder has other ETags. The metadata
``walsyncd-id`` of an object that was put whole is the SHA-256 of its body: ``head`` computes it, nothing is kept. Other
metadata is kept with the ETag of the file it belongs to, and is ignored for any other.
"""

from __future__ import annotations

import builtins  # ``list`` is a method here
import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from walsyncd.adapters.files.durable_file import (
    copy_whole,
    create_file,
    make_folders,
    publish,
    reading,
    sync_folder,
    write_temporary,
    writing,
)
from walsyncd.adapters.storage.interface import ObjectInfo, OpenUpload, StoredPart
from walsyncd.adapters.storage.remembered_folder import RememberedFolder
from walsyncd.adapters.system import clock
from walsyncd.core.stored.layout import ID_METADATA
from walsyncd.errors import CorruptError, MissingError, UsageError

HIDDEN = ".walsyncd"
BLOCK_SIZE = 1 << 20
LEFTOVER_SECONDS_MAX = 86_400.0  # a temporary file exists for seconds, that of a large base for hours at most


class DirectoryStorage:
    """A folder as storage. It is created when the first object is written, and must then stay (see ``memory``)."""

    def __init__(self, root: Path, memory: Path | None = None) -> None:
        self._root = root.absolute()
        self._hidden = self._root / HIDDEN
        self._temporary = self._hidden / "temporary"
        self._uploads = self._hidden / "uploads"
        self._place = RememberedFolder(self._root, self._hidden, memory)

    @property
    def url(self) -> str:
        """``file:///folder``."""
        return self._root.as_uri()

    def put(self, key: str, body: bytes, *, metadata: Mapping[str, str]) -> str:
        """See ``Storage.put``. The ETag is not an MD5."""
        target = self._path(key)
        derived = {ID_METADATA: hashlib.sha256(body).hexdigest()}
        with writing("write object", target):
            return self._publish(key, self._write(body), {} if metadata == derived else metadata)

    def put_if(self, key: str, body: bytes, *, etag: str | None) -> bool:
        """See ``Storage.put_if``. It is exact among all processes that write only by ``put_if``."""
        target = self._path(key)
        with writing("write object conditionally", target), self._locked():
            if (_etag(target.stat()) if target.exists() else None) != etag:
                return False
            self._publish(key, self._write(body), {})
        return True

    def head(self, key: str) -> ObjectInfo | None:
        """See ``Storage.head``. Reads the object unless its metadata was kept."""
        target = self._path(key)
        try:
            with reading("look at object", target), target.open("rb") as file:
                status = os.fstat(file.fileno())
                metadata = self._kept_metadata(key, _etag(status))
                if metadata is None:
                    metadata = {ID_METADATA: hashlib.file_digest(file, "sha256").hexdigest()}
                return _info(key, status, metadata)
        except MissingError:
            return None

    def get(self, key: str, *, first: int = 0, length: int | None = None) -> bytes:
        """See ``Storage.get``."""
        target = self._path(key)
        with reading("read object", target), target.open("rb") as file:
            file.seek(first)
            return file.read() if length is None else file.read(length)

    def stream(self, key: str) -> Iterator[bytes]:
        """See ``Storage.stream``."""
        target = self._path(key)
        with reading("read object", target), target.open("rb") as file:
            while block := file.read(BLOCK_SIZE):
                yield block

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        """See ``Storage.list``. The order is that of whole keys, as in S3, not folder by folder."""
        folder = prefix.rpartition("/")[0]
        if folder:
            self._path(folder)
        return self._walk(f"{folder}/" if folder else "", prefix, start_after)

    def _walk(self, folder: str, prefix: str, start_after: str) -> Iterator[ObjectInfo]:
        for name in self._names(folder):
            key = folder + name
            if not key.startswith(prefix):
                continue
            if name.endswith("/"):
                if key > start_after or start_after.startswith(key):
                    yield from self._walk(key, prefix, start_after)
            elif key > start_after and (info := self._listed(key)):
                yield info

    def _names(self, folder: str) -> Sequence[str]:
        """Return the names in ``folder`` (empty or ending in ``/``). Those of folders end in ``/``, which sorts them.

        Text sorts by code points, which is the order of its UTF-8 bytes. Links and special files are not ours.
        """
        self._place.require()
        path = self._root / folder
        try:
            with reading("list", path), os.scandir(path) as entries:
                return sorted(filter(None, map(_listed_name, entries)))
        except MissingError:
            return ()

    def _listed(self, key: str) -> ObjectInfo | None:
        path = self._root / key
        try:
            with reading("list", path):
                return _info(key, path.stat(), {})
        except MissingError:  # deleted since the folder was read
            return None

    def folders(self, prefix: str) -> builtins.list[str]:
        """See ``Storage.folders``. A folder without an object in it does not count."""
        if prefix:
            self._path(prefix.removesuffix("/"))
        names = [name for name in self._names(prefix) if name.endswith("/")]
        return sorted(name.removesuffix("/") for name in names if any(self._walk(prefix + name, "", "")))

    def delete(self, keys: Sequence[str]) -> None:
        """See ``Storage.delete``. Folders that become empty are removed as well."""
        folders = set()
        for key in keys:
            target = self._path(key)
            absent = suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError)
            with writing("delete object", target), absent:
                target.unlink()
                folders.add(target.parent)
                self._metadata_path(key).unlink(missing_ok=True)
        for folder in folders:
            with writing("delete objects from", folder):
                self._settle(folder)

    def _settle(self, folder: Path) -> None:
        """Make deletions in ``folder`` durable, and remove it and its parents as far as they are empty."""
        while folder != self._root:
            try:
                folder.rmdir()
            except FileNotFoundError:
                pass  # another process was faster
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                break
            folder = folder.parent
        with suppress(FileNotFoundError):
            sync_folder(folder)

    def create_upload(self, key: str, *, metadata: Mapping[str, str]) -> str:
        """See ``Storage.create_upload``."""
        target = self._path(key)
        upload_id = secrets.token_hex(16)
        upload = {"key": key, "initiated_ms": clock.wall_ms(), "metadata": dict(metadata)}
        with writing("begin upload of", target):
            self._sweep()
            publish(self._write(json.dumps(upload).encode()), self._uploads / upload_id / "upload")
        return upload_id

    def upload_part(self, key: str, upload_id: str, number: int, body: bytes) -> str:
        """See ``Storage.upload_part``; the ETag is the part's MD5."""
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        folder, _ = self._open_upload(key, upload_id)
        with reading(f"upload part {number} of", self._path(key)):
            temporary = self._write(body)
            try:  # not by ``publish``: an upload that was aborted meanwhile must not reappear
                temporary.rename(folder / f"{number:05d}-{etag}")
            except FileNotFoundError:
                temporary.unlink()
                raise
            sync_folder(folder)
        return etag

    def list_parts(self, key: str, upload_id: str) -> builtins.list[StoredPart]:
        """See ``Storage.list_parts``; sorted by number."""
        folder, _ = self._open_upload(key, upload_id)
        with reading("list parts of", self._path(key)):
            return [_stored_part(path) for path in sorted(folder.glob("*-*"))]

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[StoredPart]) -> str:
        """See ``Storage.complete_upload``."""
        folder, upload = self._open_upload(key, upload_id)
        absent = sorted({part.number for part in set(parts) - set(self.list_parts(key, upload_id))})
        numbers = [part.number for part in parts]
        if absent or not parts or numbers != sorted(set(numbers)):
            wrong = f"parts {absent} are not there" if absent else "the parts are not in ascending order"
            raise CorruptError(f"complete upload of {self._path(key)}: {wrong}", hint="list the parts again")

        def join(file: BinaryIO) -> None:
            for part in parts:
                copy_whole(folder / _part_name(part), file)

        with writing("complete upload of", self._path(key)):
            etag = self._publish(key, write_temporary(self._temporary, join), upload["metadata"])
            self._drop_upload(folder)
        return etag

    def abort_upload(self, key: str, upload_id: str) -> None:
        """See ``Storage.abort_upload``."""
        try:
            folder, _ = self._open_upload(key, upload_id)
            with reading("abort upload of", self._path(key)):
                self._drop_upload(folder)
        except MissingError:  # already aborted
            return

    def list_uploads(self, prefix: str) -> builtins.list[OpenUpload]:
        """See ``Storage.list_uploads``; sorted by key."""
        self._place.require()
        found = []
        for path in sorted(self._uploads.glob("*/upload")):
            with suppress(MissingError):  # finished after the folder was read
                upload = _read_json(path)
                found.append(OpenUpload(upload["key"], path.parent.name, upload["initiated_ms"]))
        return sorted(filter(lambda upload: upload.key.startswith(prefix), found), key=lambda upload: upload.key)

    def clock_ms(self) -> int | None:
        """Return None: a folder has no clock of its own."""
        return None

    def _path(self, key: str) -> Path:
        """Return the file of ``key``. Raises UsageError for keys that would leave the root, or that only S3 can hold.

        Raises TransientError if the whole folder has disappeared.
        """
        self._place.require()
        segments = key.split("/")
        if not {"", ".", "..", HIDDEN}.isdisjoint(segments) or "\0" in key or not _is_utf8(key):
            raise UsageError(
                f"key {key!r} can't be a path below {self._root}",
                hint=f"a segment is neither empty nor one of '.', '..' and {HIDDEN!r}",
            )
        return self._root / key

    def _write(self, body: bytes) -> Path:
        return write_temporary(self._temporary, lambda file: file.write(body))

    def _publish(self, key: str, temporary: Path, metadata: Mapping[str, str]) -> str:
        """Give a temporary file its key, after keeping the metadata that ``head`` can't derive. Returns the ETag."""
        etag = _etag(temporary.stat())  # the rename does not change it
        if metadata:
            kept = json.dumps({"key": key, "etag": etag, "metadata": dict(metadata)})
            publish(self._write(kept.encode()), self._metadata_path(key))
        publish(temporary, self._root / key)
        return etag

    def _metadata_path(self, key: str) -> Path:
        return self._hidden / "metadata" / hashlib.sha256(key.encode()).hexdigest()

    def _kept_metadata(self, key: str, etag: str) -> dict[str, str] | None:
        try:
            kept = _read_json(self._metadata_path(key))
        except MissingError:
            return None
        return dict(kept["metadata"]) if kept["etag"] == etag else None

    def _open_upload(self, key: str, upload_id: str) -> tuple[Path, dict[str, Any]]:
        """Return folder and description. Raises MissingError unless this upload of this key is open."""
        target = self._path(key)
        if upload_id.isalnum():
            with suppress(MissingError):
                upload = _read_json(self._uploads / upload_id / "upload")
                if upload["key"] == key:
                    return self._uploads / upload_id, upload
        raise MissingError(f"upload {upload_id!r} of {target} is not open")

    def _drop_upload(self, folder: Path) -> None:
        """Rename the upload away in one step before deleting it, so that half of it is never taken for a whole."""
        make_folders(self._temporary)
        doomed = folder.rename(self._temporary / folder.name)
        sync_folder(self._uploads)
        shutil.rmtree(doomed, ignore_errors=True)  # the next sweep removes the rest

    def _sweep(self) -> None:
        """Remove what killed processes left half-written."""
        make_folders(self._temporary)
        for path in self._temporary.iterdir():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime > time.time() - LEFTOVER_SECONDS_MAX:
                    continue
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Exclude other threads and processes. A crash releases the lock."""
        make_folders(self._hidden)
        lock = self._hidden / "lock"
        with suppress(FileExistsError):
            create_file(lock).close()
        descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _listed_name(entry: os.DirEntry[str]) -> str | None:
    if not _is_utf8(entry.name) or entry.name == HIDDEN:
        return None
    if entry.is_dir(follow_symlinks=False):
        return f"{entry.name}/"
    return entry.name if entry.is_file(follow_symlinks=False) else None


def _is_utf8(name: str) -> bool:
    """Whether a name has no bytes that Python represents as surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _etag(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"


def _info(key: str, status: os.stat_result, metadata: Mapping[str, str]) -> ObjectInfo:
    return ObjectInfo(key, status.st_size, _etag(status), status.st_mtime_ns // 1_000_000, metadata)


def _part_name(part: StoredPart) -> str:
    return f"{part.number:05d}-{part.etag}"


def _stored_part(path: Path) -> StoredPart:
    number, _, etag = path.name.partition("-")
    return StoredPart(int(number), path.stat().st_size, etag)


def _read_json(path: Path) -> dict[str, Any]:
    with reading("read", path):
        text = path.read_bytes()
    try:
        return dict(json.loads(text))
    except ValueError as error:
        raise CorruptError(f"read {path}: {error}", hint="written by walsyncd, changed by another") from error
