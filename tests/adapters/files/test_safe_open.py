"""Tests of walsyncd.adapters.files.safe_open: with openat2, and step by step where there is none."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from walsyncd.adapters.files import safe_open
from walsyncd.adapters.files.safe_open import open_folder, open_in

FLIPS = 2000


@pytest.fixture(params=["openat2", "step by step"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Try both ways: a kernel without openat2 has its own answer, and so has a sandbox."""
    if request.param != "openat2":
        codes = [errno.ENOSYS, errno.EPERM]

        def refuse(_folder: Path | str, _flags: int) -> int:
            codes.append(codes.pop(0))
            raise OSError(codes[0], os.strerror(codes[0]))

        monkeypatch.setattr(safe_open, "_openat2", refuse)
    return str(request.param)


def read(path: Path) -> bytes:
    with open_folder(path.parent) as folder:
        descriptor = open_in(folder, path.name)
    try:
        return os.read(descriptor, 100)
    finally:
        os.close(descriptor)


def _descriptors() -> set[str]:
    return {each.name for each in Path("/proc/self/fd").iterdir()}


def failure(path: Path) -> str:
    try:
        read(path)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


@pytest.mark.usefixtures("way")
def test_files_are_opened_by_their_folder(tmp_path: Path) -> None:
    """Files are opened at any depth, and a missing file is reported as missing."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(b"x")
    assert read(tmp_path / "a" / "b" / "file") == b"x"
    assert failure(tmp_path / "a" / "b" / "other") == "ENOENT"
    assert failure(tmp_path / "nothing" / "b" / "file") == "ENOENT"
    assert failure(tmp_path / "a" / "b" / "file" / "below") == "ENOTDIR"


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("link", ["first", "first/second", "first/second/file"])
def test_no_link_is_followed_at_any_place_of_the_path(tmp_path: Path, link: str) -> None:
    """A link is refused wherever it is, and whatever it leads to."""
    place = tmp_path / link
    place.parent.mkdir(parents=True, exist_ok=True)
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "second").mkdir(parents=True)
    (elsewhere / "second" / "file").touch()
    (elsewhere / "file").touch()
    place.symlink_to(elsewhere / "file" if link.endswith("file") else elsewhere)
    assert failure(tmp_path / "first" / "second" / "file") == "ELOOP"


@pytest.mark.usefixtures("way")
def test_no_descriptor_is_left(tmp_path: Path) -> None:
    """No descriptor stays open after a success or a failure."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").touch()
    (tmp_path / "link").symlink_to("a")
    before = _descriptors()
    for path in ("a/file", "a/none", "none/file", "link/file", "a/file/below"):
        failure(tmp_path / path)
    assert _descriptors() == before


@pytest.mark.usefixtures("way")
def test_a_race_is_never_won(tmp_path: Path) -> None:
    """A process exchanges a folder, and the file in it, for links to a secret as fast as it can."""
    folder, file = tmp_path / "tenant", tmp_path / "tenant" / "data"
    secret = tmp_path / "secret"
    (secret / "tenant").mkdir(parents=True)
    (secret / "tenant" / "data").write_bytes(b"secret")
    folder.mkdir()
    file.write_bytes(b"public")
    stopping = threading.Event()

    def exchange() -> None:
        other, aside = tmp_path / "other", tmp_path / "aside"
        while not stopping.is_set():
            other.symlink_to(secret / "tenant")
            folder.rename(aside)
            other.rename(folder)
            folder.unlink()
            aside.rename(folder)
            link = folder / "link"
            link.symlink_to(secret / "tenant" / "data")
            link.rename(file)
            file.unlink()
            file.write_bytes(b"public")

    thread = threading.Thread(target=exchange)
    thread.start()
    answers = set()
    try:
        for _ in range(FLIPS):
            with suppress(OSError):
                answers.add(read(file))
    finally:
        stopping.set()
        thread.join()
    assert b"secret" not in answers
