"""Tests of which headers requests carry, where credentials come from, and when they are read again."""

from __future__ import annotations

import base64
import hashlib
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.scripted_store import Answer, ScriptedStore, refusal
from tests.stores import Store
from walsyncd.adapters.storage.interface import StoredPart
from walsyncd.adapters.storage.s3.s3_connection import STORAGE_CLASS_SIZE_MIN
from walsyncd.adapters.storage.s3.s3_storage import S3Storage
from walsyncd.errors import RefusedError, WalsyncdError

KEY = bytes(range(32))
LARGE = b"x" * STORAGE_CLASS_SIZE_MIN
BEGUN = Answer(body=b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
DONE = Answer(body=b"<CompleteMultipartUploadResult><ETag>e-1</ETag></CompleteMultipartUploadResult>")
THERE = Answer(headers={"ETag": '"e"', "Last-Modified": "Sun, 22 Nov 2026 10:00:00 GMT"})


def _every_request(script: ScriptedStore, **settings: object) -> dict[str, dict[str, str]]:
    """Return the headers of one request of each kind, without those that every request has."""
    script.will_say(Answer(), Answer(), BEGUN, Answer(), DONE, THERE, THERE)
    with closing(S3Storage(script.settings(**settings))) as storage:
        storage.put("small", b"x", metadata={})
        storage.put("large", LARGE, metadata={})
        storage.create_upload("base", metadata={})
        storage.upload_part("base", "u", 1, b"x")
        storage.complete_upload("base", "u", [StoredPart(1, 1, "e")])
        storage.get("small")
        storage.head("small")
    kinds = ("small", "large", "begin", "part", "complete", "read", "look")
    wanted = ("x-amz-server-side", "x-amz-storage")
    return {
        kind: {name: value for name, value in request.headers.items() if name.startswith(wanted)}
        for kind, request in zip(kinds, script.requests, strict=True)
    }


def test_nothing_is_said_unasked(script: ScriptedStore) -> None:
    """By default the bucket's own class and encryption apply."""
    assert not any(_every_request(script).values())


def test_the_storage_class_is_for_what_is_large(script: ScriptedStore) -> None:
    """Small objects would be billed as 128 KiB each."""
    seen = _every_request(script, storage_class="STANDARD_IA")
    expected = {"x-amz-storage-class": "STANDARD_IA"}
    assert {kind for kind, headers in seen.items() if headers == expected} == {"large", "begin"}
    assert sum(map(bool, seen.values())) == 2


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"encryption": "sse-s3"}, {"x-amz-server-side-encryption": "AES256"}),
        (
            {"encryption": "sse-kms", "kms_key_id": "k"},
            {
                "x-amz-server-side-encryption": "aws:kms",
                "x-amz-server-side-encryption-aws-kms-key-id": "k",
                "x-amz-server-side-encryption-bucket-key-enabled": "true",
            },
        ),
    ],
)
def test_the_stores_keys_are_named_when_an_object_is_made(
    script: ScriptedStore, settings: dict[str, object], expected: dict[str, str]
) -> None:
    """Requests for parts and reads do not name the key."""
    seen = _every_request(script, **settings)
    assert {kind for kind, headers in seen.items() if headers == expected} == {"small", "large", "begin"}
    assert sum(map(bool, seen.values())) == 3


def test_our_own_key_goes_with_all_that_writes_or_reads_bytes(script: ScriptedStore) -> None:
    """The store does not keep the key."""
    seen = _every_request(script, encryption="sse-c", encryption_key=KEY)
    headers = seen.pop("part")
    assert headers["x-amz-server-side-encryption-customer-algorithm"] == "AES256"
    assert base64.b64decode(headers["x-amz-server-side-encryption-customer-key"]) == KEY
    digest = base64.b64encode(hashlib.md5(KEY).digest()).decode()  # noqa: S324 - what S3 asks for
    assert headers["x-amz-server-side-encryption-customer-key-md5"] == digest
    assert not seen.pop("complete")
    assert all(other == headers for other in seen.values())


