"""Tests of files below a folder: they are whole or missing, and no link is followed."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from walsyncd.adapters.files.open_folder import OpenFolder
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.adapters.storage.folder_tree import FolderTree, copy_whole


@pytest.fixture(params=["as root", "as anybody else"])
def tree(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FolderTree:
    """Return a tree. What root creates takes other system calls, because it gets another owner."""
    monkeypatch.setattr(os, "geteuid", {"as root": lambda: 0, "as anybody else": lambda: 12345}[request.param])
    return FolderTree(tmp_path / "root")


def _write(body: bytes, file: BinaryIO) -> None:
    file.write(body)


def test_write_and_publish(tree: FolderTree, tmp_path: Path) -> None:
    """A temporary file replaces the target, whose folders are created."""
    target = tmp_path / "root/a/b/c"
    for body in (b"first", b"second"):
        tree.publish(tree.write("tmp", partial(_write, body)), "a/b/c")
        assert target.read_bytes() == body
    assert list((tmp_path / "root/tmp").iterdir()) == []


def test_in_the_root_itself(tree: FolderTree, tmp_path: Path) -> None:
    """The root is a folder like any other."""
    tree.publish(tree.write("", partial(_write, b"x")), "name")
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["name"]


def test_write_that_fails_leaves_nothing(tree: FolderTree, tmp_path: Path) -> None:
    """A file that could not be written whole is removed."""

    def fill(file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        tree.write("tmp", fill)
    assert list((tmp_path / "root/tmp").iterdir()) == []


def test_publish_that_fails_leaves_nothing(tree: FolderTree, tmp_path: Path) -> None:
    """If the target is impossible, the temporary file is removed, and what blocks it stays."""
    tree.publish(tree.write("tmp", partial(_write, b"other")), "file")
    with pytest.raises(NotADirectoryError):
        tree.publish(tree.write("tmp", partial(_write, b"x")), "file/x")
    assert list((tmp_path / "root/tmp").iterdir()) == []
    assert (tmp_path / "root/file").read_bytes() == b"other"


def test_publish_makes_a_folder_that_vanished(
    tree: FolderTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another process removes a folder between its creation and the rename, it is created again."""
    rename = os.rename
    left = [3]

    def late_rename(old: str, new: str, **folders: Any) -> None:
        if left[0]:
            left[0] -= 1
            (tmp_path / "root/db").rmdir()
        rename(old, new, **folders)

    temporary = tree.write("tmp", partial(_write, b"x"))
    monkeypatch.setattr(os, "rename", late_rename)
    tree.publish(temporary, "db/x")
    assert (tmp_path / "root/db/x").read_bytes() == b"x"


def test_put_in_one_step(tree: FolderTree, tmp_path: Path) -> None:
    """A file appears whole, in folders that are created, and may replace another one."""
    target = tmp_path / "root/a/b/c"
    for body in (b"first", b"", b"x" * 3_000_000):
        status = tree.put("tmp", body, "a/b/c")
        assert status is not None
        assert (status.st_ino, status.st_mtime_ns, status.st_size) == (
            target.stat().st_ino,
            target.stat().st_mtime_ns,
            len(body),
        )
        assert target.read_bytes() == body
    assert list((tmp_path / "root/tmp").iterdir()) == []
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_put_that_may_not_replace_changes_nothing(tree: FolderTree, tmp_path: Path) -> None:
    """The error has the folder and the name."""
    asked = []

    @contextmanager
    def refuse(folder: OpenFolder, name: str) -> Iterator[bool]:
        asked.append((folder.path.name, name))
        yield False

    tree.put("tmp", b"first", "a/b")
    assert tree.put("tmp", b"second", "a/b", may_replace=refuse) is None
    assert asked == [("a", "b")]
    assert (tmp_path / "root/a/b").read_bytes() == b"first"
    assert list((tmp_path / "root/tmp").iterdir()) == []


