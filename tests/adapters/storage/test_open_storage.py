"""Tests of how a url becomes a storage."""

from __future__ import annotations

import pytest

from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.adapters.storage.open_storage import open_storage
from walsyncd.adapters.storage.s3.s3_storage import S3Storage
from walsyncd.errors import UsageError


@pytest.mark.parametrize(
    ("url", "kind", "canonical"),
    [
        ("s3://bucket", S3Storage, "s3://bucket"),
        ("s3://bucket/", S3Storage, "s3://bucket"),
        ("s3://bucket/hosts/web-1/", S3Storage, "s3://bucket/hosts/web-1"),
        ("s3://bucket/a b?c#d%20", S3Storage, "s3://bucket/a b?c#d%20"),
        ("file:///srv/replica/", DirectoryStorage, "file:///srv/replica"),
        ("file://localhost/srv/replica", DirectoryStorage, "file:///srv/replica"),
        ("file:///srv/my%20replica", DirectoryStorage, "file:///srv/my%20replica"),
    ],
)
def test_url(url: str, kind: type, canonical: str) -> None:
    """The scheme chooses the backend. The storage's own url has no trailing slash."""
    storage = open_storage(url, {"region": "eu-central-1"})
    assert type(storage) is kind
    assert storage.url == canonical


@pytest.mark.parametrize(
    "url", ["", "bucket", "gs://bucket", "S3:/bucket", "s3://", "s3:///key", "file://srv/replica", "/srv/replica"]
)
def test_url_that_is_none(url: str) -> None:
    """Any other text is a usage error that shows a correct url."""
    with pytest.raises(UsageError, match=r"s3://bucket|file:///"):
        open_storage(url, {})
