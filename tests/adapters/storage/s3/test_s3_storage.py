"""Tests of what only S3 has: what is sent, and what each refusal means."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from tests.scripted_store import HANG, HANG_UP, Answer, ScriptedStore, refusal
from tests.stores import Store, free_ports
from walsyncd.adapters.storage.interface import StoredPart
from walsyncd.adapters.storage.s3 import signed_put
from walsyncd.adapters.storage.s3.s3_settings import S3Settings
from walsyncd.adapters.storage.s3.s3_storage import DELETE_BATCH_MAX, S3Storage
from walsyncd.errors import (
    CorruptError,
    ImpossibleError,
    MissingError,
    RefusedError,
    TransientError,
    UsageError,
    WalsyncdError,
)

PART = StoredPart(1, 4, "0" * 32)


@pytest.fixture
def storage(script: ScriptedStore) -> Iterator[S3Storage]:
    """Return bucket ``b``, prefix ``root``, of the scripted store."""
    with closing(S3Storage(script.settings(prefix="root"))) as storage:
        yield storage


def md5(body: bytes) -> str:
    """Return the MD5 as the Content-MD5 header has it."""
    return base64.b64encode(hashlib.md5(body).digest()).decode()  # noqa: S324 - what S3 asks for


def test_put_is_one_plain_request(script: ScriptedStore, storage: S3Storage) -> None:
    """A PUT is one request: signed, with Content-MD5, without Expect: 100-continue, without x-amz-checksum."""
    script.will_say(Answer(headers={"ETag": '"e1"'}))
    assert storage.put("db/a b.zst", b"body", metadata={"walsyncd-id": "t"}) == "e1"
    (request,) = script.requests
    assert (request.method, request.path, request.body) == ("PUT", "/b/root/db/a%20b.zst", b"body")
    assert request.headers["content-md5"] == md5(b"body")
    assert request.headers["x-amz-meta-walsyncd-id"] == "t"
    assert "/eu-central-1/s3/aws4_request" in request.headers["authorization"]
    assert "expect" not in request.headers
    assert not [name for name in request.headers if name.startswith(("x-amz-checksum", "x-amz-sdk"))]


def test_bodies_of_other_requests_are_protected_too(script: ScriptedStore, storage: S3Storage) -> None:
    """Complete, DeleteObjects and parts carry Content-MD5 and no x-amz-checksum either."""
    done = b"<CompleteMultipartUploadResult><ETag>&quot;e-1&quot;</ETag></CompleteMultipartUploadResult>"
    script.will_say(Answer(), Answer(body=done), Answer(body=b"<DeleteResult/>"))
    storage.upload_part("base", "u", 7, b"part")
    assert storage.complete_upload("base", "u", [PART]) == "e-1"
    storage.delete(["base", "segment"])
    part, complete, delete = script.requests
    assert part.path == "/b/root/base?partNumber=7&uploadId=u"
    assert f'<ETag>"{PART.etag}"</ETag>' in complete.body.decode().replace("&quot;", '"')
    for request in (part, complete, delete):
        assert request.headers["content-md5"] == md5(request.body)
        assert "expect" not in request.headers
        assert not [name for name in request.headers if name.startswith("x-amz-checksum")]


def test_damaged_body_is_refused_by_the_store(seaweedfs: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that does not fit its Content-MD5 is refused by the store, and sent again later."""
    with closing(S3Storage(seaweedfs.settings(seaweedfs.make_bucket()))) as storage:
        monkeypatch.setattr(signed_put, "content_md5", lambda _: md5(b"another body"))
        with pytest.raises(TransientError, match="damaged on the way"):
            storage.put("a", b"body", metadata={})
        upload = storage.create_upload("b", metadata={})
        with pytest.raises(TransientError, match="damaged on the way"):
            storage.upload_part("b", upload, 1, b"body")
        assert storage.head("a") is None


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (refusal(404, "NoSuchBucket"), RefusedError, "bucket b does not exist .*create the bucket"),
        (refusal(403, "AccessDenied"), RefusedError, "allow these credentials"),
        (refusal(403, "SignatureDoesNotMatch"), RefusedError, "secret key is wrong"),
        (refusal(403, "InvalidAccessKeyId"), RefusedError, "does not know this access key"),
        (refusal(403, "RequestTimeTooSkewed"), RefusedError, "clock"),
        (refusal(301, "PermanentRedirect"), RefusedError, "region"),
        (refusal(400, "SomethingNew"), RefusedError, "400 SomethingNew: because"),
        (refusal(400, "EntityTooLarge"), ImpossibleError, "this size"),
        (refusal(400, "KeyTooLongError"), ImpossibleError, "shorter name"),
        (Answer(413, b"<html>too large</html>"), ImpossibleError, "413"),
        (refusal(503, "SlowDown"), TransientError, "503 SlowDown: because"),
        (refusal(500, "InternalError"), TransientError, "500 InternalError"),
        (refusal(409, "OperationAborted"), TransientError, "OperationAborted"),
        (Answer(429), TransientError, "429"),
        (Answer(502, b"<html>bad gateway</html>"), TransientError, "502"),
        (HANG_UP, TransientError, "closed"),
    ],
)
def test_what_a_refused_write_means(
    script: ScriptedStore, storage: S3Storage, answer: Answer, kind: type[WalsyncdError], words: str
) -> None:
    """Each refusal has its class; the message names operation, key, endpoint, code and the way out."""
    script.will_say(answer)
    with pytest.raises(kind, match=words) as caught:
        storage.put("db/1", b"body", metadata={})
    assert f"write object s3://b/root/db/1 at {script.endpoint_url}: " in str(caught.value)
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [("InternalError", TransientError), ("InvalidPart", CorruptError), ("NoSuchUpload", MissingError)],
)
def test_complete_that_fails_after_its_ok(
    script: ScriptedStore, storage: S3Storage, code: str, kind: type[WalsyncdError]
) -> None:
    """A Complete that answers 200 with an error in its body has failed, and is of that error's class."""
    script.will_say(Answer(200, refusal(200, code).body))
    with pytest.raises(kind, match=code):
        storage.complete_upload("base", "u", [PART])
    assert len(script.requests) == 1


