"""Tests of the disk under the state directory: when it is short of space, and the reserve."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from walsyncd.adapters.journal.state_disk import RESERVE_BYTES, SHORT_BYTES_MAX, StateDisk


@pytest.mark.parametrize(
    ("size", "free", "missing"),
    [
        (1 << 40, 1 << 39, 0),
        (1 << 40, SHORT_BYTES_MAX, 0),
        (1 << 40, 0, SHORT_BYTES_MAX),
        (20 << 20, 1 << 20, 0),
        (20 << 20, 0, 1 << 20),
    ],
)
def test_a_disk_is_short_below_a_share_and_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, free: int, missing: int
) -> None:
    """The limit is a twentieth of a small disk, and 64 MiB of a large one."""
    found = SimpleNamespace(f_blocks=size // 4096, f_bavail=free // 4096, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _path: found)
    assert StateDisk(tmp_path).missing_bytes() == missing


def test_an_unknown_disk_is_not_short(tmp_path: Path) -> None:
    """Nothing is dropped because of a guess."""
    assert StateDisk(tmp_path / "gone").missing_bytes() == 0
    StateDisk(tmp_path / "gone").keep_reserve()


def test_the_reserve_takes_room_until_it_is_given(tmp_path: Path) -> None:
    """The reserve may be taken and given back any number of times."""
    disk, reserve = StateDisk(tmp_path), tmp_path / "reserve"
    for _ in range(2):
        disk.keep_reserve()
        disk.keep_reserve()
        assert reserve.stat().st_blocks * 512 >= RESERVE_BYTES
        disk.give_reserve()
        disk.give_reserve()
        assert not reserve.exists()


def test_a_reserve_that_does_not_fit_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reserve is tried again when there is room."""

    def full(_descriptor: int, _offset: int, _length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        StateDisk(tmp_path).keep_reserve()
    assert list(tmp_path.iterdir()) == []
    StateDisk(tmp_path).keep_reserve()
    assert [path.name for path in tmp_path.iterdir()] == ["reserve"]
