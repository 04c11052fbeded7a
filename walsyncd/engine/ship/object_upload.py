"""Uploads an object: a small one by one PUT, a large one by a multipart upload, or in blocks if the storage takes them.

Nothing is assumed after a failure: HEAD shows whether a PUT arrived, ListParts shows which parts arrived.
``walsyncd-id`` in an object's metadata proves that the object is ours and has our bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace

from walsyncd.adapters.journal.journal import Journal, ObjectRow, PartRow
from walsyncd.adapters.storage.interface import ObjectInfo, Storage, StoredPart, confirmed, takes_blocks
from walsyncd.core.send.multipart import (
    AdoptUpload,
    Answers,
    CheckObject,
    Complete,
    CreateUpload,
    FindUploads,
    Finished,
    ForgetUpload,
    Listed,
    ListParts,
    Part,
    Record,
    SendPart,
    adopt,
    bare,
    cut,
    next_step,
    part_size,
)
from walsyncd.core.stored.layout import ID_METADATA, folder_key
from walsyncd.errors import CorruptError, ImpossibleError, MissingError, TransientError


def send(
    journal: Journal,
    storage: Storage,
    row: ObjectRow,
    *,
    key: str,
    tried: bool,
    before_body: Callable[[int], None] = lambda _size: None,
) -> None:
    """Upload an object that the journal has marked begun, under ``key``, which is relative to the storage's root.

    ``tried`` means that an earlier attempt may have reached the store. ``before_body`` gets a number of bytes and waits
    until they may be sent. Raises what the storage raises, and also ImpossibleError if another object has the key,
    CorruptError if the spooled bytes have changed, and MissingError if the row was dropped meanwhile.
    """
    if row.body_path is not None and row.is_multipart and row.upload_id is None and takes_blocks(storage):
        if not (tried and is_stored(storage, row, key)):
            storage.put_blocks(key, _paced(journal.body_blocks(row), before_body), sha256=row.token)
    elif row.is_multipart:
        MultipartUpload(journal, storage, row, key=key, tried=tried, before_body=before_body).run()
    elif not (tried and is_stored(storage, row, key)):
        body = journal.body(row)
        before_body(len(body))
        storage.put(key, body, metadata={ID_METADATA: row.token})


def _paced(blocks: Iterator[bytes], before_body: Callable[[int], None]) -> Iterator[bytes]:
    for block in blocks:
        before_body(len(block))
        yield block


def is_stored(storage: Storage, row: ObjectRow, key: str) -> bool:
    """Whether the store has the object for good. Raises ImpossibleError if another object has its key."""
    info = confirmed(storage, key)
    if info is None:
        return False
    if _is_ours(info, row):
        return True
    if info.size == row.size and ID_METADATA not in info.metadata:
        return False  # the store keeps no metadata, and sending again costs less than a comparison
    raise ImpossibleError(
        f"store {key}: another object of {info.size} bytes is there ({row.size} were to be written)",
        hint="two daemons write to one folder, or somebody changed the bucket",
    )


def _is_ours(info: ObjectInfo, row: ObjectRow) -> bool:
    named = info.metadata.get(ID_METADATA, "") == row.token
    return info.size == row.size and (named or bare(info.etag) == row.md5)


def open_uploads(storage: Storage, key: str) -> list[str]:
    """Return the ids of the open uploads of exactly this key, oldest first."""
    found = [upload for upload in storage.list_uploads(key) if upload.key == key]
    return [upload.upload_id for upload in sorted(found, key=lambda upload: upload.initiated_ms)]


def abort_leftovers(
    journal: Journal, storage: Storage, owns: Callable[[int], bool] = lambda _database_id: True
) -> None:
    """Abort the uploads of abandoned objects of the databases that ``owns`` accepts. Raises what the storage raises."""
    for leftover in journal.leftovers():
        if not owns(leftover.database_id):
            continue
        key = folder_key(journal.database_by_id(leftover.database_id).name, leftover.key)
        ids = open_uploads(storage, key) if leftover.upload_id is None else [leftover.upload_id]
        for upload_id in ids:
            storage.abort_upload(key, upload_id)
        journal.leftover_aborted(leftover.id)


class MultipartUpload:
    """One attempt at a multipart upload; ``core.send.multipart`` decides each step."""

    def __init__(
        self,
        journal: Journal,
        storage: Storage,
        row: ObjectRow,
        *,
        key: str,
        tried: bool,
        before_body: Callable[[int], None],
    ) -> None:
        self._journal = journal
        self._storage = storage
        self._row = row
        self._key = key
        self._before_body = before_body
        self._part_size = row.part_size or part_size(row.size)
        self._record = Record(tried, row.upload_id, ())
        self._answers = Answers()

    def run(self) -> None:
        """Continue from wherever the upload is until the object is stored."""
        self._record = replace(self._record, parts=self._planned())
        while True:
            try:
                match next_step(self._record, self._answers):
                    case FindUploads():
                        self._find_uploads()
                    case AdoptUpload(upload_id, surplus):
                        self._adopt_upload(upload_id, surplus)
                    case CreateUpload():
                        self._open_upload()
                    case ListParts():
                        self._list_parts()
                    case SendPart(part):
                        self._send_part(part)
                    case Complete(parts):
                        self._complete(parts)
                    case CheckObject():
                        stored = is_stored(self._storage, self._row, self._key)
                        self._answers = replace(self._answers, stored=stored)
                    case ForgetUpload():
                        self._forget_upload()
                    case Finished():
                        return
            except _UploadMissing:
                self._answers = replace(self._answers, missing=True)

    def _planned(self) -> tuple[Part, ...]:
        """Return the parts, whose rows are durable before the upload is opened. The body is read and compared once."""
        rows = self._journal.parts(self._row.id)
        if not rows:
            rows = list(self._cut())
            if not self._journal.parts_begun(self._row.id, rows):
                raise MissingError(f"object {self._row.key} was dropped from the journal")
        return tuple(Part(row.number, row.size, row.md5, row.etag) for row in rows)

    def _cut(self) -> Iterator[PartRow]:
        whole = hashlib.md5(usedforsecurity=False)
        for number, (offset, length) in enumerate(cut(self._row.size, part_size=self._part_size), start=1):
            body = self._journal.body_part(self._row, offset, length)
            whole.update(body)
            md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
            del body  # otherwise this part would stay in memory while the next one is read
            yield PartRow(number, length, md5)
        if whole.hexdigest() != self._row.md5:
            raise self._changed()

    def _find_uploads(self) -> None:
        self._answers = replace(self._answers, uploads=tuple(open_uploads(self._storage, self._key)))

    def _adopt_upload(self, upload_id: str, surplus: tuple[str, ...]) -> None:
        for other in surplus:
            self._storage.abort_upload(self._key, other)
        self._note_upload(upload_id)

    def _open_upload(self) -> None:
        metadata = {ID_METADATA: self._row.token}
        self._note_upload(self._storage.create_upload(self._key, metadata=metadata))

    def _note_upload(self, upload_id: str) -> None:
        if not self._journal.upload_opened(self._row.id, upload_id, self._part_size):
            self._storage.abort_upload(self._key, upload_id)
            raise MissingError(f"object {self._row.key} was dropped from the journal")
        self._record = replace(self._record, upload_id=upload_id)

    def _list_parts(self) -> None:
        try:
            found = self._storage.list_parts(self._key, self._upload_id)
        except MissingError as error:
            raise _UploadMissing from error
        listed = [Listed(part.number, part.size, part.etag) for part in found]
        self._record = replace(self._record, parts=adopt(self._record.parts, listed))
        self._answers = replace(self._answers, listed=True)

    def _send_part(self, part: Part) -> None:
        offset = (part.number - 1) * self._part_size
        body = self._journal.body_part(self._row, offset, part.size)
        if hashlib.md5(body, usedforsecurity=False).hexdigest() != part.md5:
            raise self._changed()
        self._before_body(len(body))
        try:
            etag = self._storage.upload_part(self._key, self._upload_id, part.number, body)
        except MissingError as error:
            raise _UploadMissing from error
        self._journal.part_stored(self._row.id, part.number, etag)
        parts = list(self._record.parts)
        parts[part.number - 1] = replace(part, etag=etag)
        self._record = replace(self._record, parts=tuple(parts))

    def _complete(self, parts: tuple[Part, ...]) -> None:
        stored = [StoredPart(part.number, part.size, part.etag or "") for part in parts]
        try:
            self._storage.complete_upload(self._key, self._upload_id, stored)
        except MissingError as error:
            raise _UploadMissing from error
        except CorruptError:
            self._answers = replace(self._answers, listed=False, refusals=self._answers.refusals + 1)
        else:
            self._answers = replace(self._answers, stored=True)

    def _forget_upload(self) -> None:
        self._storage.abort_upload(self._key, self._upload_id)
        self._journal.upload_forgotten(self._row.id)
        if self._answers.refusals:
            raise TransientError(f"complete upload of {self._key}: the store refuses the parts that it lists")
        parts = tuple(replace(part, etag=None) for part in self._record.parts)
        self._record = replace(self._record, upload_id=None, parts=parts)
        self._answers = Answers(uploads=())

    @property
    def _upload_id(self) -> str:
        assert self._record.upload_id is not None, "no upload is open"
        return self._record.upload_id

    def _changed(self) -> CorruptError:
        return CorruptError(f"read spooled object {self._row.key}: its bytes have changed on disk")


class _UploadMissing(Exception):  # noqa: N818 - an answer of the store, caught a few lines above
    """The store does not know the upload."""
