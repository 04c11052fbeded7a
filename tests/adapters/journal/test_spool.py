"""Tests of the spool folder: bodies are whole or missing, and no other files are left."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from walsyncd.adapters.journal.spool import Spool
from walsyncd.errors import CorruptError, TransientError


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def names(spool: Spool) -> list[str]:
    return sorted(path.name for path in spool.folder.iterdir())


def test_a_body_in_blocks_is_the_whole_body(spool: Spool) -> None:
    """Size, MD5 and SHA-256 are those of all blocks together."""
    with spool.writer() as writer:
        for block in (b"one", b"", b"two"):
            writer.write(block)
        file = writer.finish()
    assert file.path.read_bytes() == b"onetwo"
    assert file.size == 6
    assert file.md5 == hashlib.md5(b"onetwo", usedforsecurity=False).hexdigest()
    assert file.token == hashlib.sha256(b"onetwo").hexdigest()
    assert file.path.stat().st_mode & 0o777 == 0o600


def test_a_body_that_is_given_up_leaves_nothing(spool: Spool) -> None:
    """The reason for leaving without finishing makes no difference."""
    with spool.writer() as writer:
        writer.write(b"x" * 100_000)
    assert names(spool) == []


def test_a_body_is_durable_before_it_has_its_name(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is synced, renamed, and then its folder is synced."""
    steps: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def noted_fsync(descriptor: int) -> None:
        steps.append("fsync")
        fsync(descriptor)

    def noted_rename(path: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    spool.write(b"body")
    assert steps == ["fsync", "rename", "fsync"]


def test_any_part_of_a_body_can_be_read(spool: Spool) -> None:
    """A read has an offset and a length, and is shorter at the end."""
    name = spool.write(b"0123456789").path.name
    assert spool.read(name) == b"0123456789"
    assert spool.read(name, offset=2, length=3) == b"234"
    assert spool.read(name, offset=8, length=5) == b"89"


def test_a_missing_body_is_corruption(spool: Spool) -> None:
    """A row says that the body exists."""
    with pytest.raises(CorruptError, match="gone"):
        spool.read("gone")


def test_a_full_disk_is_transient(spool: Spool) -> None:
    """There may be room later. The error names the place."""
    writer = spool.writer()
    writer._file.close()
    full = os.open("/dev/full", os.O_WRONLY)
    writer._file = os.fdopen(full, "wb", buffering=0)  # type: ignore[assignment]
    with pytest.raises(TransientError, match="No space left"), writer:
        writer.write(b"x")
    assert names(spool) == []


def test_sweeping_keeps_what_is_named(spool: Spool) -> None:
    """Unfinished files and those that no row names are deleted."""
    kept, lost = spool.write(b"kept").path.name, spool.write(b"lost")
    lost.path.with_name("0.part").write_bytes(b"half")
    assert spool.sweep({kept}) == 2
    assert names(spool) == [kept]
    spool.remove([kept, "never there"])
    assert names(spool) == []
