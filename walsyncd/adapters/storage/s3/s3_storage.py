"""Storage in a bucket of an S3-compatible store.

Writes of objects and parts use ``signed_put``, which is fast; everything else uses boto3. Not every store honours
conditional writes. Until this store was seen to honour them, ``put_if`` compares before the write and reads back after
it. Source: Amazon S3 API Reference.
"""

from __future__ import annotations

import builtins  # ``list`` is a method here
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from walsyncd.adapters.storage.interface import ObjectInfo, OpenUpload, StoredPart
from walsyncd.adapters.storage.remark import Remark
from walsyncd.adapters.storage.s3.bucket_rules import BucketRules
from walsyncd.adapters.storage.s3.checked_put import NO_QUERY, CheckedPut
from walsyncd.adapters.storage.s3.conditional_put import ConditionalPut
from walsyncd.adapters.storage.s3.http_transport import read_up_to
from walsyncd.adapters.storage.s3.list_limits import FOLDERS_MAX, Page, checked_key, limited
from walsyncd.adapters.storage.s3.object_facts import date_ms, listed_object, object_of_head, open_upload, unquoted
from walsyncd.adapters.storage.s3.s3_connection import S3Connection, customer_headers, object_headers
from walsyncd.adapters.storage.s3.s3_errors import (
    ADDRESS_HINT,
    EXPIRED_CODES,
    RequestTarget,
    error_code,
    error_status,
    redirect_region,
    translate,
    translated,
    understood,
)
from walsyncd.adapters.storage.s3.s3_settings import S3Settings
from walsyncd.adapters.storage.s3.s3_versions import S3Versions
from walsyncd.errors import CorruptError, MissingError, RefusedError, TransientError, UsageError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import (
        GetObjectRequestTypeDef,
        ListObjectsV2OutputTypeDef,
        ListObjectsV2RequestPaginateTypeDef,
    )

BLOCK_SIZE = 1 << 20
DELETE_BATCH_MAX = 1000  # DeleteObjects takes no more
BODY_BYTES_MAX = 64 << 20  # the limit for reading an object whole; larger objects are read in parts, or streamed
_Item = TypeVar("_Item")


