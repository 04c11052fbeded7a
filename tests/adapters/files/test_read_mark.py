"""Tests of walsyncd.adapters.files.read_mark."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from walsyncd.adapters.files.file_lock import lock_bytes, lock_in_the_way
from walsyncd.adapters.files.read_mark import lock_mark, unlock_mark
from walsyncd.adapters.files.source import open_file


def test_the_byte_of_the_mark_is_shared(tmp_path: Path) -> None:
    """Byte 127 is mark 4.

    No process can lock it exclusively until the mark is released, at the latest by closing the file.
    """
    path = tmp_path / "app.db-shm"
    path.write_bytes(bytes(200))
    other = os.open(path, os.O_RDWR)
    ours = open_file(path)
    assert ours is not None
    try:
        assert lock_mark(ours, 4)
        assert lock_in_the_way(other, fcntl.F_WRLCK, 127, 1)[0] == fcntl.F_RDLCK
        assert lock_in_the_way(other, fcntl.F_WRLCK, 120, 7)[0] == fcntl.F_UNLCK
        unlock_mark(ours, 4)
        assert lock_bytes(other, fcntl.F_WRLCK, 127, 1)
        assert not lock_mark(ours, 4)
        assert lock_mark(ours, 2)
        ours.close()
        assert lock_in_the_way(other, fcntl.F_WRLCK, 120, 7)[0] == fcntl.F_UNLCK
    finally:
        ours.close()
        os.close(other)


@pytest.mark.parametrize("mark", [0, 1, 5])
def test_the_others_are_not_ours(tmp_path: Path, mark: int) -> None:
    """A lock on another byte could stop the application's checkpoints."""
    path = tmp_path / "app.db-shm"
    path.write_bytes(bytes(200))
    ours = open_file(path)
    assert ours is not None
    with ours, pytest.raises(AssertionError):
        lock_mark(ours, mark)