def test_put_makes_a_folder_that_vanished(tree: FolderTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If another process removes a folder between its creation and the rename, it is created again, up to a limit."""
    rename, left = os.rename, [3]

    def late_rename(old: str, new: str, **folders: Any) -> None:
        if left[0]:
            left[0] -= 1
            (tmp_path / "root/db").rmdir()
        rename(old, new, **folders)

    monkeypatch.setattr(os, "rename", late_rename)
    tree.put("tmp", b"x", "db/x")
    assert (tmp_path / "root/db/x").read_bytes() == b"x"
    (tmp_path / "root/db/x").unlink()
    left[0] = 1000
    with pytest.raises(FileNotFoundError):
        tree.put("tmp", b"x", "db/x")
    assert list((tmp_path / "root/tmp").iterdir()) == []


def test_copy_whole(tmp_path: Path) -> None:
    """Files are appended one after the other, empty ones too."""
    for name, body in (("1", b"one"), ("2", b""), ("3", b"x" * 3_000_000)):
        (tmp_path / name).write_bytes(body)
    with (tmp_path / "joined").open("xb") as joined:
        for name in "123":
            with (tmp_path / name).open("rb") as source:
                copy_whole(source, joined)
    assert (tmp_path / "joined").read_bytes() == b"one" + b"x" * 3_000_000


def test_no_link_is_followed(tree: FolderTree, tmp_path: Path) -> None:
    """A link is followed neither as the file, nor as its folder, nor on the way. What it leads to stays as it is."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"secret")
    tree.publish(tree.write("tmp", partial(_write, b"ours")), "a/b/ours")
    (tmp_path / "root/a/link").symlink_to(outside / "file")
    (tmp_path / "root/a/folder").symlink_to(outside)
    for name in ("a/link", "a/folder/file"):
        with pytest.raises(OSError) as caught, tree.open(name):  # noqa: PT011
            pass
        assert caught.value.errno == errno.ELOOP
    for change in (
        lambda: tree.unlink("a/folder/file"),
        lambda: tree.rename("a/folder/file", "a/b/stolen"),
        lambda: tree.publish(tree.write("tmp", partial(_write, b"x")), "a/folder/file"),
        lambda: tree.publish(tree.write("tmp", partial(_write, b"x")), "a/folder/new/file"),
        lambda: tree.write("a/folder", partial(_write, b"x")),
        lambda: tree.put("tmp", b"x", "a/folder/file"),
        lambda: tree.put("tmp", b"x", "a/folder/new/file"),
        lambda: tree.put("a/folder", b"x", "a/b/file"),
    ):
        with pytest.raises(OSError) as caught:  # noqa: PT011
            change()
        assert caught.value.errno == errno.ELOOP
    tree.publish(tree.write("tmp", partial(_write, b"x")), "a/link")  # the link itself is replaced
    assert (tmp_path / "root/a/link").read_bytes() == b"x"
    assert [(path.name, path.read_bytes()) for path in outside.iterdir()] == [("file", b"secret")]


def test_what_is_no_file_is_not_opened(tree: FolderTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A FIFO, a socket and a device have no content for us, and nobody waits for their other end."""
    tree.publish(tree.write("tmp", partial(_write, b"x")), "a/file")
    os.mkfifo(tmp_path / "root/a/fifo")
    (tmp_path / "root/a/zero").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(tmp_path / "root/a")  # the path of a socket has at most 108 bytes
        listener.bind("socket")
        for name in ("fifo", "zero", "socket"):
            with pytest.raises(OSError) as caught, tree.open(f"a/{name}"):  # noqa: PT011
                pass
            assert caught.value.errno in {errno.EINVAL, errno.ELOOP}


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_makes_belongs_to_the_folders_owner(tmp_path: Path) -> None:
    """Otherwise an administrator's command would lock the daemon's user out of its storage."""
    root = tmp_path / "root"
    root.mkdir()
    os.chown(root, 65534, 65534)
    tree = FolderTree(root)
    tree.publish(tree.write("tmp", partial(_write, b"x")), "a/b")
    tree.put("tmp", b"x", "c/d/e")
    tree.put("tmp", b"x", "a/f")
    storage = DirectoryStorage(root)
    assert storage.put_if("owner.json", b"{}", etag=None)
    assert {path.stat().st_uid for path in root.rglob("*")} == {65534}


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_makes_below_its_own_folder_of_another_group_is_that_groups(tmp_path: Path) -> None:
    """Files in a folder that everybody may write to stay root's."""
    (root := tmp_path / "root").mkdir()
    os.chown(root, 0, 65534)
    FolderTree(root).put("tmp", b"x", "a/b/c")
    assert {(path.stat().st_uid, path.stat().st_gid) for path in root.rglob("*")} == {(0, 65534)}
    (shared := tmp_path / "shared").mkdir()
    shared.chmod(0o1777)
    os.chown(shared, 65534, 65534)
    FolderTree(shared).put("tmp", b"x", "a/b/c")
    assert {(path.stat().st_uid, path.stat().st_gid) for path in shared.rglob("*")} == {(0, os.getegid())}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (shared / "a", shared / "tmp")} == {0o700}
