"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pytest

from walsyncd.adapters.files.durable_file import copy_whole, make_folders, publish, reading, write_temporary, writing
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.errors import ImpossibleError, MissingError, RefusedError, TransientError, WalsyncdError


def _write(body: bytes, file: BinaryIO) -> None:
    file.write(body)


def test_write_and_publish(tmp_path: Path) -> None:
    """A temporary file becomes the target, whose folders are made, and replaces what was there."""
    target = tmp_path / "a/b/c"
    for body in (b"first", b"second"):
        publish(write_temporary(tmp_path / "tmp", partial(_write, body)), target)
        assert target.read_bytes() == body
    assert list((tmp_path / "tmp").iterdir()) == []


def test_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """What could not be written whole is removed."""

    def fill(file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_temporary(tmp_path / "tmp", fill)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_publish_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """A target that can't be: the temporary file is removed, and what is in the way stays."""
    (tmp_path / "file").write_bytes(b"other")
    temporary = write_temporary(tmp_path / "tmp", lambda file: file.write(b"x"))
    with pytest.raises(NotADirectoryError):
        publish(temporary, tmp_path / "file/x")
    assert not temporary.exists()
    assert (tmp_path / "file").read_bytes() == b"other"


def test_publish_makes_a_folder_that_vanished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that another removes between its making and the rename is made again."""
    rename = Path.rename
    left = [3]

    def late_rename(path: Path, target: Path) -> Path:
        if left[0]:
            left[0] -= 1
            target.parent.rmdir()
        return rename(path, target)

    temporary = write_temporary(tmp_path / "tmp", lambda file: file.write(b"x"))
    monkeypatch.setattr(Path, "rename", late_rename)
    publish(temporary, tmp_path / "db/x")
    assert (tmp_path / "db/x").read_bytes() == b"x"


def test_make_folders_over_a_file(tmp_path: Path) -> None:
    """Where a file is in the way nothing is made."""
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        make_folders(tmp_path / "file/a/b")


def test_copy_whole(tmp_path: Path) -> None:
    """Files are appended one after the other, empty ones too."""
    for name, body in (("1", b"one"), ("2", b""), ("3", b"x" * 3_000_000)):
        (tmp_path / name).write_bytes(body)
    with (tmp_path / "joined").open("xb") as joined:
        for name in "123":
            copy_whole(tmp_path / name, joined)
    assert (tmp_path / "joined").read_bytes() == b"one" + b"x" * 3_000_000


@pytest.mark.parametrize(
    ("code", "read", "written"),
    [
        (errno.ENOENT, MissingError, MissingError),
        (errno.ENOTDIR, MissingError, ImpossibleError),
        (errno.EISDIR, MissingError, ImpossibleError),
        (errno.EACCES, RefusedError, RefusedError),
        (errno.EXDEV, RefusedError, RefusedError),
        (errno.ENAMETOOLONG, ImpossibleError, ImpossibleError),
        (errno.ENOSPC, TransientError, TransientError),
        (errno.ESTALE, TransientError, TransientError),
    ],
)
def test_translation(code: int, read: type[WalsyncdError], written: type[WalsyncdError]) -> None:
    """Each errno has its class, which for conflicts of file and folder depends on the direction."""
    with pytest.raises(read, match=r"^read object /a: "), reading("read object", Path("/a")):
        raise OSError(code, os.strerror(code))
    with pytest.raises(written, match=r"^write object /a: "), writing("write object", Path("/a")):
        raise OSError(code, os.strerror(code))


def test_nothing_else_is_caught() -> None:
    """Our own mistakes are not the system's: they pass."""
    with pytest.raises(ValueError, match="bug"), writing("write", Path("/a")):
        raise ValueError("bug")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_makes_belongs_to_the_folders_owner(tmp_path: Path) -> None:
    """An administrator's command does not lock the daemon's user out of its storage."""
    os.chown(tmp_path, 65534, 65534)
    target = tmp_path / "a" / "b"
    publish(write_temporary(tmp_path / "tmp", partial(_write, b"x")), target)
    assert {path.stat().st_uid for path in (target, target.parent, tmp_path / "tmp")} == {65534}
    storage = DirectoryStorage(tmp_path)
    assert storage.put_if("owner.json", b"{}", etag=None)
    assert {path.stat().st_uid for path in tmp_path.rglob("*")} == {65534}