def test_retries_are_not_its_own(script: ScriptedStore, storage: S3Storage) -> None:
    """A read that fails is tried once, because the caller decides how long to try."""
    script.will_say(refusal(503, "SlowDown"))
    with pytest.raises(TransientError, match="SlowDown"):
        storage.get("db/1")
    assert len(script.requests) == 1


def test_read_that_breaks_off(script: ScriptedStore, storage: S3Storage) -> None:
    """A body that ends early is never taken for the object."""
    short = Answer(200, b"x" * 5000, {"ETag": '"e"'}, cut=3000)
    script.will_say(short, short)
    with pytest.raises(TransientError, match="read object s3://b/root/db/1"):
        storage.get("db/1")
    with pytest.raises(TransientError, match="read object s3://b/root/db/1"):
        list(storage.stream("db/1"))


def test_store_that_does_not_answer(script: ScriptedStore) -> None:
    """A store that takes a request and does not answer is unreachable after the time-out, for reads and writes."""
    with closing(S3Storage(script.settings(timeout_s=0.2))) as storage:
        script.will_say(HANG, HANG)
        with pytest.raises(TransientError, match=r"write object s3://b/a .*timeout"):
            storage.put("a", b"", metadata={})
        with pytest.raises(TransientError, match=r"read object s3://b/a .*timeout"):
            storage.get("a")


def test_nobody_listens() -> None:
    """Where no store runs the message says that the connection was refused, and where to look."""
    (port,) = free_ports(1)
    settings = S3Settings(
        bucket="b",
        endpoint_url=f"http://127.0.0.1:{port}",
        access_key_id="k",
        secret_access_key="s",  # noqa: S106
    )
    with closing(S3Storage(settings)) as storage:
        for call in (lambda: storage.put("a", b"", metadata={}), lambda: list(storage.list(""))):
            with pytest.raises(TransientError, match=r"connection refused.*endpoint_url"):
                call()


def test_not_an_s3_store(script: ScriptedStore, storage: S3Storage) -> None:
    """A web page is not a listing. It does not count as an empty bucket."""
    script.will_say(Answer(200, b"<html><p>welcome</p></html>"), Answer(200, b"<html></html>"))
    with pytest.raises(TransientError, match="check that an S3 store runs there"):
        list(storage.list(""))
    with pytest.raises(TransientError, match="check that an S3 store runs there"):
        storage.folders("")


def test_no_credentials(script: ScriptedStore) -> None:
    """Without credentials no request is made, and the hint names the keys to set."""
    settings = script.settings(access_key_id=None, secret_access_key=None)
    with closing(S3Storage(settings)) as storage:
        for call in (lambda: storage.put("a", b"", metadata={}), lambda: storage.get("a")):
            with pytest.raises(RefusedError, match=r"credentials.*access_key_id"):
                call()
    assert script.requests == []


