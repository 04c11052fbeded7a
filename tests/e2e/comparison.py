"""Compares a restored file with its source."""

from __future__ import annotations

import shutil
import sqlite3
import struct
import subprocess
from contextlib import closing
from pathlib import Path
from subprocess import PIPE
from tempfile import TemporaryDirectory

DMS_BYTE = 128  # bytes of the wal-index that every process using it has locked


def file_of(source: Path) -> bytes:
    """Return the database file that ``source`` is with all of its WAL applied, by SQLite, on a copy.

    If a wal-index is in use, only what it has published is committed. A writer that was killed before publishing left
    whole transactions in the WAL that nobody sees, and that the next commit overwrites.
    """
    with TemporaryDirectory() as folder:
        copy = Path(folder, source.name)
        shutil.copyfile(source, copy)
        wal = Path(f"{source}-wal")
        if wal.exists():
            content = wal.read_bytes()
            Path(f"{copy}-wal").write_bytes(content[: _published(content, Path(f"{source}-shm"))])
        with closing(sqlite3.connect(copy)) as connection:
            assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        return _cut(copy.read_bytes())


def _cut(file: bytes) -> bytes:
    """Return the file without what comes after the last page that the header counts, which belongs to no database.

    A checkpoint cuts the file after it has copied everything. A WAL that is deleted before that leaves it too long.
    """
    is_counted = file[24:28] == file[92:96]  # sqlite.org/fileformat2.html 1.3.7
    page_size = int.from_bytes(file[16:18], "big")
    size = int.from_bytes(file[28:32], "big") * (65536 if page_size == 1 else page_size)
    return file[:size] if is_counted and size else file


def _published(wal: bytes, index: Path) -> int:
    """Return the size of the WAL up to the last frame that a wal-index in use knows of (sqlite.org/walformat.html 2.1).

    The wal-index is not opened here. A process that closes a file loses its locks on it, and the test may use the
    database.
    """
    if not index.exists() or not _is_in_use(index):
        return len(wal)
    (max_frame,) = struct.unpack_from("=I", subprocess.run(["cat", index], stdout=PIPE, check=True).stdout, 16)
    return 32 + max_frame * (24 + int.from_bytes(wal[8:12], "big")) if max_frame else 0


def _is_in_use(index: Path) -> bool:
    """Return whether anybody holds the DMS byte. In proc(5), a lock is a line, with inode and range last."""
    for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
        *_, place, first, last = line.split()
        if place.rpartition(":")[2] == str(index.stat().st_ino) and int(first) <= DMS_BYTE:
            return last == "EOF" or int(last) >= DMS_BYTE
    return False


def differing_pages(restored: Path, source: Path) -> list[int]:
    """Return the numbers of the pages that differ, sizes included. Every byte counts, those of unused pages too."""
    found, expected = _cut(restored.read_bytes()), file_of(source)
    page_size = int.from_bytes(expected[16:18], "big")
    page_size = 65536 if page_size == 1 else page_size
    ends = range(0, max(len(found), len(expected)), page_size)
    return [at // page_size + 1 for at in ends if found[at : at + page_size] != expected[at : at + page_size]]


def assert_same(restored: Path, source: Path) -> None:
    """Assert that two files are equal page for page, and sound in SQLite's own judgement."""
    differing = differing_pages(restored, source)
    assert not differing, f"{len(differing)} pages of {restored} are not those of {source}: {differing[:10]} …"
    assert ask(restored, "PRAGMA integrity_check") == "ok"


def counter_of(file: Path) -> int:
    """Return how many of the workload's transactions a file holds. Each of them has left its note."""
    counter = ask(file, "SELECT n FROM counter")
    assert ask(file, "SELECT count(*) FROM note") == ask(file, "SELECT coalesce(max(n), 0) FROM note") == counter
    assert isinstance(counter, int)
    return counter


def ask(file: Path, query: str) -> object:
    """Return the first value of a query's first row. The file is not changed."""
    with closing(sqlite3.connect(f"{file.as_uri()}?immutable=1", uri=True)) as connection:
        return connection.execute(query).fetchone()[0]
