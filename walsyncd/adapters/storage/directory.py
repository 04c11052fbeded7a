"""Storage in a folder: each object is a plain file at its key, so that any tool can read and copy it.

::

    <key>                                  an object, complete or absent
    .walsyncd/temporary/<random>           a file being written; if its process was killed, it is swept after a day
    .walsyncd/uploads/<id>/upload          an open multipart upload: JSON of key, time and metadata
    .walsyncd/uploads/<id>/<number>-<MD5>  a part of the upload; a part sent twice with different bytes has two files
    .walsyncd/metadata/<SHA-256 of key>    JSON of metadata that can't be computed from the object
    .walsyncd/lock                         a lock (flock) that ``put_if`` holds while it compares and writes

``.walsyncd`` is never listed. The whole folder must be on one file system. Links are neither followed nor listed: as
with a bucket, others may be able to write to the folder, and what they leave there is not trusted (``folder_tree``).

An ETag is made of modification time, size and inode, so that no file has to be read. A copied folder has other ETags.
The metadata ``walsyncd-id`` of an object that was put whole is the SHA-256 of its body. It is not kept: ``head``
computes it. Other metadata is kept with the ETag of the file that it belongs to, and is ignored for any other file.
"""

from __future__ import annotations

import builtins  # ``list`` is a method here
import errno
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from walsyncd.adapters.files.durable_file import reading, writing
from walsyncd.adapters.files.open_folder import OpenFolder
from walsyncd.adapters.storage.folder_lock import LOCK_S_MAX, FolderLock
from walsyncd.adapters.storage.folder_notes import FolderNotes, UploadNote
from walsyncd.adapters.storage.folder_tree import FolderTree, copy_whole, create, remove_tree
from walsyncd.adapters.storage.interface import ObjectInfo, OpenUpload, StoredPart
from walsyncd.adapters.storage.remembered_folder import RememberedFolder
from walsyncd.adapters.system import clock
from walsyncd.core.stored.layout import HIDDEN_FOLDER as HIDDEN
from walsyncd.core.stored.layout import ID_METADATA
from walsyncd.errors import CorruptError, MissingError, RefusedError, UsageError

BLOCK_SIZE = 1 << 20
LEFTOVER_SECONDS_MAX = 86_400.0  # a temporary file exists for seconds, or for hours at most if it is a large base

_TEMPORARY = f"{HIDDEN}/temporary"
_UPLOADS = f"{HIDDEN}/uploads"
_LOCK = "lock"
_LOCK_FLAGS = os.O_RDWR | os.O_NONBLOCK
_PART_NAME = re.compile(r"(\d{5})-([0-9a-f]{32})", re.ASCII)