@pytest.mark.parametrize(
    "changes",
    [{"endpoint_url": "127.0.0.1:9000"}, {"profile": "nobody"}, {"secret_access_key": None}, {"bucket": "a b"}],
    ids=["endpoint without scheme", "unknown profile", "half the credentials", "no bucket's name"],
)
def test_settings_that_cannot_be_right(script: ScriptedStore, changes: dict[str, object]) -> None:
    """Settings with which no request could be made are a usage error at once."""
    with pytest.raises(UsageError, match=r"correct \[storage\]"):
        S3Storage(script.settings(**changes))


def test_secrets_are_not_shown(script: ScriptedStore) -> None:
    """Settings can be logged: they do not show the secret."""
    assert "secret'" not in repr(script.settings(session_token="secret"))  # noqa: S106


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"secret_access_key": "wrong"}, "SignatureDoesNotMatch"),
        ({"access_key_id": "wrong"}, "InvalidAccessKeyId"),
        ({"bucket": "absent"}, "does not exist"),
    ],
)
def test_refusals_of_a_real_store(seaweedfs: Store, changes: dict[str, str], code: str) -> None:
    """Wrong keys and an absent bucket are named by a real store as we expect, for reads and writes."""
    settings = replace(seaweedfs.settings(seaweedfs.make_bucket()), **changes)  # type: ignore[arg-type]
    with closing(S3Storage(settings)) as storage:
        for call in (lambda: storage.put("a", b"", metadata={}), lambda: list(storage.list(""))):
            with pytest.raises(RefusedError, match=code):
                call()


def test_bucket_without_prefix(moto: Store) -> None:
    """The root can be the bucket itself."""
    bucket = moto.make_bucket()
    with closing(S3Storage(moto.settings(bucket))) as storage:
        assert storage.url == f"s3://{bucket}"
        storage.put("a/b", b"", metadata={})
        assert [info.key for info in storage.list("")] == ["a/b"]
        assert storage.folders("") == ["a"]


def test_delete_without_batches(script: ScriptedStore, storage: S3Storage) -> None:
    """If the store does not know DeleteObjects, objects are deleted one by one, and no batch is tried again."""
    script.will_say(refusal(501, "NotImplemented"), Answer(204), refusal(404, "NoSuchKey"), Answer(204))
    storage.delete(["a", "b"])
    storage.delete(["c"])
    asked = [(request.method, request.path) for request in script.requests]
    assert asked[1:] == [("DELETE", "/b/root/a"), ("DELETE", "/b/root/b"), ("DELETE", "/b/root/c")]


def test_delete_where_a_batch_is_not_understood(script: ScriptedStore, storage: S3Storage) -> None:
    """If the store calls a batch malformed, its objects are deleted one by one.

    Expired credentials do not cause this.
    """
    script.will_say(refusal(400, "MalformedXML"), Answer(204), Answer(204), Answer(body=b"<DeleteResult/>"))
    storage.delete(["a", "b"])
    storage.delete(["c", "d"])
    assert [request.method for request in script.requests] == ["POST", "DELETE", "DELETE", "POST"]
    script.will_say(refusal(400, "ExpiredToken"))
    with pytest.raises(RefusedError, match="ExpiredToken"):
        storage.delete(["e", "f"])


def test_a_single_object_is_deleted_by_itself(script: ScriptedStore, storage: S3Storage) -> None:
    """What a batch has kept, whatever the batch answered, can be deleted one by one."""
    script.will_say(Answer(204))
    storage.delete(["a"])
    assert [(request.method, request.path) for request in script.requests] == [("DELETE", "/b/root/a")]


def test_delete_in_batches(script: ScriptedStore, storage: S3Storage) -> None:
    """A batch has at most a thousand keys."""
    script.will_say(Answer(body=b"<DeleteResult/>"), Answer(body=b"<DeleteResult/>"))
    storage.delete([f"k{number}" for number in range(DELETE_BATCH_MAX + 2)])
    assert [request.body.count(b"<Key>") for request in script.requests] == [DELETE_BATCH_MAX, 2]


