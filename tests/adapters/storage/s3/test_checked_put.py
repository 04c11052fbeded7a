"""Tests that x-amz-checksum is sent to a store that verifies it, and to no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from tests.scripted_store import Answer, ScriptedStore, refusal
from tests.stores import Store
from walsyncd.adapters.storage.interface import StoredPart
from walsyncd.adapters.storage.s3 import checked_put
from walsyncd.adapters.storage.s3.checked_put import CHECKSUM_HEADER, checksum, wrong_checksum
from walsyncd.adapters.storage.s3.s3_storage import S3Storage
from walsyncd.errors import RefusedError, TransientError

RIGHT, WRONG = checksum(b"mine"), wrong_checksum(b"mine")
ABSENT, THERE = Answer(404), Answer(body=b"mine")
WRITTEN = Answer(headers={"ETag": '"e1"'})
BAD_DIGEST = refusal(400, "BadDigest")
PART_SIZE = 5 << 20


@pytest.fixture
def storage(script: ScriptedStore) -> Iterator[S3Storage]:
    with closing(S3Storage(script.settings())) as storage:
        yield storage


def sent(script: ScriptedStore) -> list[str | None]:
    """Return the checksums of the PUTs since the last call."""
    found = [request.headers.get(CHECKSUM_HEADER) for request in script.requests if request.method == "PUT"]
    script.requests.clear()
    return found


def verify(script: ScriptedStore, storage: S3Storage) -> None:
    """Make the store refuse a wrong checksum and accept the right one."""
    script.will_say(ABSENT, BAD_DIGEST, WRITTEN, THERE, WRITTEN)  # this store does not honour conditions
    assert storage.put_if("owner.json", b"mine", etag=None)
    assert sent(script) == [WRONG, RIGHT, RIGHT]


def test_a_store_that_refuses_the_wrong_one_gets_one_with_every_body(script: ScriptedStore, storage: S3Storage) -> None:
    """One good and one bad PUT find this out, once in a run, before any object. A later owner.json takes one PUT."""
    script.will_say(WRITTEN)
    storage.put("a", b"mine", metadata={})
    assert sent(script) == [None]
    verify(script, storage)
    script.will_say(WRITTEN, WRITTEN, ABSENT, WRITTEN, THERE)
    storage.put("a", b"mine", metadata={})
    storage.upload_part("a", "u", 1, b"mine")
    assert storage.put_if("owner.json", b"mine", etag=None)
    assert sent(script) == [RIGHT, RIGHT, RIGHT]


def test_a_store_that_takes_the_wrong_one_gets_none(script: ScriptedStore, storage: S3Storage) -> None:
    """Some stores keep the object with its wrong checksum. If the object is still the same, it is written again."""
    script.will_say(ABSENT, WRITTEN, WRITTEN, THERE, WRITTEN, WRITTEN)
    assert storage.put_if("owner.json", b"mine", etag=None)
    assert [request.headers.get("if-match") for request in script.requests] == [None, None, '"e1"', None, None]
    storage.put("a", b"mine", metadata={})
    assert sent(script) == [WRONG, None, None, None]


def test_a_store_that_knows_none_gets_none(script: ScriptedStore, storage: S3Storage) -> None:
    """A store that knows no checksums refuses the wrong and the right one alike."""
    unknown = refusal(400, "InvalidArgument", "Unsupported header")
    script.will_say(ABSENT, unknown, unknown, WRITTEN, THERE, WRITTEN, WRITTEN)
    assert storage.put_if("owner.json", b"mine", etag=None)
    storage.put("a", b"mine", metadata={})
    assert sent(script) == [WRONG, RIGHT, None, None, None]


@pytest.mark.parametrize("answer", [refusal(412, "PreconditionFailed"), refusal(503, "SlowDown"), refusal(403, "No")])
def test_what_says_nothing_of_checksums_is_no_probe(script: ScriptedStore, storage: S3Storage, answer: Answer) -> None:
    """After a lost race, an outage or a refusal, the next request is the probe."""
    script.will_say(ABSENT, answer)
    if answer.status == 412:
        assert not storage.put_if("owner.json", b"mine", etag=None)
    else:
        with pytest.raises((TransientError, RefusedError)):
            storage.put_if("owner.json", b"mine", etag=None)
    assert sent(script) == [WRONG]
    verify(script, storage)


def test_a_part_for_which_it_is_refused_goes_without(script: ScriptedStore, storage: S3Storage) -> None:
    """AWS refuses a part's checksum if the upload did not begin with one. Objects keep theirs."""
    verify(script, storage)
    script.will_say(refusal(400, "InvalidRequest", "Checksum Type mismatch occurred"), WRITTEN, WRITTEN, WRITTEN)
    assert storage.upload_part("a", "u", 1, b"mine") == "e1"
    storage.upload_part("a", "u", 2, b"mine")
    storage.put("a", b"mine", metadata={})
    assert sent(script) == [RIGHT, None, None, RIGHT]


def test_parts_of_an_upload_that_is_refused_go_without_the_next_time(script: ScriptedStore, storage: S3Storage) -> None:
    """The store may want all checksums again when the upload is completed."""
    verify(script, storage)
    script.will_say(refusal(400, "InvalidRequest"), WRITTEN)
    with pytest.raises(RefusedError):
        storage.complete_upload("a", "u", [StoredPart(1, 4, "e1")])
    storage.upload_part("a", "u", 1, b"mine")
    assert sent(script) == [None]


def test_a_body_that_was_damaged_is_no_reason_to_send_none(script: ScriptedStore, storage: S3Storage) -> None:
    """Checksums exist to find this."""
    verify(script, storage)
    script.will_say(BAD_DIGEST, WRITTEN)
    with pytest.raises(TransientError, match="damaged"):
        storage.put("a", b"mine", metadata={})
    storage.put("a", b"mine", metadata={})
    assert sent(script) == [RIGHT, RIGHT]


@pytest.mark.parametrize(("name", "verifies"), [("seaweedfs", True), ("rclone", False), ("moto", False)])
def test_real_stores(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, name: str, *, verifies: bool
) -> None:
    """Objects and uploads arrive at every store, and one that verifies checksums notices a wrong one."""
    store: Store = request.getfixturevalue(name)
    with closing(S3Storage(store.settings(store.make_bucket()))) as storage:
        assert storage.put_if("db/owner.json", b"one", etag=None)
        found = storage.head("db/owner.json")
        assert found is not None
        assert storage.put_if("db/owner.json", b"two", etag=found.etag)
        assert storage.get("db/owner.json") == b"two"
        assert storage._put.verified is verifies
        storage.put("db/a", b"mine", metadata={"walsyncd-id": "t"})
        upload = storage.create_upload("db/b", metadata={"walsyncd-id": "t"})
        bodies = (bytes(PART_SIZE), b"rest")
        parts = [
            StoredPart(number, len(body), storage.upload_part("db/b", upload, number, body))
            for number, body in enumerate(bodies, 1)
        ]
        storage.complete_upload("db/b", upload, parts)
        assert storage.get("db/b") == b"".join(bodies)
        monkeypatch.setattr(checked_put, "checksum", wrong_checksum)
        upload = storage.create_upload("db/c", metadata={})
        writes: list[Callable[[], object]] = [
            lambda: storage.put("db/c", b"mine", metadata={}),
            lambda: storage.upload_part("db/c", upload, 1, b"mine"),
        ]
        for write in writes:
            if verifies:
                with pytest.raises(TransientError, match="damaged"):
                    write()
            else:
                write()
