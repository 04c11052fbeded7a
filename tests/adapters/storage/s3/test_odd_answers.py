"""Tests of answers that are not S3's, or false: reading them is limited, and nothing is guessed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from tests.scripted_store import Answer, ScriptedStore
from walsyncd.adapters.storage.s3.s3_storage import BODY_BYTES_MAX, S3Storage
from walsyncd.errors import CorruptError, TransientError


@pytest.fixture
def storage(script: ScriptedStore) -> Iterator[S3Storage]:
    """Return bucket ``b``, prefix ``root``, of the scripted store."""
    with closing(S3Storage(script.settings(prefix="root"))) as storage:
        yield storage


def test_an_answer_that_is_longer_than_any_of_s3(script: ScriptedStore, storage: S3Storage) -> None:
    """Neither such a list nor such an error is kept in memory."""
    body = b"<x>" + b"x" * (17 << 20)
    script.will_say(Answer(200, body), Answer(500, body))
    for read in (lambda: list(storage.list("")), lambda: storage.get("k")):
        with pytest.raises(TransientError, match="the answer is longer than 16 MiB"):
            read()


def test_no_more_is_read_than_was_asked_for(script: ScriptedStore, storage: S3Storage) -> None:
    """For a store that ignores ranges, the beginning is read, and a later range is an error."""
    script.will_say(Answer(200, b"0123456789"), Answer(206, b"234"), Answer(200, b"0123456789"))
    assert storage.get("k", length=4) == b"0123"
    assert storage.get("k", first=2, length=3) == b"234"
    with pytest.raises(TransientError, match="the store ignores which part was asked for"):
        storage.get("k", first=2, length=3)


def test_an_object_that_is_read_whole_has_a_limit(script: ScriptedStore, storage: S3Storage) -> None:
    """Objects that may be larger are streamed."""
    body = bytes(BODY_BYTES_MAX)
    script.will_say(Answer(200, body + b"x"), Answer(200, body))
    with pytest.raises(CorruptError, match=r"k at .*: it is longer than"):
        storage.get("k")
    assert len(storage.get("k")) == BODY_BYTES_MAX


@pytest.mark.parametrize(
    ("body", "call"),
    [
        (
            b"<List><IsTruncated>false</IsTruncated><Contents><Key>k</Key></Contents></List>",
            "list",
        ),
        (b"<InitiateMultipartUploadResult></InitiateMultipartUploadResult>", "create_upload"),
        (b"<ListPartsResult><Part><Size>many</Size></Part></ListPartsResult>", "list_parts"),
        (b"<ListMultipartUploadsResult><Upload><Key>k</Key></Upload></ListMultipartUploadsResult>", "list_uploads"),
    ],
)
def test_an_answer_without_what_must_be_in_it(
    script: ScriptedStore, storage: S3Storage, body: bytes, call: str
) -> None:
    """The answer is not S3's, and nothing is derived from it."""
    calls: dict[str, Callable[[], object]] = {
        "list": lambda: list(storage.list("")),
        "create_upload": lambda: storage.create_upload("k", metadata={}),
        "list_parts": lambda: storage.list_parts("k", "u"),
        "list_uploads": lambda: storage.list_uploads("k"),
    }
    script.will_say(Answer(200, body, {"Content-Type": "application/xml"}))
    with pytest.raises(TransientError, match="the answer is not S3's"):
        calls[call]()
