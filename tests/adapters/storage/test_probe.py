"""Tests of what the check of a storage says when it fails, and which remedy it gives."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from email.utils import formatdate
from pathlib import Path

import pytest

from tests.scripted_store import Answer, ScriptedStore, refusal
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.adapters.storage.probe import probe
from walsyncd.adapters.storage.remark import Remark
from walsyncd.adapters.storage.s3.s3_storage import S3Storage

DENIED = refusal(403, "AccessDenied")
LISTING = Answer(body=b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
THERE = Answer(headers={"ETag": '"e"', "Last-Modified": "Sun, 22 Nov 2026 10:00:00 GMT"})


def _probe(script: ScriptedStore, *answers: Answer) -> Mapping[str, Remark]:
    script.will_say(*answers)
    with closing(S3Storage(script.settings())) as storage:
        return {remark.step: remark for remark in probe(storage)}


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """The check reports that the storage can't be written, and nothing more."""
    (tmp_path / "file").touch()
    (said,) = probe(DirectoryStorage(tmp_path / "file" / "replica"))
    assert said.step == "write"
    assert str(tmp_path / "file/replica") in said.text


@pytest.mark.parametrize(
    ("answer", "text", "hint"),
    [
        (refusal(404, "NoSuchBucket"), "bucket b does not exist", "create the bucket or correct [storage] url"),
        (refusal(403, "InvalidAccessKeyId"), "InvalidAccessKeyId", "does not know this access key"),
        (refusal(403, "SignatureDoesNotMatch"), "SignatureDoesNotMatch", "the secret key is wrong"),
        (DENIED, "AccessDenied", "allow these credentials s3:PutObject"),
        (refusal(301, "PermanentRedirect"), "PermanentRedirect", "region"),
        (refusal(403, "RequestTimeTooSkewed"), "RequestTimeTooSkewed", "clock"),
        (refusal(400, "InvalidStorageClass"), "InvalidStorageClass", "storage_class"),
        (refusal(400, "KMS.NotFoundException"), "KMS.NotFoundException", "kms_key_id"),
        (refusal(501, "NotImplemented"), "NotImplemented", "storage_class and encryption"),
    ],
)
def test_a_refused_write_has_its_remedy(script: ScriptedStore, answer: Answer, text: str, hint: str) -> None:
    """Nothing else is tried. The line has the store's answer, and what to change."""
    said = _probe(script, answer)
    assert list(said) == ["write"]
    assert text in said["write"].text
    assert hint in said["write"].hint
    assert len(script.requests) == 1


def test_each_permission_that_is_missing_is_named(script: ScriptedStore) -> None:
    """With credentials that may only write, each missing permission has its own finding."""
    said = _probe(script, Answer(), Answer(403), DENIED, DENIED, DENIED)
    assert list(said) == ["read", "list", "upload", "delete"]
    assert "s3:ListBucket" in said["list"].hint
    assert "s3:PutObject" in said["upload"].hint
    assert "s3:DeleteObject" in said["delete"].hint


def test_an_upload_is_given_up_whatever_went_wrong_in_it(script: ScriptedStore) -> None:
    """A store that refuses to list parts keeps no part of ours."""
    begun = Answer(body=b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
    answers = (Answer(), Answer(403), DENIED, begun, Answer(), DENIED, Answer(204), DENIED)
    said = _probe(script, *answers)
    assert "s3:ListMultipartUploadParts" in said["upload"].hint
    assert [request.method for request in script.requests[-2:]] == ["DELETE", "DELETE"]
    assert "uploadId=u" in script.requests[-2].path


def test_nothing_is_believed(script: ScriptedStore) -> None:
    """A store that answers yes and does nothing is found out."""
    said = _probe(script, Answer(), THERE, LISTING, DENIED, Answer(body=b"<DeleteResult/>"), THERE)
    assert list(said) == ["read", "list", "upload", "delete"]
    assert "said yes" in said["read"].text
    assert "said yes" in said["list"].text
    assert "said yes" in said["delete"].text


@pytest.mark.parametrize(("ahead_s", "words"), [(-3600, "3600 s behind"), (600, "600 s ahead of")])
def test_a_clock_that_is_off(script: ScriptedStore, ahead_s: int, words: str) -> None:
    """The store's Date reveals a wrong clock before the store refuses anything."""
    now_s = 1_795_341_600.0
    date = formatdate(now_s - ahead_s, usegmt=True)
    script.will_say(Answer(403, headers={"Date": date}))
    with closing(S3Storage(script.settings())) as storage:
        said = probe(storage, lambda: now_s)
    assert said[-1].step == "clock"
    assert words in said[-1].text
    assert said[-1].is_problem


def test_a_clock_that_is_right(script: ScriptedStore) -> None:
    """A difference of a few seconds is not reported."""
    date = formatdate(time.time() - 5, usegmt=True)
    assert list(_probe(script, Answer(403, headers={"Date": date}))) == ["write"]


def test_another_region_is_a_note(script: ScriptedStore) -> None:
    """Another region works, since the store names it.

    With that region in the configuration there is one request less.
    """
    moved = Answer(301, refusal(301, "PermanentRedirect").body, {"x-amz-bucket-region": "eu-west-3"})
    said = _probe(script, moved, DENIED)
    assert not said["region"].is_problem
    assert 'region = "eu-west-3"' in said["region"].hint
    assert "/eu-west-3/s3/" in script.requests[1].headers["authorization"]


def test_where_nothing_is_ever_deleted_the_check_does_not_try(tmp_path: Path) -> None:
    """With ``delete = false`` write-only keys are enough.

    The check's object stays until the lifecycle rule deletes it.
    """
    assert probe(DirectoryStorage(tmp_path / "replica"), deletes=False) == []
    assert len(list((tmp_path / "replica").glob(".walsyncd-check-*"))) == 1
