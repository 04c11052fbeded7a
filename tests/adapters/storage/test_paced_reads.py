"""Tests of paced reads: all reading takes its time, and can be stopped at every request."""

from __future__ import annotations

from pathlib import Path

import pytest

from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.adapters.storage.paced_reads import PacedReads


class EndError(Exception):
    """Reading must stop."""


@pytest.fixture
def inner(tmp_path: Path) -> DirectoryStorage:
    storage = DirectoryStorage(tmp_path)
    storage.put("a/one", bytes(1000), metadata={})
    return storage


def test_bytes_take_their_time(inner: DirectoryStorage) -> None:
    """Two reads take as long as both together at the given pace, also if they run at once."""
    waits: list[float] = []
    storage = PacedReads(inner, 100.0, waits.append, lambda: 5.0)
    assert len(storage.get("a/one", length=300)) == 300
    assert sum(map(len, storage.stream("a/one"))) == 1000
    assert [wait for wait in waits if wait] == [3.0, 13.0]


def test_what_is_asked_is_answered(inner: DirectoryStorage) -> None:
    """The storage answers the same, only more slowly."""
    storage = PacedReads(inner, 1e9, lambda _seconds: None)
    found = storage.head("a/one")
    assert (storage.url, storage.folders(""), found and found.size) == (inner.url, ["a"], 1000)
    assert [info.key for info in storage.list("a/")] == ["a/one"]


def test_any_request_can_be_the_last(inner: DirectoryStorage) -> None:
    """An exception from ``pause`` ends any read."""

    def end(_seconds: float) -> None:
        raise EndError

    storage = PacedReads(inner, 1.0, end)
    for ask in (
        lambda: storage.head("a/one"),
        lambda: storage.get("a/one"),
        lambda: list(storage.stream("a/one")),
        lambda: storage.list(""),
        lambda: storage.folders(""),
    ):
        with pytest.raises(EndError):
            ask()
