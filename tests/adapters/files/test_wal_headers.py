"""Tests of walsyncd.adapters.files.wal_headers: what is read at one moment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from walsyncd.adapters.files import file_lock, wal_headers
from walsyncd.adapters.files.source import Liveness, OpenFile, Role, open_file, side_path
from walsyncd.adapters.files.wal_headers import read_wal_headers
from walsyncd.core.sqlite.wal import parse_wal_header
from walsyncd.core.sqlite.walindex import parse_index_header
from walsyncd.errors import TransientError


def opened(path: Path, role: Role) -> OpenFile:
    file = open_file(side_path(path, role))
    assert file is not None
    return file


def test_a_database_in_use(tmp_path: Path) -> None:
    """The result has the holder, both headers, and the size of the WAL."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, opened(path, Role.WAL) as wal, opened(path, Role.SHM) as shm:
        app.execute("INSERT INTO t VALUES (1)")
        found = read_wal_headers(wal, shm)
        index, header = parse_index_header(found.index_header), parse_wal_header(found.wal_header)
        assert (found.liveness, found.is_named) == (Liveness.LIVE, True)
        assert index is not None
        assert header is not None
        assert index.salts == header.salts
        assert found.wal_bytes == header.offset_of(index.max_frame + 1)
        app.kill()
        assert read_wal_headers(wal, shm).liveness is Liveness.NONE


def test_files_that_are_gone_and_files_that_are_not_there(tmp_path: Path) -> None:
    """After a last close the files can still be read, and have no name. Without a -shm its part is empty."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, opened(path, Role.WAL) as wal, opened(path, Role.SHM) as shm:
        app.close()
        found = read_wal_headers(wal, shm)
        assert not found.is_named
        assert parse_index_header(found.index_header) is not None
        (Path(f"{path}-shm")).write_bytes(b"another one")
        assert not read_wal_headers(wal, shm).is_named
        assert read_wal_headers(wal, None)[:3] == (Liveness.NONE, False, b"")


def test_who_asks_first_is_asked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder is asked before the name and the wal-index.

    A process that comes in between has a new wal-index, not a stale one.
    """
    path = tmp_path / "app.db"
    with wal_database(path) as app, opened(path, Role.WAL) as wal, opened(path, Role.SHM) as shm:
        app.kill()
        ask = file_lock.lock_in_the_way

        def ask_and_open(*arguments: int) -> tuple[int, int]:
            answer = ask(*arguments)
            other.execute("SELECT * FROM t")
            return answer

        with SqliteProcess(path) as other:
            monkeypatch.setattr(wal_headers, "lock_in_the_way", ask_and_open)
            assert read_wal_headers(wal, shm).liveness is Liveness.NONE


def test_a_wal_that_is_emptied_after_its_header_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The emptied WAL has no header. With its old header it would seem to have lost its frames."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, opened(path, Role.WAL) as wal:
        read = os.pread

        def read_and_empty(descriptor: int, length: int, offset: int) -> bytes:
            monkeypatch.undo()
            data = read(descriptor, length, offset)
            app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return data

        monkeypatch.setattr(os, "pread", read_and_empty)
        found = read_wal_headers(wal, None)
        assert (found.wal_header, found.wal_bytes) == (b"", 0)


def test_a_device_that_fails(tmp_path: Path) -> None:
    """If the device fails, the error names the file."""
    path = tmp_path / "app.db"
    with wal_database(path), opened(path, Role.SHM) as shm:
        wal = opened(path, Role.WAL)
        wal.close()
        with pytest.raises(TransientError, match=r"read the headers of .*app\.db-wal"):
            read_wal_headers(wal, shm)
