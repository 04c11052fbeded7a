"""A guard for tests whose daemon or follower runs in their own process: SQLite must open its databases elsewhere.

A process that closes any descriptor of a file drops all POSIX locks that it holds on the file (fcntl(2)). The daemon
reads the files of a database and closes them, so a connection in the same process loses SQLite's locks at moments of
the daemon's choice: a wal-index then seems unused, and a test fails once in a hundred runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_followed: list[str] = []  # patterns of paths, each as often as something follows it


@contextmanager
def followed_here(*patterns: str) -> Iterator[None]:
    """While the block runs, this process may not have one of these databases (paths or patterns) open with SQLite."""
    names = [pattern + side for pattern in patterns for side in ("", "-wal", "-shm", "-journal")]
    open_now = [path for path in _open_for_writing() if any(fnmatch(path, name) for name in names)]
    assert not open_now, f"open in this process, which is about to follow it: {open_now}; use SqliteProcess"
    _followed.extend(patterns)
    try:
        yield
    finally:
        for pattern in patterns:
            _followed.remove(pattern)


def _open_for_writing() -> list[str]:
    """Return which files are open for writing, as SQLite opens them.

    A follower, perhaps of an earlier test, only reads.
    """
    paths = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the descriptor by which the folder is listed
            info = Path("/proc/self/fdinfo", descriptor.name).read_text(encoding="ascii")
            flags = next(line for line in info.splitlines() if line.startswith("flags:"))
            if int(flags.split()[1], 8) & os.O_ACCMODE == os.O_RDWR:
                paths.append(str(descriptor.readlink()))
    return paths


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "sqlite3.connect" or not _followed:
        return
    path = str(arguments[0])
    if path.startswith("file:"):
        path = unquote(urlsplit(path).path)
    if any(fnmatch(path, pattern) for pattern in _followed):
        raise AssertionError(f"{path} is followed by this process: use SqliteProcess")


sys.addaudithook(_refuse)