@pytest.mark.parametrize(
    "moved",
    [
        Answer(301, refusal(301, "PermanentRedirect").body, {"x-amz-bucket-region": "eu-west-3"}),
        Answer(307, refusal(307, "TemporaryRedirect").body, {"x-amz-bucket-region": "eu-west-3"}),
        Answer(400, b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-3</Region></Error>"),
    ],
)
def test_a_write_follows_to_another_region(script: ScriptedStore, moved: Answer) -> None:
    """The request is signed again for the region that the store names. All later requests use it at once."""
    script.will_say(moved, Answer(), Answer(), THERE)
    with closing(S3Storage(script.settings(region="us-east-1"))) as storage:
        storage.put("a", b"a", metadata={})
        storage.upload_part("b", "u", 1, b"b")
        storage.head("a")
        assert ["eu-west-3" in remark.hint for remark in storage.findings()] == [True]
    regions = [request.headers["authorization"].split("/")[2] for request in script.requests]
    assert regions == ["us-east-1", "eu-west-3", "eu-west-3", "eu-west-3"]
    assert [request.path for request in script.requests[:2]] == ["/b/a", "/b/a"]


def test_a_region_is_followed_once(script: ScriptedStore) -> None:
    """An answer that names no region, or a circle of regions, is reported as it is."""
    there = Answer(301, refusal(301, "PermanentRedirect").body, {"x-amz-bucket-region": "eu-west-3"})
    back = Answer(301, refusal(301, "PermanentRedirect").body, {"x-amz-bucket-region": "us-east-1"})
    bad = Answer(301, refusal(301, "PermanentRedirect").body, {"x-amz-bucket-region": "evil.example.com/"})
    script.will_say(there, back, bad)
    with closing(S3Storage(script.settings(region="us-east-1"))) as storage:
        for _ in range(2):
            with pytest.raises(RefusedError, match=r"PermanentRedirect.*region"):
                storage.put("a", b"a", metadata={})
    assert len(script.requests) == 3


def test_reads_follow_by_themselves(script: ScriptedStore) -> None:
    """boto3 follows the region although its retries are off."""
    body = b"<Error><Code>PermanentRedirect</Code></Error>"
    script.will_say(Answer(301, body, {"x-amz-bucket-region": "eu-west-3"}), Answer(body=b"a"))
    with closing(S3Storage(script.settings(region="us-east-1"))) as storage:
        assert storage.get("a") == b"a"


@pytest.mark.parametrize("code", ["ExpiredToken", "TokenRefreshRequired"])
def test_expired_credentials_are_looked_for_anew(
    script: ScriptedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """After the store reported expired credentials, for a request of any kind, the credentials file is read again."""
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))

    def renew(number: int) -> None:
        file.write_text(f"[default]\naws_access_key_id = key{number}\naws_secret_access_key = s\n")

    renew(1)
    with closing(S3Storage(script.settings(access_key_id=None, secret_access_key=None))) as storage:
        script.will_say(refusal(400, code), Answer(), refusal(400, code), Answer(body=b"a"))
        with pytest.raises(RefusedError, match="expired: renew"):
            storage.put("a", b"a", metadata={})
        renew(2)
        storage.put("a", b"a", metadata={})
        with pytest.raises(RefusedError, match="expired: renew"):
            storage.get("a")
        renew(3)
        storage.get("a")
    keys = [request.headers["authorization"].split("Credential=")[1].split("/")[0] for request in script.requests]
    assert keys == ["key1", "key2", "key2", "key3"]