def test_delete_that_is_refused_in_part(script: ScriptedStore, storage: S3Storage) -> None:
    """An object that the store keeps is named. One that no longer exists is not."""
    errors = "".join(
        f"<Error><Key>root/{key}</Key><Code>{code}</Code></Error>"
        for key, code in (("a", "NoSuchKey"), ("b", "AccessDenied"))
    )
    script.will_say(Answer(body=f"<DeleteResult>{errors}</DeleteResult>".encode()))
    with pytest.raises(RefusedError, match=r"delete object s3://b/root/b .*AccessDenied"):
        storage.delete(["a", "b", "c"])


@pytest.mark.parametrize(("kept", "won"), [(b"mine", True), (b"theirs", False)])
def test_put_if_where_conditions_are_unknown(script: ScriptedStore, storage: S3Storage, kept: bytes, won: bool) -> None:
    """If the store answers conditions with 501, the object is written without one and read back.

    Checksums are not tried.
    """
    unknown = refusal(501, "NotImplemented")
    script.will_say(Answer(404), unknown, unknown, unknown, Answer(), Answer(body=kept))
    assert storage.put_if("owner.json", b"mine", etag=None) is won
    conditions = [request.headers.get("if-none-match") for request in script.requests]
    assert conditions == [None, "*", "*", "*", None, None]
    assert "x-amz-checksum-crc32" not in script.requests[-2].headers


def test_put_if_names_the_version(script: ScriptedStore, storage: S3Storage) -> None:
    """The condition names the version that was seen.

    If another version came in between, the answer is no. An unclear race is an error.
    """
    seen = Answer(headers={"ETag": '"e1"', "Last-Modified": "Sun, 22 Nov 2026 10:00:00 GMT"})
    script.will_say(seen, refusal(412, "PreconditionFailed"))
    assert not storage.put_if("owner.json", b"mine", etag="e1")
    assert script.requests[1].headers["if-match"] == '"e1"'
    script.will_say(seen, refusal(404, "NoSuchKey"))
    assert not storage.put_if("owner.json", b"mine", etag="e1")
    script.will_say(seen)
    assert not storage.put_if("owner.json", b"mine", etag="e0")
    script.will_say(seen, refusal(409, "ConditionalRequestConflict"))
    with pytest.raises(TransientError, match="under way"):
        storage.put_if("owner.json", b"mine", etag="e1")


def test_clock(script: ScriptedStore, storage: S3Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's clock is the Date of its last answer, good or bad, and continues from there."""
    machine_ns = [5_000_000_000]
    monkeypatch.setattr(time, "clock_gettime_ns", lambda _: machine_ns[0])
    assert storage.clock_ms() is None
    script.will_say(Answer(headers={"Date": "Sun, 22 Nov 2026 10:00:00 GMT"}))
    storage.put("a", b"", metadata={})
    assert storage.clock_ms() == 1_795_341_600_000
    machine_ns[0] += 1_500_000_000
    assert storage.clock_ms() == 1_795_341_601_500
    script.will_say(Answer(404, headers={"Date": "Sun, 22 Nov 2026 11:00:00 GMT"}))
    assert storage.head("a") is None
    assert storage.clock_ms() == 1_795_345_200_000
    for odd in ("yesterday", "Sun, 22 Nov 99999999999 10:00:00 GMT", "Sun, 22 Nov 2026 10:00:00 +99999999999999999999"):
        script.will_say(Answer(headers={"Date": odd}))
        storage.put("a", b"", metadata={})
        assert storage.clock_ms() == 1_795_345_200_000


def test_list_parses_what_stores_send(script: ScriptedStore, storage: S3Storage) -> None:
    """Keys are decoded as their encoding says, times with and without fractions understood."""
    script.will_say(
        Answer(
            body=b"<ListBucketResult><IsTruncated>false</IsTruncated><EncodingType>url</EncodingType>"
            b"<Contents><Key>root/a%2Bb+c</Key><LastModified>2026-11-22T10:00:00.123456789Z</LastModified>"
            b"<ETag>&quot;e&quot;</ETag><Size>3</Size></Contents>"
            b"<Contents><Key>root/d</Key><LastModified>2026-11-22T10:00:00Z</LastModified>"
            b"<Size>4</Size></Contents></ListBucketResult>"
        )
    )
    first, second = storage.list("")
    assert (first.key, first.size, first.etag, first.modified_ms) == ("a+b c", 3, "e", 1_795_341_600_123)
    assert (second.key, second.size, second.etag, second.modified_ms) == ("d", 4, "", 1_795_341_600_000)
