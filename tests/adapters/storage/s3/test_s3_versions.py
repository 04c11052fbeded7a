"""Tests that versions of objects are seen and removed for good."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.scripted_store import refusal, run_scripted_store
from tests.stores import Store
from walsyncd.adapters.storage.interface import ObjectVersion
from walsyncd.adapters.storage.s3.s3_storage import S3Storage
from walsyncd.errors import RefusedError


@pytest.fixture
def storage(moto: Store) -> Iterator[S3Storage]:
    """Return a bucket that keeps versions."""
    bucket = moto.make_bucket()
    client = moto.client()
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    with closing(client), closing(S3Storage(moto.settings(bucket, "root"))) as storage:
        yield storage


def test_what_a_plain_delete_hides_is_seen_and_removed(storage: S3Storage) -> None:
    """An old version, its delete marker and the current version are found. Other keys are not listed."""
    for body in (b"one", b"three"):
        storage.put("app/a", body, metadata={})
    storage.put("app/b", b"b", metadata={})
    storage.put("other/c", b"c", metadata={})
    storage.delete(["app/a"])
    found = list(storage.versions().list("app/"))
    assert sorted((version.key, version.size) for version in found) == [
        ("app/a", 0),
        ("app/a", 3),
        ("app/a", 5),
        ("app/b", 1),
    ]
    storage.versions().delete(found)
    assert list(storage.versions().list("app/")) == []
    assert [version.key for version in storage.versions().list("")] == ["other/c"]
    storage.versions().delete([ObjectVersion("other/c", next(storage.versions().list("")).version_id, 1)])
    assert list(storage.list("")) == []


def test_in_a_bucket_without_versions_each_object_is_its_own(moto: Store) -> None:
    """Removing the only version removes the object."""
    with closing(S3Storage(moto.settings(moto.make_bucket()))) as storage:
        storage.put("app/a", b"a", metadata={})
        found = list(storage.versions().list("app/"))
        assert [(version.key, version.version_id) for version in found] == [("app/a", "null")]
        storage.versions().delete(found)
        assert list(storage.list("")) == []


@pytest.mark.parametrize(("status", "code"), [(501, "NotImplemented"), (405, "MethodNotAllowed"), (400, "Unknown")])
def test_a_store_that_knows_no_versions_has_none(status: int, code: str) -> None:
    """The store refuses the request."""
    with run_scripted_store() as script, closing(S3Storage(script.settings(prefix="root"))) as storage:
        script.will_say(refusal(status, code))
        assert list(storage.versions().list("app/")) == []


def test_versions_that_may_not_be_seen_are_an_error() -> None:
    """Otherwise the versions would stay without anybody knowing."""
    with run_scripted_store() as script, closing(S3Storage(script.settings(prefix="root"))) as storage:
        script.will_say(refusal(403, "AccessDenied"))
        with pytest.raises(RefusedError):
            list(storage.versions().list("app/"))
