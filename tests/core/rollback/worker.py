"""Runs SQL in a process of its own, saves each rollback journal before SQLite deletes it, and dies where it is told to.

SQLite's own table of system calls is changed (``xSetSystemCall``), so nothing has to be compiled. One line of JSON asks
for the statements of one connection; the answer is a line with an error for each statement that failed.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)
_UNLINK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, use_errno=True)
_WRITE = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, use_errno=True)
_PWRITE = ctypes.CFUNCTYPE(
    ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64, use_errno=True
)
_SET = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)


class Calls:
    """The functions that SQLite calls instead of unlink and write."""

    def __init__(self, journal: str, saved: Path) -> None:
        self._journal = journal.encode()
        self._saved = saved
        self.writes_left: int | None = None
        self.kept: tuple[Any, ...] = (_UNLINK(self._unlink), _WRITE(self._write), _PWRITE(self._pwrite))

    def install(self, set_call: Callable[[str, int], object]) -> None:
        names = (("unlink",), ("write",), ("pwrite", "pwrite64"))
        for group, call in zip(names, self.kept, strict=True):
            for name in group:
                set_call(name, ctypes.cast(call, ctypes.c_void_p).value or 0)

    def _unlink(self, path: bytes) -> int:
        if path == self._journal:
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(path, self._saved / f"{time.monotonic_ns():020}")
        return int(_LIBC.unlink(path))

    def _count(self) -> None:
        if self.writes_left is not None:
            self.writes_left -= 1
            if self.writes_left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def _write(self, descriptor: int, data: int, size: int) -> int:
        self._count()
        return os.write(descriptor, ctypes.string_at(data, size))

    def _pwrite(self, descriptor: int, data: int, size: int, at: int) -> int:
        self._count()
        return os.pwrite(descriptor, ctypes.string_at(data, size), at)


def apsw_connect(path: str, calls: Calls) -> tuple[Callable[[str], None], Callable[[], None]]:
    import apsw

    vfs = apsw.VFS("hooked", "unix", makedefault=False)
    calls.install(vfs.xSetSystemCall)
    connection = apsw.Connection(path, vfs="unix")

    def execute(sql: str) -> None:
        for _ in connection.execute(sql):
            pass

    return execute, connection.close


class _Vfs(ctypes.Structure):
    """The struct sqlite3_vfs of sqlite3.h, version 3."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("file_size", ctypes.c_int),
        ("path_max", ctypes.c_int),
        ("pointers", ctypes.c_void_p * 16),
        ("set_system_call", ctypes.c_void_p),
    )


def sqlite3_connect(path: str, calls: Calls) -> tuple[Callable[[str], None], Callable[[], None]]:
    import sqlite3

    library = ctypes.CDLL("libsqlite3.so.0")
    library.sqlite3_vfs_find.restype = ctypes.c_void_p
    at = library.sqlite3_vfs_find(b"unix")
    change = _SET(_Vfs.from_address(at).set_system_call)
    calls.install(lambda name, pointer: change(at, name.encode(), pointer))
    connection = sqlite3.connect(path, isolation_level=None)

    def execute(sql: str) -> None:
        connection.execute(sql).fetchall()

    return execute, connection.close


def serve(library: str, path: str, saved: str, lines: Iterable[str]) -> None:
    calls = Calls(f"{path}-journal", Path(saved))
    connect = apsw_connect if library == "apsw" else sqlite3_connect
    execute, close = connect(path, calls)
    for line in lines:
        request = json.loads(line)
        calls.writes_left = request["writes_left"]
        errors = []
        for sql in request["sql"]:
            try:
                execute(sql)
            except Exception as error:  # noqa: BLE001 - whatever SQLite says goes to the judge
                errors.append(f"{sql}: {error}")
        print(json.dumps(errors), flush=True)
    close()  # the functions must exist as long as SQLite calls them


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], sys.argv[3], sys.stdin)
