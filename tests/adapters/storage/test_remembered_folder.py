"""Tests that a storage folder that existed once and is missing now counts as unreachable, not as empty."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.adapters.storage.remembered_folder import RememberedFolder
from walsyncd.errors import TransientError


def _folder(tmp_path: Path, memory: Path | None = None) -> RememberedFolder:
    return RememberedFolder(tmp_path / "replica", tmp_path / "replica/.walsyncd", memory)


def test_a_new_folder_may_be_missing(tmp_path: Path) -> None:
    """Before anything was written there, nothing is remembered."""
    folder = _folder(tmp_path, tmp_path / "state" / "folders")
    folder.require()
    (tmp_path / "replica").mkdir()
    folder.require()
    assert not (tmp_path / "state").exists()


def test_a_folder_that_was_seen_must_stay(tmp_path: Path) -> None:
    """A mount point without its disk is an empty folder. The message says what to do."""
    folder = _folder(tmp_path)
    (tmp_path / "replica/.walsyncd").mkdir(parents=True)
    folder.require()
    (tmp_path / "replica/.walsyncd").rmdir()
    with pytest.raises(TransientError, match=r"is away.*mount its disk.*mkdir -p .*/replica/.walsyncd"):
        folder.require()
    (tmp_path / "replica/.walsyncd").mkdir()
    folder.require()


def test_the_next_run_remembers(tmp_path: Path) -> None:
    """Each folder is remembered by its path, however odd that is. Another folder is a new one."""
    memory = tmp_path / "folders"
    for name in ("a", "b\nc", "a"):
        mark = tmp_path / name / ".walsyncd"
        mark.mkdir(parents=True, exist_ok=True)
        RememberedFolder(mark.parent, mark, memory).require()
    assert len(memory.read_text().splitlines()) == 2
    for name in ("a", "b\nc"):
        shutil.rmtree(tmp_path / name)
        with pytest.raises(TransientError, match="is away"):
            RememberedFolder(tmp_path / name, tmp_path / name / ".walsyncd", memory).require()
    RememberedFolder(tmp_path / "b", tmp_path / "b/.walsyncd", memory).require()


def test_nothing_is_read_from_nor_made_in_a_folder_that_is_away(tmp_path: Path) -> None:
    """Each operation of the storage reports that the folder is away. When the folder is back, all is as it was."""
    root, elsewhere = tmp_path / "replica", tmp_path / "elsewhere"
    storage = DirectoryStorage(root, tmp_path / "folders")
    storage.put("db/a", b"a", metadata={})
    upload = storage.create_upload("db/b", metadata={})
    root.rename(elsewhere)
    root.mkdir()
    for another in (storage, DirectoryStorage(root, tmp_path / "folders")):
        for call in (
            lambda: another.put("db/c", b"c", metadata={}),  # noqa: B023 - called at once
            lambda: another.put_if("db/c", b"c", etag=None),  # noqa: B023
            lambda: another.get("db/a"),  # noqa: B023
            lambda: another.head("db/a"),  # noqa: B023
            lambda: list(another.list("db/")),  # noqa: B023
            lambda: another.folders(""),  # noqa: B023
            lambda: another.list_uploads(""),  # noqa: B023
            lambda: another.delete(["db/a"]),  # noqa: B023
            lambda: another.abort_upload("db/b", upload),  # noqa: B023
            lambda: another.create_upload("db/c", metadata={}),  # noqa: B023
        ):
            with pytest.raises(TransientError, match="is away"):
                call()
    assert list(root.iterdir()) == []
    root.rmdir()
    elsewhere.rename(root)
    assert storage.get("db/a") == b"a"
    assert [open_.upload_id for open_ in storage.list_uploads("")] == [upload]


@pytest.mark.parametrize("call", ["stat", "fstat"])
def test_status_of_a_folder_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """The status of a network folder can fail at each step.

    Then the folder counts as away, and no descriptor stays open.
    """
    storage = DirectoryStorage(tmp_path / "replica")
    storage.put("app/seen", b"", metadata={})
    real, left = getattr(os, call), 0

    def status(*arguments: Any, **options: Any) -> object:
        nonlocal left
        left -= 1
        if left == 0:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real(*arguments, **options)

    failed = 0
    while True:
        descriptors, left = len(list(Path("/proc/self/fd").iterdir())), failed + 1
        with monkeypatch.context() as patch:
            patch.setattr(os, call, status)
            try:
                storage.put_if(f"app/{failed}/owner.json", b"x", etag=None)
                break
            except TransientError:
                failed += 1
        assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    assert failed > 1, "each status failed once"