class DirectoryStorage:
    """A folder as storage.

    It is created when the first object is written, and must exist from then on (see ``memory``).
    """

    def __init__(self, root: Path, memory: Path | None = None, *, lock_s_max: float = LOCK_S_MAX) -> None:
        self._root = root.absolute()
        self._lock = FolderLock(self._root / HIDDEN / _LOCK, wait_s_max=lock_s_max)
        self._tree = FolderTree(self._root)
        self._notes = FolderNotes(self._tree, self._root)
        self._place = RememberedFolder(self._root, self._root / HIDDEN, memory)

    @property
    def url(self) -> str:
        """``file:///folder``."""
        return self._root.as_uri()

    def put(self, key: str, body: bytes, *, metadata: Mapping[str, str]) -> str:
        """See ``Storage.put``. The ETag is not an MD5."""
        with writing("write object", self._path(key)):
            if metadata and metadata != {ID_METADATA: hashlib.sha256(body).hexdigest()}:  # not what ``head`` computes
                return self._publish(key, self._write(body), metadata)
            status = self._tree.put(_TEMPORARY, body, key)
        assert status is not None, "nothing forbids it"
        return _etag(status)

    @property
    def takes_blocks(self) -> bool:
        """See ``TakesBlocks``."""
        return True

    def put_blocks(self, key: str, blocks: Iterator[bytes], *, sha256: str | None = None) -> None:
        """See ``TakesBlocks``. An upload in parts would write each byte twice and hash it four times."""
        digest = hashlib.sha256()

        def fill(file: BinaryIO) -> None:
            for block in blocks:
                digest.update(block)
                file.write(block)
            if sha256 not in {None, digest.hexdigest()}:
                raise CorruptError(f"write object {self._path(key)}: its bytes have changed on disk")

        with writing("write object", self._path(key)):
            self._tree.sweep(_TEMPORARY, LEFTOVER_SECONDS_MAX)
            self._publish(key, self._tree.write(_TEMPORARY, fill), {})

    @property
    def honours_conditions(self) -> bool:
        """See ``HasConditions``."""
        return True

    def put_if(self, key: str, body: bytes, *, etag: str | None) -> bool:
        """See ``Storage.put_if``. The comparison is exact if all processes write the key only by ``put_if``."""

        def is_met(status: os.stat_result | None) -> bool:
            return (status and _etag(status)) == etag

        @contextmanager
        def met(folder: OpenFolder, name: str) -> Iterator[bool]:
            with self._lock.held(self._lock_file):
                yield is_met(folder.status(name))

        with writing("write object conditionally", self._path(key)):
            # This look avoids a write in vain. The lock is not held while the file becomes durable.
            is_written = is_met(self._tree.status(key)) and self._tree.put(_TEMPORARY, body, key, may_replace=met)
        return bool(is_written)

    def head(self, key: str) -> ObjectInfo | None:
        """See ``Storage.head``. Reads the whole object unless its metadata was kept."""
        try:
            with reading("look at object", self._path(key)), self._tree.open(key) as (file, status):
                metadata = self._notes.metadata(_metadata_name(key), _etag(status))
                if metadata is None:
                    metadata = {ID_METADATA: hashlib.file_digest(file, "sha256").hexdigest()}
                return _info(key, status, metadata)
        except MissingError:
            return None

    def confirm(self, key: str) -> ObjectInfo | None:
        """See ``HasConfirmation``. A write that was killed, or failed, may have left a name that is not durable."""
        if (info := self.head(key)) is None:
            return None
        with suppress(MissingError), writing("make object durable", self._path(key)):
            self._tree.sync(key)
            return info
        return None

    def get(self, key: str, *, first: int = 0, length: int | None = None) -> bytes:
        """See ``Storage.get``."""
        with reading("read object", self._path(key)), self._tree.open(key) as (file, _):
            file.seek(first)
            return file.read() if length is None else file.read(length)

    def stream(self, key: str) -> Iterator[bytes]:
        """See ``Storage.stream``."""
        with reading("read object", self._path(key)), self._tree.open(key) as (file, _):
            while block := file.read(BLOCK_SIZE):
                yield block

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        """See ``Storage.list``. Whole keys are in order, as in S3; the order is not folder by folder."""
        folder = prefix.rpartition("/")[0]
        if folder:
            self._path(folder)
        return self._walk(f"{folder}/" if folder else "", prefix, start_after)

    def _walk(self, folder: str, prefix: str, start_after: str) -> Iterator[ObjectInfo]:
        for name, status in self._entries(folder):
            key = folder + name
            if not key.startswith(prefix):
                continue
            if name.endswith("/"):
                if key > start_after or start_after.startswith(key):
                    yield from self._walk(key, prefix, start_after)
            elif key > start_after:
                yield _info(key, status, {})

    def _entries(self, folder: str) -> Sequence[tuple[str, os.stat_result]]:
        """Return what is in ``folder`` (empty or ending in ``/``), sorted. Names of folders end in ``/``, as in keys.

        Text sorts by code points, which is the order of its UTF-8 bytes. Links and special files are left out.
        """
        self._place.require()
        with reading("list", self._root / folder):
            try:
                with self._tree.folder(folder) as opened, os.scandir(opened.descriptor) as entries:
                    return sorted(filter(None, map(_listed, entries)), key=lambda entry: entry[0])
            except (FileNotFoundError, NotADirectoryError):
                return ()
            except OSError as error:
                if error.errno != errno.ELOOP or not folder:
                    raise
                return ()

    def folders(self, prefix: str) -> builtins.list[str]:
        """See ``Storage.folders``. A folder without any object in it is left out."""
        if prefix:
            self._path(prefix.removesuffix("/"))
        names = [name for name, _ in self._entries(prefix) if name.endswith("/")]
        return sorted(name.removesuffix("/") for name in names if any(self._walk(prefix + name, "", "")))

    def delete(self, keys: Sequence[str]) -> None:
        """See ``Storage.delete``. Folders that become empty are removed as well."""
        folders = set()
        for key in keys:
            absent = suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError)
            with writing("delete object", self._path(key)), absent:
                self._tree.unlink(key)
                folders.add(key.rpartition("/")[0])
                self._tree.unlink(_metadata_name(key))
        for folder in folders:
            with writing("delete objects from", self._root / folder):
                self._settle(folder)

    def _settle(self, folder: str) -> None:
        """Make deletions in ``folder`` durable.

        Remove the folder if it is empty, and then each parent that becomes empty.
        """
        while folder:
            above, _, name = folder.rpartition("/")
            try:
                with self._tree.folder(above) as opened:
                    os.rmdir(name, dir_fd=opened.descriptor)
            except FileNotFoundError:
                pass  # another process was faster
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                break
            folder = above
        with suppress(FileNotFoundError), self._tree.folder(folder) as opened:
            opened.sync()

    def create_upload(self, key: str, *, metadata: Mapping[str, str]) -> str:
        """See ``Storage.create_upload``."""
        target = self._path(key)
        upload_id = secrets.token_hex(16)
        upload = {"key": key, "initiated_ms": clock.wall_ms(), "metadata": dict(metadata)}
        with writing("begin upload of", target):
            self._tree.sweep(_TEMPORARY, LEFTOVER_SECONDS_MAX)
            self._tree.publish(self._write(json.dumps(upload).encode()), f"{_UPLOADS}/{upload_id}/upload")
        return upload_id

    def upload_part(self, key: str, upload_id: str, number: int, body: bytes) -> str:
        """See ``Storage.upload_part``; the ETag is the part's MD5."""
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        folder, _ = self._open_upload(key, upload_id)
        with reading(f"upload part {number} of", self._path(key)):
            temporary = self._write(body)
            try:  # ``publish`` would create the folder of an upload that was aborted meanwhile
                self._tree.rename(temporary, f"{folder}/{number:05d}-{etag}")
            except FileNotFoundError:
                self._tree.unlink(temporary)
                raise
        return etag

    def list_parts(self, key: str, upload_id: str) -> builtins.list[StoredPart]:
        """See ``Storage.list_parts``; sorted by number."""
        folder, _ = self._open_upload(key, upload_id)
        with (
            reading("list parts of", self._path(key)),
            self._tree.folder(folder) as opened,
            os.scandir(opened.descriptor) as entries,
        ):
            return sorted(filter(None, map(_stored_part, entries)), key=lambda part: (part.number, part.etag))

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
                with self._tree.open(f"{folder}/{part.number:05d}-{part.etag}") as (source, _):
                    copy_whole(source, file)

        with writing("complete upload of", self._path(key)):
            etag = self._publish(key, self._tree.write(_TEMPORARY, join), upload.metadata)
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
        """See ``Storage.list_uploads``. They are sorted by key. Whatever is not an upload of walsyncd's is left out."""
        found = []
        for name, _ in self._entries(f"{_UPLOADS}/"):
            upload_id = name.removesuffix("/")
            with suppress(MissingError, CorruptError, RefusedError):  # finished meanwhile, or not ours
                upload = self._notes.upload(f"{_UPLOADS}/{upload_id}/upload")
                found.append(OpenUpload(upload.key, upload_id, upload.initiated_ms))
        return sorted(filter(lambda upload: upload.key.startswith(prefix), found), key=lambda upload: upload.key)

    def clock_ms(self) -> int | None:
        """Return None: a folder has no clock of its own."""
        return None

    def _path(self, key: str) -> Path:
        """Return the path of ``key``. Raises UsageError for keys that would leave the root, or that only S3 can hold.

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

    def _write(self, body: bytes) -> str:
        return self._tree.write(_TEMPORARY, lambda file: file.write(body))

    def _publish(self, key: str, temporary: str, metadata: Mapping[str, str]) -> str:
        """Rename a temporary file to its key, after storing metadata that ``head`` can't compute. Returns the ETag."""
        with self._tree.open(temporary) as (_, status):
            etag = _etag(status)  # the rename does not change it
        if metadata:
            kept = json.dumps({"key": key, "etag": etag, "metadata": dict(metadata)})
            self._tree.publish(self._write(kept.encode()), _metadata_name(key))
        self._tree.publish(temporary, key)
        return etag

    def _open_upload(self, key: str, upload_id: str) -> tuple[str, UploadNote]:
        """Return the upload's folder and its note. Raises MissingError if this upload of this key is not open."""
        target = self._path(key)
        if upload_id.isalnum():
            with suppress(MissingError):
                upload = self._notes.upload(f"{_UPLOADS}/{upload_id}/upload")
                if upload.key == key:
                    return f"{_UPLOADS}/{upload_id}", upload
        raise MissingError(f"upload {upload_id!r} of {target} is not open")

    def _drop_upload(self, folder: str) -> None:
        """Rename the upload in one step before deleting it. So a half-deleted upload never looks like a whole one."""
        name = folder.rpartition("/")[2]
        self._tree.rename(folder, f"{_TEMPORARY}/{name}", create=True)
        with self._tree.folder(_UPLOADS) as uploads:
            uploads.sync()
        with self._tree.folder(_TEMPORARY) as temporary:
            remove_tree(temporary, name)  # the next sweep removes the rest

    def _lock_file(self) -> int:
        """Open the lock's file, and create it if it is missing."""
        with self._tree.folder(HIDDEN, create=True) as hidden:
            try:
                return hidden.open(_LOCK, _LOCK_FLAGS)
            except FileNotFoundError:
                with suppress(FileExistsError):
                    create(hidden, _LOCK).close()
            return hidden.open(_LOCK, _LOCK_FLAGS)


def _metadata_name(key: str) -> str:
    return f"{HIDDEN}/metadata/{hashlib.sha256(key.encode()).hexdigest()}"


def _listed(entry: os.DirEntry[str]) -> tuple[str, os.stat_result] | None:
    """Return name and status of a file or a folder. Returns None for anything else, or if it was deleted meanwhile."""
    if not _is_utf8(entry.name) or entry.name == HIDDEN:
        return None
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        return f"{entry.name}/", status
    return (entry.name, status) if stat.S_ISREG(status.st_mode) else None


def _is_utf8(name: str) -> bool:
    """Whether a name has no bytes that Python represents as surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _etag(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"


def _info(key: str, status: os.stat_result, metadata: Mapping[str, str]) -> ObjectInfo:
    return ObjectInfo(key, status.st_size, _etag(status), status.st_mtime_ns // 1_000_000, metadata)


def _stored_part(entry: os.DirEntry[str]) -> StoredPart | None:
    named = _PART_NAME.fullmatch(entry.name)
    if named is None or not entry.is_file(follow_symlinks=False):
        return None
    return StoredPart(int(named[1]), entry.stat(follow_symlinks=False).st_size, named[2])
