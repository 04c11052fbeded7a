"""Tests of walsyncd.adapters.storage.s3.object_facts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from walsyncd.adapters.storage.interface import ObjectInfo, OpenUpload
from walsyncd.adapters.storage.s3.object_facts import (
    date_ms,
    listed_object,
    milliseconds,
    object_of_head,
    open_upload,
    unquoted,
)

MOMENT = datetime(2026, 11, 22, 10, 56, 0, 7000, tzinfo=UTC)


def test_what_is_said_of_objects() -> None:
    """Keys come without the storage's prefix, and ETags without their quotation marks. Some stores list no ETag."""
    entry: Any = {"Key": "hosts/web/app/x", "Size": 5, "LastModified": MOMENT}
    assert listed_object(entry, "hosts/web/") == ObjectInfo("app/x", 5, "", 1_795_344_960_007, {})
    tagged: Any = {**entry, "ETag": '"e"'}
    assert listed_object(tagged, "").etag == "e"
    head: Any = {"Metadata": {"Walsyncd-Id": "i"}, "ContentLength": 5, "ETag": '"e"', "LastModified": MOMENT}
    assert object_of_head("x", head) == ObjectInfo("x", 5, "e", 1_795_344_960_007, {"walsyncd-id": "i"})
    upload: Any = {"Key": "hosts/web/app/x", "UploadId": "u", "Initiated": MOMENT}
    assert open_upload(upload, "hosts/web/") == OpenUpload("app/x", "u", 1_795_344_960_007)


@pytest.mark.parametrize("lacking", ["Key", "Size", "LastModified"])
def test_what_is_not_said_is_an_error(lacking: str) -> None:
    """The caller translates the error: the answer is not S3's."""
    entry: Any = {"Key": "x", "Size": 5, "LastModified": MOMENT}
    del entry[lacking]
    with pytest.raises(KeyError, match=lacking):
        listed_object(entry, "")


def test_times_and_etags() -> None:
    """Times of any zone are read. A weak ETag is compared like a strong one."""
    assert milliseconds(MOMENT.astimezone(timezone(timedelta(hours=5)))) == 1_795_344_960_007
    assert unquoted('W/"e"') == unquoted('"e"') == unquoted("e") == "e"


def test_the_date_of_an_answer() -> None:
    """The date is in milliseconds, and the same each time. A text that is not a date raises each time."""
    for _ in range(2):
        assert date_ms("Sun, 22 Nov 2026 10:56:00 GMT") == 1_795_344_960_000
        assert date_ms("Sun, 22 Nov 2026 10:56:01 GMT") == 1_795_344_961_000
        with pytest.raises(ValueError, match="yesterday"):
            date_ms("yesterday")
