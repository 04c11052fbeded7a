"""Extracts facts about objects from answers of S3.

If an answer lacks a field, or a field is not a number as it must be, the functions raise KeyError, ValueError or
TypeError, which ``s3_errors`` translates.
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
    """Return the object that an entry of LIST describes. ``root`` is removed from the key."""
    key = checked_key(entry["Key"]).removeprefix(root)
    etag, modified_ms = unquoted(entry.get("ETag", "")), milliseconds(entry["LastModified"])
    return ObjectInfo(key, entry["Size"], etag, modified_ms, {})


def object_of_head(key: str, answer: HeadObjectOutputTypeDef) -> ObjectInfo:
    """Return what HEAD reports of the object ``key``."""
    metadata = {name.lower(): value for name, value in answer["Metadata"].items()}
    modified_ms = milliseconds(answer["LastModified"])
    return ObjectInfo(key, answer["ContentLength"], unquoted(answer["ETag"]), modified_ms, metadata)


def open_upload(entry: MultipartUploadTypeDef, root: str) -> OpenUpload:
    """Return the upload that an entry of the list of open uploads describes. ``root`` is removed from the key."""
    return OpenUpload(checked_key(entry["Key"]).removeprefix(root), entry["UploadId"], milliseconds(entry["Initiated"]))


def milliseconds(moment: datetime) -> int:
    """Return milliseconds since 1970."""
    return round(moment.timestamp() * 1000)


@lru_cache(maxsize=4)
def date_ms(text: str) -> int:
    """Return the time of a Date header in milliseconds since 1970.

    Results are cached, since many answers within a second have the same header. Raises ValueError or OverflowError if
    ``text`` is not a date.
    """
    return milliseconds(parsedate_to_datetime(text))


def unquoted(etag: str) -> str:
    """Return an ETag without its quotation marks and without the prefix of a weak ETag."""
    return etag.removeprefix("W/").strip('"')
