"""Tests of the notes beside objects, which somebody else may have changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from walsyncd.adapters.storage.folder_notes import NOTE_BYTES_MAX, FolderNotes
from walsyncd.adapters.storage.folder_tree import FolderTree
from walsyncd.errors import CorruptError, MissingError

UPLOAD = {"key": "app/x", "initiated_ms": 5, "metadata": {"a": "b"}}


def notes(tmp_path: Path) -> FolderNotes:
    return FolderNotes(FolderTree(tmp_path), tmp_path)


def test_an_upload(tmp_path: Path) -> None:
    """Key, time and metadata are read back as they were noted."""
    (tmp_path / "note").write_text(json.dumps(UPLOAD))
    found = notes(tmp_path).upload("note")
    assert (found.key, found.initiated_ms, found.metadata) == ("app/x", 5, {"a": "b"})
    with pytest.raises(MissingError):
        notes(tmp_path).upload("absent")


@pytest.mark.parametrize("wrong", [{"key": 1}, {"initiated_ms": "5"}, {"metadata": []}, {"metadata": {"a": 1}}])
def test_a_field_of_another_type(tmp_path: Path, wrong: dict[str, object]) -> None:
    """The type of each field is checked."""
    (tmp_path / "note").write_text(json.dumps({**UPLOAD, **wrong}))
    with pytest.raises(CorruptError, match="describes no upload"):
        notes(tmp_path).upload("note")


def test_no_more_is_read_than_a_note_can_have(tmp_path: Path) -> None:
    """A sparse file of a terabyte is refused at once."""
    with (tmp_path / "note").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(CorruptError, match=f"longer than {NOTE_BYTES_MAX}"):
        notes(tmp_path).upload("note")


def test_metadata_of_another_file(tmp_path: Path) -> None:
    """Metadata counts only with the object's own ETag, and only if all keys and values are texts."""
    for metadata, etag, expected in (({"a": "b"}, "e", {"a": "b"}), ({"a": "b"}, "f", None), ({"a": 1}, "e", None)):
        (tmp_path / "note").write_text(json.dumps({"etag": etag, "metadata": metadata}))
        assert notes(tmp_path).metadata("note", "e") == expected