def test_credentials_of_a_process_are_renewed_before_they_expire(
    script: ScriptedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request is signed with credentials that are valid by the provider's own expiry."""
    counter = tmp_path / "count"
    program = tmp_path / "credentials.sh"
    program.write_text(
        f"#!/bin/sh\necho x >> {counter}\n"
        'printf \'{"Version": 1, "AccessKeyId": "key%s", "SecretAccessKey": "s", "SessionToken": "t",'
        f' "Expiration": "%s"}}\' $(wc -l < {counter}) $(date -u -d "+60 seconds" +%Y-%m-%dT%H:%M:%SZ)\n'
    )
    program.chmod(0o700)
    config = tmp_path / "config"
    config.write_text(f"[default]\ncredential_process = {program}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    script.will_say(Answer(), Answer(body=b"a"))
    with closing(S3Storage(script.settings(access_key_id=None, secret_access_key=None))) as storage:
        storage.put("a", b"a", metadata={})
        storage.get("a")
    first, second = (request.headers["authorization"] for request in script.requests)
    assert "Credential=key" in first
    assert first.split("Credential=")[1].split("/")[0] != second.split("Credential=")[1].split("/")[0]


def test_a_role_is_assumed(moto: Store, script: ScriptedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """All kinds of requests are signed with the role's own credentials."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto.endpoint_url)
    script.will_say(Answer(), Answer(body=b"a"))
    role = "arn:aws:iam::123456789012:role/walsyncd"
    with closing(S3Storage(script.settings(role_arn=role, role_external_id="external"))) as storage:
        assert script.requests == []
        storage.put("a", b"a", metadata={})
        storage.get("a")
    for request in script.requests:
        assert "Credential=ASIA" in request.headers["authorization"]
        assert request.headers["x-amz-security-token"]


def test_a_role_that_is_not_given(script: ScriptedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is about the role, and not about the bucket."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", script.endpoint_url)
    denied = b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>"
    script.will_say(Answer(403, denied))
    role = "arn:aws:iam::123456789012:role/walsyncd"
    with (
        closing(S3Storage(script.settings(role_arn=role))) as storage,
        pytest.raises(RefusedError, match=r"assume the role of \[storage\] role_arn.*let these credentials assume"),
    ):
        storage.put("a", b"a", metadata={})


@pytest.mark.parametrize(
    ("name", "encryption"),
    [("moto", "sse-s3"), ("moto", "sse-kms"), ("moto", "sse-c"), ("seaweedfs", "sse-c"), ("rclone", "sse-s3")],
)
def test_real_stores_encrypt(request: pytest.FixtureRequest, name: str, encryption: str) -> None:
    """Objects, parts and ranges come back as they were.

    Without its key nobody can read an sse-c object (moto allows it).
    """
    store: Store = request.getfixturevalue(name)
    bucket = store.make_bucket()
    key = KEY if encryption == "sse-c" else None
    settings = replace(store.settings(bucket), encryption=encryption, encryption_key=key)  # type: ignore[arg-type]
    with closing(S3Storage(settings)) as storage:
        storage.put("small", b"small", metadata={"walsyncd-id": "1"})
        assert storage.get("small") == b"small"
        assert storage.get("small", first=2, length=2) == b"al"
        info = storage.head("small")
        assert info is not None
        assert (info.size, info.metadata["walsyncd-id"]) == (5, "1")
        upload = storage.create_upload("large", metadata={})
        parts = [
            StoredPart(number, len(body), storage.upload_part("large", upload, number, body))
            for number, body in enumerate((b"a" * (5 << 20), b"b" * 100), start=1)
        ]
        assert {part.number for part in storage.list_parts("large", upload)} == {1, 2}
        storage.complete_upload("large", upload, parts)
        assert storage.get("large", first=(5 << 20) - 2, length=4) == b"aabb"
        assert storage.put_if("owner.json", b"me", etag=None)
        assert [each.key for each in storage.list("")] == ["large", "owner.json", "small"]
    if name == "seaweedfs":
        with closing(S3Storage(store.settings(bucket))) as keyless, pytest.raises(WalsyncdError):
            keyless.get("small")


def test_a_real_store_takes_the_storage_class(moto: Store) -> None:
    """HEAD shows it for large objects, whichever way they were written."""
    bucket = moto.make_bucket()
    with closing(S3Storage(replace(moto.settings(bucket), storage_class="STANDARD_IA"))) as storage:
        storage.put("small", b"x", metadata={})
        storage.put("large", LARGE, metadata={})
        upload = storage.create_upload("base", metadata={})
        part = StoredPart(1, 1, storage.upload_part("base", upload, 1, b"x"))
        storage.complete_upload("base", upload, [part])
    client = moto.client()
    listed = client.list_objects_v2(Bucket=bucket)["Contents"]
    client.close()
    classes = {each["Key"]: each["StorageClass"] for each in listed}
    assert classes == {"small": "STANDARD", "large": "STANDARD_IA", "base": "STANDARD_IA"}
