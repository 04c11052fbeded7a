"""Tests of objects that a folder takes in blocks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.core.stored.layout import ID_METADATA
from walsyncd.errors import CorruptError, MissingError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "bucket"


@pytest.fixture
def storage(root: Path) -> DirectoryStorage:
    return DirectoryStorage(root)


def test_blocks_become_one_object(storage: DirectoryStorage, root: Path) -> None:
    """An object of any size is written once, with the same ``walsyncd-id`` as by a PUT."""
    body = os.urandom(300)
    storage.put("a", body, metadata={})
    storage.put_blocks("b", iter([body[:200], body[200:]]), sha256=hashlib.sha256(body).hexdigest())
    storage.put_blocks("c", iter([body]))
    found = [storage.head(key) for key in "abc"]
    assert [storage.get(key) for key in "abc"] == [body] * 3
    assert len({info.metadata[ID_METADATA] for info in found if info is not None}) == 1
    assert list(root.glob(".walsyncd/temporary/*")) == []


def test_blocks_that_are_not_what_they_should_be_are_not_stored(storage: DirectoryStorage, root: Path) -> None:
    """Blocks that can't be read to their end are not stored either. No temporary file is left."""

    def unreadable() -> Iterator[bytes]:
        yield b"first"
        raise MissingError("the rest is gone")

    with pytest.raises(CorruptError, match="changed on disk"):
        storage.put_blocks("a", iter([b"other"]), sha256=hashlib.sha256(b"body").hexdigest())
    with pytest.raises(MissingError, match="the rest is gone"):
        storage.put_blocks("a", unreadable())
    assert list(storage.list("")) == []
    assert list(root.glob(".walsyncd/temporary/*")) == []