class S3Storage:
    """A bucket, or a prefix in it. Raises UsageError if ``settings`` are invalid.

    ``beat`` is called whenever a part of a body was transferred: on a slow line one request may take minutes.
    """

    def __init__(self, settings: S3Settings, beat: Callable[[], None] = lambda: None) -> None:
        self._settings = settings
        self._beat = beat
        self._root = f"{settings.prefix.strip('/')}/" if settings.prefix.strip("/") else ""
        self._customer = customer_headers(settings)
        self._batches_deleted = True
        self._date: tuple[int, int] | None = None  # ms by the store, ns of this machine's boot-time clock
        try:
            self._connection = S3Connection(settings, self._note_headers, beat)
        except OSError as error:  # SSLError included
            certificates = settings.ca_file or "the certificates of AWS_CA_BUNDLE"
            raise UsageError(
                f"open {self.url}: read {certificates}: {error.strerror or error}",
                hint="ca_file in [storage] is a file of certificates in PEM that this user may read",
            ) from error
        except (BotoCoreError, ValueError) as error:
            raise UsageError(f"open {self.url}: {error}", hint="correct [storage]") from error
        self._connecting = threading.Lock()
        self._expired: S3Connection | None = None
        self._region_found = ""
        self._put = CheckedPut(self._send)
        self._put_if = ConditionalPut(self._put, settings)

    @property
    def url(self) -> str:
        """``s3://bucket/prefix``."""
        return f"s3://{self._settings.bucket}/{self._root}".rstrip("/")

    def close(self) -> None:
        """Close all connections."""
        self._connection.close()

    def put(self, key: str, body: bytes, *, metadata: Mapping[str, str]) -> str:
        """See ``Storage.put``."""
        headers = {f"x-amz-meta-{name}": value for name, value in metadata.items()}
        with self._edge("write object", key):
            answer = self._put(key, body, headers=headers | object_headers(self._settings, size=len(body)))
        return unquoted(answer.get("ETag", ""))

    @property
    def honours_conditions(self) -> bool | None:
        """See ``HasConditions``."""
        return self._put_if.is_honoured

    def put_if(self, key: str, body: bytes, *, etag: str | None) -> bool:
        """See ``Storage.put_if``.

        One request decides once the store was seen to refuse a write whose condition is not met.
        """
        if not self._put_if.is_honoured and ((found := self.head(key)) and found.etag) != etag:
            return False
        with self._edge("write object conditionally", key):
            if not self._put_if(key, body, etag=etag):
                return False
        if self._put_if.is_honoured:
            return True
        try:
            if self.get(key, length=len(body) + 1) != body:
                return False
        except MissingError:
            return False
        with self._edge("write object conditionally", key):
            self._put_if.try_out(key, body)
        return True

    def rules(self, *, deletes: bool, expire_after_s: float | None) -> builtins.list[Remark]:
        """See ``HasRules.rules``."""
        return BucketRules(self._client, self._settings.bucket, self._root, deletes, expire_after_s).remarks()

    def findings(self) -> builtins.list[Remark]:
        """See ``HasRules.findings``."""
        region = self._region_found  # a redirect set it, so it differs from the region of the settings
        text = f"the bucket is in {region}: the store sends every first request there"
        return [Remark("region", text, f'set [storage] region = "{region}"', is_problem=False)] if region else []

    def head(self, key: str) -> ObjectInfo | None:
        """See ``Storage.head``."""
        try:
            with self._parsed("look at object", key):
                answer = self._client.head_object(Bucket=self._settings.bucket, Key=self._root + key)
                return object_of_head(key, answer)
        except MissingError:
            return None

    def get(self, key: str, *, first: int = 0, length: int | None = None) -> bytes:
        """See ``Storage.get``."""
        request: GetObjectRequestTypeDef = {"Bucket": self._settings.bucket, "Key": self._root + key}
        if first or length is not None:
            request["Range"] = f"bytes={first}-{'' if length is None else first + length - 1}"
        with self._parsed("read object", key):
            try:
                answer = self._client.get_object(**request)
            except ClientError as error:
                if error_status(error) == 416:  # no bytes from ``first`` on
                    return b""
                raise
            with closing(answer["Body"]) as body:
                if first and length is not None and answer.get("ContentLength", 0) > length:
                    raise TransientError(f"read object {self._target(key)}: the store ignores which part was asked for")
                said = read_up_to(body, BODY_BYTES_MAX + 1 if length is None else length)
        if length is None and len(said) > BODY_BYTES_MAX:
            raise CorruptError(f"read object {self._target(key)}: it is longer than {BODY_BYTES_MAX >> 20} MiB")
        return said

    def stream(self, key: str) -> Iterator[bytes]:
        """See ``Storage.stream``."""
        with self._parsed("read object", key):
            answer = self._client.get_object(Bucket=self._settings.bucket, Key=self._root + key)
            whole = answer["ContentLength"]
        size = 0
        with closing(answer["Body"]) as body:
            for block in self._translated("read object", key, body.iter_chunks(BLOCK_SIZE)):
                size += len(block)
                yield block
        if size != whole:
            raise TransientError(f"read object {self._target(key)}: only {size} of {whole} bytes came")

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        """See ``Storage.list``."""
        for page in self._list_pages(prefix, start_after=start_after):
            with self._parsed("list", prefix):
                found = [listed_object(entry, self._root) for entry in page.get("Contents", ())]
            yield from found

    def folders(self, prefix: str) -> builtins.list[str]:
        """See ``Storage.folders``. Some stores list a folder for a while after its last object was deleted."""
        names: set[str] = set()
        for page in self._list_pages(prefix, delimiter="/"):
            with self._parsed("list", prefix):
                names.update(checked_key(each["Prefix"]) for each in page.get("CommonPrefixes", ()))
            if len(names) > FOLDERS_MAX:
                raise RefusedError(f"list {self._target(prefix)}: it holds more than {FOLDERS_MAX} folders")
        return sorted(name.removeprefix(self._root + prefix).removesuffix("/") for name in names)

    def _list_pages(
        self, prefix: str, *, start_after: str = "", delimiter: str = ""
    ) -> Iterator[ListObjectsV2OutputTypeDef]:
        request: ListObjectsV2RequestPaginateTypeDef = {
            "Bucket": self._settings.bucket,
            "Prefix": self._root + prefix,
        }
        if start_after:
            request["StartAfter"] = self._root + start_after
        if delimiter:
            request["Delimiter"] = delimiter
        pages = self._client.get_paginator("list_objects_v2").paginate(**request)
        for page in self._each("list", prefix, pages):
            if "IsTruncated" not in page:  # perhaps a web page, which would otherwise look like an empty replica
                raise TransientError(f"list {self._target(prefix)}: the answer is not S3's", hint=ADDRESS_HINT)
            yield page

    def delete(self, keys: Sequence[str]) -> None:
        """See ``Storage.delete``.

        A single object is deleted by DELETE, since some stores confirm a batch and keep the objects.
        """
        for start in range(0, len(keys), DELETE_BATCH_MAX):
            batch = keys[start : start + DELETE_BATCH_MAX]
            if len(batch) == 1 or not self._batches_deleted or not self._delete_batch(batch):
                for key in batch:
                    self._delete_one(key)

    def _delete_batch(self, keys: Sequence[str]) -> bool:
        """Return whether the store accepted the batch. A store without DeleteObjects is not asked again."""
        with self._edge("delete objects from", keys[0]):
            try:
                answer = self._client.delete_objects(
                    Bucket=self._settings.bucket,
                    Delete={"Objects": [{"Key": self._root + key} for key in keys], "Quiet": True},
                )
            except ClientError as error:
                self._batches_deleted = error_status(error) not in (405, 501)
                if self._batches_deleted and (error_status(error) != 400 or error_code(error) in EXPIRED_CODES):
                    raise
                return False
        for refusal in answer.get("Errors", ()):
            if refusal.get("Code") != "NoSuchKey":
                key = refusal.get("Key", "").removeprefix(self._root)
                said: Any = {"Error": refusal, "ResponseMetadata": answer["ResponseMetadata"]}
                raise translate("delete object", self._target(key), ClientError(said, "DeleteObjects"))
        return True

    def _delete_one(self, key: str) -> None:
        with suppress(MissingError), self._edge("delete object", key):  # absent: already deleted
            self._client.delete_object(Bucket=self._settings.bucket, Key=self._root + key)

    def create_upload(self, key: str, *, metadata: Mapping[str, str]) -> str:
        """See ``Storage.create_upload``."""
        with self._parsed("begin upload of", key):
            answer = self._client.create_multipart_upload(
                Bucket=self._settings.bucket, Key=self._root + key, Metadata=dict(metadata)
            )
            return answer["UploadId"]

    def upload_part(self, key: str, upload_id: str, number: int, body: bytes) -> str:
        """See ``Storage.upload_part``."""
        query = {"partNumber": str(number), "uploadId": upload_id}
        with self._edge(f"upload part {number} of", key):
            answer = self._put(key, body, headers=self._customer, query=query)
        return unquoted(answer.get("ETag", ""))

    def list_parts(self, key: str, upload_id: str) -> builtins.list[StoredPart]:
        """See ``Storage.list_parts``."""
        pages = self._client.get_paginator("list_parts").paginate(
            Bucket=self._settings.bucket, Key=self._root + key, UploadId=upload_id
        )
        found = [part for page in self._each("list parts of", key, pages) for part in page.get("Parts", ())]
        with self._parsed("list parts of", key):
            return [StoredPart(part["PartNumber"], part["Size"], unquoted(part["ETag"])) for part in found]

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[StoredPart]) -> str:
        """See ``Storage.complete_upload``."""
        with self._parsed("complete upload of", key):
            try:
                answer = self._client.complete_multipart_upload(
                    Bucket=self._settings.bucket,
                    Key=self._root + key,
                    UploadId=upload_id,
                    MultipartUpload={
                        "Parts": [{"PartNumber": part.number, "ETag": f'"{part.etag}"'} for part in parts]
                    },
                )
            except ClientError as error:
                self._put.parts_refused(error)  # the store may require checksums here too, so the next upload has none
                raise
        return unquoted(answer.get("ETag", ""))

    def abort_upload(self, key: str, upload_id: str) -> None:
        """See ``Storage.abort_upload``."""
        with suppress(MissingError), self._edge("abort upload of", key):  # absent: already aborted
            self._client.abort_multipart_upload(Bucket=self._settings.bucket, Key=self._root + key, UploadId=upload_id)

    def list_uploads(self, prefix: str) -> builtins.list[OpenUpload]:
        """See ``Storage.list_uploads``. Some stores require the exact key as ``prefix``."""
        pages = self._client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self._settings.bucket, Prefix=self._root + prefix
        )
        try:
            found = [each for page in self._each("list uploads of", prefix, pages) for each in page.get("Uploads", ())]
        except MissingError:  # rclone reports this if there never was an upload
            return []
        with self._parsed("list uploads of", prefix):
            return [open_upload(upload, self._root) for upload in found]

    def versions(self) -> S3Versions:
        """Return the versions of the objects in this storage."""
        return S3Versions(self._settings.bucket, self._root, lambda: self._client, self._edge)

    def clock_ms(self) -> int | None:
        """Return the ``Date`` of the last answer plus the time since, suspend included; see ``Storage.clock_ms``."""
        if self._date is None:
            return None
        store_ms, boottime_ns = self._date
        return store_ms + (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - boottime_ns) // 1_000_000

    def _note_headers(self, headers: Mapping[str, str]) -> None:
        try:
            store_ms = date_ms(headers["Date"])
        except (KeyError, ValueError, OverflowError):
            return  # the store has no clock, and no time is better than a wrong one
        self._date = (store_ms, time.clock_gettime_ns(time.CLOCK_BOOTTIME))

    def _target(self, key: str) -> RequestTarget:
        return RequestTarget(self._settings.bucket, self._client.meta.endpoint_url, self._root + key)

    @property
    def _client(self) -> S3Client:
        return self._fresh().client

    def _fresh(self) -> S3Connection:
        """Return the connection. If its credentials have expired, return a new one, which looks for them again."""
        connection = self._connection
        if connection is self._expired:
            self._connect(connection, connection.client.meta.region_name)
        return self._connection

    def _send(
        self, key: str, body: bytes, *, headers: Mapping[str, str], query: Mapping[str, str] = NO_QUERY
    ) -> Mapping[str, str]:
        """Send a PUT. As boto3 does, send it again if the store reports that the bucket is in another region."""
        connection = self._fresh()
        try:
            return connection.put(self._root + key, body, headers=headers, query=query)
        except ClientError as error:
            region = redirect_region(error)
            if not region or region == connection.client.meta.region_name:
                raise
            self._region_found = region
            self._connect(connection, region)
        return self._connection.put(self._root + key, body, headers=headers, query=query)

    def _connect(self, stale: S3Connection, region: str | None) -> None:
        """Use a new connection from now on. Requests under way stay on the ``stale`` connection."""
        with self._connecting:
            if self._connection is stale:  # otherwise another thread was faster
                self._connection = S3Connection(replace(self._settings, region=region), self._note_headers, self._beat)

    @contextmanager
    def _edge(self, operation: str, key: str) -> Iterator[None]:
        """Translate errors, and note whether the credentials have expired."""
        connection = self._connection
        try:
            with translated(operation, self._target(key)):
                yield
        except RefusedError as error:
            if isinstance(error.__cause__, ClientError) and error_code(error.__cause__) in EXPIRED_CODES:
                self._expired = connection
            raise

    @contextmanager
    def _parsed(self, operation: str, key: str) -> Iterator[None]:
        """Do what ``_edge`` does, for a request whose answer is parsed and may lack a field."""
        with self._edge(operation, key), understood(operation, self._target(key)):
            yield

    def _each(self, operation: str, key: str, pages: Iterable[Page]) -> Iterator[Page]:
        """Yield the same pages, with their errors translated. Raises RefusedError if they do not end."""
        return limited(self._translated(operation, key, pages), f"{operation} {self._target(key)}")

    def _translated(self, operation: str, key: str, source: Iterable[_Item]) -> Iterator[_Item]:
        left = iter(source)
        while True:
            with self._parsed(operation, key):
                each = next(left, None)
            if each is None:
                return
            yield each
