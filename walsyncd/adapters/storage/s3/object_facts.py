"""What answers of S3 say of an object.

An answer that lacks a field, or has no number where one must be, raises KeyError, ValueError or TypeError, which
``s3_errors`` translates.
"""

from __future__ import annotations

from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from walsyncd.adapters.storage.interface import ObjectInfo, OpenUpload
from walsyncd.adapters.storage.s3.list_limits import checked_key

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef, MultipartUploadTypeDef, ObjectTypeDef


def listed_object(entry: ObjectTypeDef, root: str) -> ObjectInfo:
    """Return what an entry of LIST says; ``root`` is left out of the key."""
    key = checked_key(entry["Key"]).removeprefix(root)
    etag, modified_ms = unquoted(entry.get("ETag", "")), milliseconds(entry["LastModified"])
    return ObjectInfo(key, entry["Size"], etag, modified_ms, {})


def object_of_head(key: str, answer: HeadObjectOutputTypeDef) -> ObjectInfo:
    """Return what HEAD says of the object ``key``."""
    metadata = {name.lower(): value for name, value in answer["Metadata"].items()}
    modified_ms = milliseconds(answer["LastModified"])
    return ObjectInfo(key, answer["ContentLength"], unquoted(answer["ETag"]), modified_ms, metadata)


def open_upload(entry: MultipartUploadTypeDef, root: str) -> OpenUpload:
    """Return what the list of open uploads says of one; ``root`` is left out of the key."""
    return OpenUpload(checked_key(entry["Key"]).removeprefix(root), entry["UploadId"], milliseconds(entry["Initiated"]))


def milliseconds(moment: datetime) -> int:
    """Return milliseconds since 1970."""
    return round(moment.timestamp() * 1000)


@lru_cache(maxsize=4)
def date_ms(text: str) -> int:
    """Return milliseconds since 1970 of a Date header, which many answers within a second have in common.

    Raises ValueError or OverflowError if it is none.
    """
    return milliseconds(parsedate_to_datetime(text))


def unquoted(etag: str) -> str:
    """Return an ETag without its quotation marks and the sign of a weak one."""
    return etag.removeprefix("W/").strip('"')
