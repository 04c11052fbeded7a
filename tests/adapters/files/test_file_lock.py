"""Tests of locks of an open file description: others see them, and closing another descriptor keeps them."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from walsyncd.adapters.files.file_lock import OFD_PID, has_ofd_locks, lock_bytes, lock_in_the_way


@pytest.fixture
def descriptors(tmp_path: Path) -> Iterator[tuple[int, int]]:
    path = tmp_path / "file"
    path.touch()
    pair = os.open(path, os.O_RDWR), os.open(path, os.O_RDWR)
    yield pair
    for descriptor in pair:
        os.close(descriptor)


def test_lock_is_in_the_way_of_another_descriptor(descriptors: tuple[int, int]) -> None:
    """A lock conflicts only with overlapping ranges, and until it is released. The holder of such a lock has no pid."""
    one, other = descriptors
    assert lock_bytes(one, fcntl.F_WRLCK, 100, 10)
    assert not lock_bytes(other, fcntl.F_RDLCK, 109, 1)
    assert lock_bytes(other, fcntl.F_RDLCK, 110, 1)
    assert lock_in_the_way(other, fcntl.F_RDLCK, 100, 10) == (fcntl.F_WRLCK, OFD_PID)
    assert lock_bytes(one, fcntl.F_UNLCK, 100, 10)
    assert lock_in_the_way(other, fcntl.F_RDLCK, 100, 10) == (fcntl.F_UNLCK, 0)


def test_lock_outlives_other_descriptors_of_the_file(tmp_path: Path, descriptors: tuple[int, int]) -> None:
    """The lock stays when another descriptor of the file is closed. A POSIX lock would not."""
    one, other = descriptors
    assert lock_bytes(one, fcntl.F_RDLCK, 0, 1)
    os.close(os.open(tmp_path / "file", os.O_RDONLY))
    assert not lock_bytes(other, fcntl.F_WRLCK, 0, 1)


def test_what_is_no_conflict_is_raised(tmp_path: Path) -> None:
    """A descriptor that may not write can't get a writer's lock, which is an error and no conflict."""
    path = tmp_path / "file"
    path.touch()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="Bad file") as caught:
            lock_bytes(descriptor, fcntl.F_WRLCK, 0, 1)
        assert caught.value.errno == errno.EBADF
    finally:
        os.close(descriptor)


def test_a_kernel_without_such_locks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a kernel refuses the question as invalid. Other errors do not mean that."""
    assert has_ofd_locks()

    def refuse(number: int) -> None:
        def fail(*_arguments: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "fcntl", fail)

    refuse(errno.EINVAL)
    assert not has_ofd_locks()
    refuse(errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        has_ofd_locks()
