"""Tests that only the owner and the group can see what walsyncd keeps."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from walsyncd.adapters.files.private_modes import folder_of_url, keep_private, tighten
from walsyncd.adapters.journal.journal import Journal, lock_state_dir
from walsyncd.adapters.storage.directory import DirectoryStorage


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> object:
    """Set each umask that an administrator may have."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes_below(root: Path) -> dict[str, int]:
    return {str(path.relative_to(root)): stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*")}


@pytest.mark.usefixtures("umask")
def test_objects_and_their_folders_are_private_whatever_the_umask(tmp_path: Path) -> None:
    """Modes are at most 0640 and 0750."""
    storage = DirectoryStorage(tmp_path / "replica")
    storage.put("app/owner.json", b"{}", metadata={})
    upload_id = storage.create_upload("app/large", metadata={"walsyncd-id": "x"})
    etag = storage.upload_part("app/large", upload_id, 1, b"part")
    parts = storage.list_parts("app/large", upload_id)
    assert [part.etag for part in parts] == [etag]
    storage.complete_upload("app/large", upload_id, list(parts))
    modes = modes_below(tmp_path)
    assert {name: oct(mode) for name, mode in modes.items() if mode & 0o027} == {}


@pytest.mark.usefixtures("umask")
def test_the_state_directory_is_private_whatever_the_umask(tmp_path: Path) -> None:
    """The journal with its side files, the lock and the spool are private."""
    state = tmp_path / "state"
    with lock_state_dir(state), Journal.open(state) as journal:
        journal.database("app", "/srv/app.db")
        modes = {".": stat.S_IMODE(state.stat().st_mode), **modes_below(state)}
    assert {name: oct(mode) for name, mode in modes.items() if mode & 0o027} == {}


def test_what_an_older_version_left_is_tightened(tmp_path: Path) -> None:
    """The next start tightens the state directory, and ``tighten`` objects. The rights of owner and group stay."""
    state, before = tmp_path / "state", os.umask(0o022)
    try:
        (state / "spool").mkdir(parents=True)
        (state / "spool" / "body").write_bytes(b"rows")
        Journal.open(state).close()
        for path in [state, *state.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        Journal.open(state).close()
    finally:
        os.umask(before)
    assert {name: oct(mode) for name, mode in modes_below(state).items() if mode & 0o007} == {}
    assert stat.S_IMODE(state.stat().st_mode) == 0o750


def test_tightening_follows_no_link_and_says_how_many_it_changed(tmp_path: Path) -> None:
    """Files elsewhere keep their mode. A second call has nothing to change."""
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    (outside / "file").write_bytes(b"")
    for path in (outside, outside / "file"):
        path.chmod(0o755)
    root = tmp_path / "root"
    (root / "deep").mkdir(parents=True)
    (root / "deep" / "object").write_bytes(b"")
    (root / "link").symlink_to(outside / "file")
    (root / "folder").symlink_to(outside)
    os.mkfifo(root / "fifo")
    for path in (root, root / "deep", root / "deep" / "object"):
        path.chmod(0o757)
    assert tighten(root) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in (root, root / "deep", root / "deep" / "object")} == {0o750}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (outside, outside / "file")} == {0o755}
    assert tighten(root) == 0
    assert tighten(tmp_path / "absent") == 0


def test_a_process_can_give_up_making_public_files(tmp_path: Path) -> None:
    """A stricter umask stays as it is."""
    before = os.umask(0o022)
    try:
        keep_private()
        (tmp_path / "file").write_bytes(b"")
        os.umask(0o077)
        keep_private()
        (tmp_path / "strict").write_bytes(b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "strict").stat().st_mode) == 0o600


def test_the_folder_of_a_url() -> None:
    """Only a ``file:

    `` URL has a folder.
    """
    assert folder_of_url("file:///srv/my%20replica") == Path("/srv/my replica")
    assert folder_of_url("s3://bucket/prefix") is None
