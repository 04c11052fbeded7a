"""Tests that conditions are relied on only where the store was seen to honour them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.scripted_store import Answer, ScriptedStore, refusal
from tests.stores import Store
from walsyncd.adapters.storage.s3.s3_storage import S3Storage

ABSENT, THERE, REFUSED = Answer(404), Answer(body=b"mine"), refusal(412, "PreconditionFailed")
WRITTEN = Answer(headers={"ETag": '"e1"'})
BAD_DIGEST = refusal(400, "BadDigest")


@pytest.fixture
def storage(script: ScriptedStore) -> Iterator[S3Storage]:
    with closing(S3Storage(script.settings())) as storage:
        yield storage


def first(script: ScriptedStore, storage: S3Storage, *trial: Answer) -> None:
    """Make the first conditional write of a run, which ends with the trial."""
    script.will_say(ABSENT, BAD_DIGEST, WRITTEN, THERE, *trial)
    assert storage.put_if("owner.json", b"mine", etag=None)
    tried = script.requests[4:]
    assert [request.headers.get("if-none-match") for request in tried] == ["*", None][: len(trial)]
    script.requests.clear()


def test_a_store_that_refuses_both_decides_by_one_request(script: ScriptedStore, storage: S3Storage) -> None:
    """Nothing is compared before or read afterwards, whichever condition it is."""
    first(script, storage, REFUSED, REFUSED)
    script.will_say(WRITTEN, REFUSED, WRITTEN, REFUSED)
    for etag in (None, "e1"):
        assert storage.put_if("other.json", b"mine", etag=etag)
        assert not storage.put_if("other.json", b"mine", etag=etag)
    assert [request.method for request in script.requests] == ["PUT"] * 4


@pytest.mark.parametrize("trial", [(WRITTEN,), (REFUSED, WRITTEN)], ids=["if-none-match", "if-match"])
def test_a_store_that_writes_anyway_is_not_relied_on(
    script: ScriptedStore, storage: S3Storage, trial: tuple[Answer, ...]
) -> None:
    """Each conditional write takes three requests, and there is no second trial."""
    first(script, storage, *trial)
    script.will_say(ABSENT, WRITTEN, THERE)
    assert storage.put_if("other.json", b"mine", etag=None)
    assert [request.method for request in script.requests] == ["HEAD", "PUT", "GET"]


@pytest.mark.parametrize(("name", "honours"), [("seaweedfs", True), ("rclone", False), ("moto", True)])
def test_real_stores(request: pytest.FixtureRequest, name: str, *, honours: bool) -> None:
    """Whatever a store does with conditions, an object that must be the first replaces no other."""
    store: Store = request.getfixturevalue(name)
    with closing(S3Storage(store.settings(store.make_bucket()))) as storage:
        for key in ("a/owner.json", "b/owner.json"):
            assert storage.put_if(key, b"one", etag=None)
            assert not storage.put_if(key, b"two", etag=None)
            assert not storage.put_if(key, b"two", etag="0" * 32)
            assert storage.get(key) == b"one"
        assert storage._put_if.is_honoured is honours
