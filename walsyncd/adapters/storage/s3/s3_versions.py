"""Lists every version of the objects in a bucket, and removes them for good.

If a bucket keeps versions (Backblaze B2 does by default), a plain DELETE only hides the object behind a delete marker.
The store keeps and bills the hidden object. Only a DELETE with the version's id removes it. Source: Amazon S3 API
Reference, ListObjectVersions and DeleteObjects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from walsyncd.adapters.storage.interface import ObjectVersion
from walsyncd.adapters.storage.s3.list_limits import checked_key, limited
from walsyncd.adapters.storage.s3.s3_errors import error_code, error_status
from walsyncd.errors import MissingError, RefusedError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

DELETE_BATCH_MAX = 1000  # DeleteObjects takes no more
_UNKNOWN_STATUS = {400, 404, 405, 501}  # the answers of stores that do not have this request
_DENIED = {"AccessDenied", "AllAccessDisabled", "Unauthorized"}


class S3Versions:
    """The versions below ``root`` of a bucket. ``edge`` translates errors, ``client`` returns the current client."""

    def __init__(
        self,
        bucket: str,
        root: str,
        client: Callable[[], S3Client],
        edge: Callable[[str, str], AbstractContextManager[None]],
    ) -> None:
        self._bucket = bucket
        self._root = root
        self._client = client
        self._edge = edge

    def list(self, prefix: str) -> Iterator[ObjectVersion]:
        """Yield versions and delete markers of keys that begin with ``prefix``, or nothing if the store keeps none.

        Raises RefusedError if the credentials may not list versions.
        """
        with self._edge("list versions of", prefix):
            try:
                pages: Iterable[Any] = (
                    self._client()
                    .get_paginator("list_object_versions")
                    .paginate(Bucket=self._bucket, Prefix=self._root + prefix)
                )
                found = [
                    self._version(entry)
                    for page in limited(pages, f"list versions of {self._root}{prefix}")
                    for entry in (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))
                ]
            except ClientError as error:
                if error_code(error) in _DENIED or error_status(error) not in _UNKNOWN_STATUS:
                    raise
                found = []
        yield from found

    def _version(self, entry: Any) -> ObjectVersion:
        key = checked_key(entry["Key"]).removeprefix(self._root)
        return ObjectVersion(key, entry.get("VersionId") or "null", entry.get("Size", 0))

    def delete(self, versions: Sequence[ObjectVersion]) -> None:
        """Remove these versions for good. It is no error if a version is absent."""
        for start in range(0, len(versions), DELETE_BATCH_MAX):
            batch = versions[start : start + DELETE_BATCH_MAX]
            if len(batch) == 1 or not self._delete_batch(batch):
                for version in batch:
                    self._delete_one(version)

    def _delete_batch(self, versions: Sequence[ObjectVersion]) -> bool:
        """Return whether the store accepted the batch."""
        with self._edge("delete versions from", versions[0].key):
            try:
                answer = self._client().delete_objects(
                    Bucket=self._bucket,
                    Delete={
                        "Objects": [
                            {"Key": self._root + version.key, "VersionId": version.version_id} for version in versions
                        ],
                        "Quiet": True,
                    },
                )
            except ClientError as error:
                if error_status(error) in _UNKNOWN_STATUS and error_code(error) not in _DENIED:
                    return False
                raise
        refusals = [each for each in answer.get("Errors", ()) if each.get("Code") not in {"NoSuchKey", "NoSuchVersion"}]
        if refusals:
            key, said = refusals[0].get("Key", ""), refusals[0].get("Message") or refusals[0].get("Code", "")
            raise RefusedError(
                f"delete {len(refusals)} versions, first {key.removeprefix(self._root)}: {said}",
                hint="a lock of the bucket holds them until its time is over, or s3:DeleteObjectVersion is not allowed",
            )
        return True

    def _delete_one(self, version: ObjectVersion) -> None:
        try:
            with self._edge("delete version of", version.key):
                self._client().delete_object(
                    Bucket=self._bucket, Key=self._root + version.key, VersionId=version.version_id
                )
        except MissingError:  # already deleted
            return
