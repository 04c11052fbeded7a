"""Tests of what is counted. Answers stay as they are."""

from __future__ import annotations

import inspect

import pytest

from tests.fakes import Call, FakeStorage
from walsyncd.adapters.storage.counting_storage import CountingStorage, Requests
from walsyncd.adapters.storage.interface import Storage, StoredPart, confirmed
from walsyncd.errors import MissingError, RefusedError, TransientError


def test_every_request_is_counted_under_its_own_name() -> None:
    """Each method of Storage is one kind, and its answer is passed on."""
    requests, inner = Requests(), FakeStorage()
    storage: Storage = CountingStorage(inner, requests)
    assert storage.url == inner.url
    storage.put("a/1", b"one", metadata={})
    assert storage.put_if("a/2", b"two", etag=None)
    assert storage.get("a/1") == b"".join(storage.stream("a/1")) == b"one"
    assert storage.head("a/3") is None
    assert confirmed(storage, "a/1") == inner.head("a/1")
    assert requests.counts()["head", "ok"] == 2
    assert [info.key for info in storage.list("a/")] == ["a/1", "a/2"]
    assert storage.folders("") == ["a"]
    upload = storage.create_upload("a/3", metadata={})
    etag = storage.upload_part("a/3", upload, 1, b"three")
    assert storage.list_parts("a/3", upload) == [StoredPart(1, 5, etag)]
    assert len(storage.list_uploads("a/")) == 1
    storage.complete_upload("a/3", upload, [StoredPart(1, 5, etag)])
    storage.abort_upload("a/3", upload)
    storage.delete(["a/3"])
    assert storage.clock_ms() is None
    asked = {name for name, _ in inspect.getmembers(Storage, inspect.isfunction) if not name.startswith("_")}
    assert {kind for kind, _ in requests.counts()} == asked - {"clock_ms"}
    assert {result for _, result in requests.counts()} == {"ok"}
    assert requests.silent_s() < 60


@pytest.mark.parametrize(
    ("error", "result"),
    [(TransientError("away"), "away"), (RefusedError("no"), "refused"), (MissingError("absent"), "failed")],
)
def test_failures_are_told_apart(error: Exception, result: str) -> None:
    """Unreachable, refused, and answered with no are counted apart. An unreachable storage has not answered."""
    requests, inner = Requests(), FakeStorage()

    def fail(_call: Call) -> None:
        raise error

    inner.before = fail
    with pytest.raises(type(error)):
        CountingStorage(inner, requests).get("a")
    assert requests.counts() == {("get", result): 1}
    assert (requests.silent_s() < 60) == (result == "failed")


def test_every_answer_is_told_and_no_silence() -> None:
    """A refusal is reported, too, because it has the store's time."""
    answers: list[int] = []
    inner = FakeStorage()
    storage = CountingStorage(inner, Requests(Requests(answered=lambda: answers.append(1))))
    storage.put("a", b"", metadata={})
    errors = iter([TransientError("away"), RefusedError("no"), MissingError("absent")])

    def fail(_call: Call) -> None:
        raise next(errors)

    inner.before = fail
    for count, error in ((1, TransientError), (2, RefusedError), (3, MissingError)):
        with pytest.raises(error):
            storage.get("a")
        assert len(answers) == count
