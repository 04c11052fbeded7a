"""Tests of walsyncd.adapters.files.statx."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from walsyncd.adapters.files import statx


def test_birth_time_outlives_changes(tmp_path: Path) -> None:
    """The birth time is that of the file's creation, whatever is written to the file or set on it later."""
    path = tmp_path / "a"
    path.touch()
    born = path.stat().st_ctime_ns
    with path.open("r+b") as file:
        birth = statx.birth_ns(file.fileno())
        if birth is None:
            pytest.skip("the file system keeps no birth times")
        file.write(b"x")
        os.utime(path, ns=(0, 0))
        assert statx.birth_ns(file.fileno()) == birth
    assert birth <= born


def test_birth_time_is_unknown_without_statx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the C library has no statx there is no birth time, and no error."""
    monkeypatch.setattr(statx, "_statx", None)
    with (tmp_path / "a").open("wb") as file:
        assert statx.birth_ns(file.fileno()) is None


def test_birth_time_of_a_closed_descriptor_is_unknown() -> None:
    """A failing call gives None."""
    assert statx.birth_ns(-1) is None
