"""Tests of how the operating system's errors are translated."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from walsyncd.adapters.files.durable_file import reading, writing
from walsyncd.errors import ImpossibleError, MissingError, RefusedError, TransientError, WalsyncdError


@pytest.mark.parametrize(
    ("code", "read", "written"),
    [
        (errno.ENOENT, MissingError, MissingError),
        (errno.ENOTDIR, MissingError, ImpossibleError),
        (errno.EISDIR, MissingError, ImpossibleError),
        (errno.EACCES, RefusedError, RefusedError),
        (errno.EXDEV, RefusedError, RefusedError),
        (errno.ELOOP, RefusedError, RefusedError),
        (errno.ENAMETOOLONG, ImpossibleError, ImpossibleError),
        (errno.ENOSPC, TransientError, TransientError),
        (errno.ESTALE, TransientError, TransientError),
    ],
)
def test_translation(code: int, read: type[WalsyncdError], written: type[WalsyncdError]) -> None:
    """Each errno has its class.

    For conflicts of file and folder the class depends on whether the call reads or writes.
    """
    with pytest.raises(read, match=r"^read object /a: "), reading("read object", Path("/a")):
        raise OSError(code, os.strerror(code))
    with pytest.raises(written, match=r"^write object /a: "), writing("write object", Path("/a")):
        raise OSError(code, os.strerror(code))


def test_nothing_else_is_caught() -> None:
    """An exception from a fault in our own code is not translated."""
    with pytest.raises(ValueError, match="bug"), writing("write", Path("/a")):
        raise ValueError("bug")
