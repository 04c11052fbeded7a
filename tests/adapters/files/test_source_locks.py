"""Tests of walsyncd.adapters.files.source: the locks of others are seen, and we hold none."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from walsyncd.adapters.files.source import (
    DatabaseLock,
    Holder,
    Liveness,
    OpenFile,
    Role,
    database_lock,
    dms_holder,
    hot_journal,
    liveness,
    open_file,
    side_path,
    take_database,
    take_dms,
)


def opened(path: Path) -> OpenFile:
    file = open_file(path)
    assert file is not None
    return file


def shm_of(path: Path) -> OpenFile:
    return opened(side_path(path, Role.SHM))


def test_a_live_connection_shows(tmp_path: Path) -> None:
    """From a process's first statement to its end the wal-index is LIVE, with its pid."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, shm_of(path) as shm:
        assert dms_holder(shm) == Holder(Liveness.LIVE, app.pid)
        app.execute("INSERT INTO t VALUES (1)")
        assert liveness(shm) is Liveness.LIVE
        app.close()
        assert liveness(shm) is Liveness.NONE
        assert not shm.still_named()


def test_a_killed_process_does_not_show(tmp_path: Path) -> None:
    """After SIGKILL the -shm still exists under its name, and no process is live."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, shm_of(path) as shm:
        app.kill()
        assert shm.still_named()
        assert liveness(shm) is Liveness.NONE


def test_one_of_two_connections_is_enough(tmp_path: Path) -> None:
    """The wal-index is LIVE as long as any process uses it."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, SqliteProcess(path) as other, shm_of(path) as shm:
        other.execute("SELECT * FROM t")
        app.kill()
        assert dms_holder(shm) == Holder(Liveness.LIVE, other.pid)


def test_an_exclusive_application_has_no_wal_index(tmp_path: Path) -> None:
    """locking_mode=EXCLUSIVE makes no -shm; the database file shows a writer."""
    path = tmp_path / "app.db"
    with SqliteProcess(path) as app, opened_later(path, app) as database:
        assert open_file(side_path(path, Role.SHM)) is None
        assert database_lock(database) is DatabaseLock.WRITER


@contextmanager
def opened_later(path: Path, app: SqliteProcess) -> Iterator[OpenFile]:
    app.execute("PRAGMA locking_mode=EXCLUSIVE", "PRAGMA journal_mode=WAL", "CREATE TABLE t (x)")
    with opened(path) as file:
        yield file


def test_setting_up_shows(tmp_path: Path) -> None:
    """A write lock on the DMS byte means that the -shm is being set up; an OFD holder has pid -1."""
    path = tmp_path / "app.db-shm"
    path.write_bytes(bytes(136))
    with path.open("r+b") as holder, opened(path) as shm:
        fcntl.fcntl(holder, 37, struct.pack("@hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, 128, 1, 0))  # F_OFD_SETLK
        assert dms_holder(shm) == Holder(Liveness.SETTING_UP, -1)


def test_locks_beside_the_dms_byte_do_not_count(tmp_path: Path) -> None:
    """The read and write slots of the wal-index (bytes 120-127) say nothing about liveness."""
    path = tmp_path / "app.db-shm"
    path.write_bytes(bytes(136))
    with path.open("r+b") as holder, opened(path) as shm:
        fcntl.fcntl(holder, 37, struct.pack("@hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, 120, 8, 0))
        assert liveness(shm) is Liveness.NONE


def test_database_locks(tmp_path: Path) -> None:
    """In rollback mode a reader's transaction is SHARED. A writer's transaction is WRITER from RESERVED on."""
    path = tmp_path / "app.db"
    with SqliteProcess(path) as app:
        app.execute("CREATE TABLE t (x)")
        with opened(path) as database:
            assert database_lock(database) is DatabaseLock.NONE
            app.execute("BEGIN", "SELECT * FROM t")
            assert database_lock(database) is DatabaseLock.SHARED
            app.execute("ROLLBACK", "BEGIN IMMEDIATE")
            assert database_lock(database) is DatabaseLock.WRITER
            app.execute("ROLLBACK")
            assert database_lock(database) is DatabaseLock.NONE


def test_the_locks_of_presence_are_seen_by_others_and_end_with_their_descriptor(tmp_path: Path) -> None:
    """The locks are shared, so others can take them too.

    They need only read-only descriptors, and stay when another descriptor of the file is closed.
    """
    path = tmp_path / "app.db"
    with wal_database(path) as app, shm_of(path) as asking, opened(path) as other:
        shm, database = shm_of(path), opened(path)
        assert take_dms(shm)
        assert take_database(database)
        assert dms_holder(shm) == Holder(Liveness.LIVE, app.pid), "one's own lock is not shown"
        app.execute("INSERT INTO t VALUES (1)")
        app.close()
        assert side_path(path, Role.WAL).exists(), "the last close was none"
        shm_of(path).close()
        opened(path).close()
        assert dms_holder(asking) == Holder(Liveness.LIVE, -1)
        assert not dms_holder(asking).is_process
        assert database_lock(other) is DatabaseLock.SHARED
        database.close()
        assert database_lock(other) is DatabaseLock.NONE
        shm.close()
        assert liveness(asking) is Liveness.NONE


def test_a_lock_that_is_not_to_be_had(tmp_path: Path) -> None:
    """While another process sets up the wal-index, or has the database exclusively, the answer is False at once."""
    path = tmp_path / "app.db"
    with SqliteProcess(path) as app, opened_later(path, app) as database:
        assert not take_database(database)
    with path.open("r+b") as holder, opened(path) as file:
        fcntl.fcntl(holder, 37, struct.pack("@hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, 128, 1, 0))  # F_OFD_SETLK
        assert not take_dms(file)


def test_a_process_is_told_from_another_daemon() -> None:
    """A process has a pid, which may be hidden in another pid namespace."""
    assert Holder(Liveness.LIVE, 17).is_process
    assert Holder(Liveness.LIVE, 0).is_process
    assert not Holder(Liveness.LIVE, -1).is_process
    assert not Holder(Liveness.NONE, 0).is_process


def test_we_hold_no_lock_that_is_not_taken(tmp_path: Path) -> None:
    """Whatever is opened, read and asked, the kernel's list of locks has none of this process."""
    path = tmp_path / "app.db"
    with wal_database(path), shm_of(path) as shm, opened(path) as database:
        liveness(shm)
        database_lock(database)
        hot_journal(path)
        database.pread(0, 4096)
        inodes = {file.identity().inode for file in (shm, database)}
        locks = [line.split() for line in Path("/proc/locks").read_text(encoding="ascii").splitlines()]
        assert os.getpid() not in {int(lock[4]) for lock in locks if int(lock[5].split(":")[-1]) in inodes}


def test_another_process_finds_no_lock_of_ours(tmp_path: Path) -> None:
    """Another process that asks over the whole -shm and database is told that nothing is locked."""
    path = tmp_path / "app.db"
    app = wal_database(path)
    app.kill()
    with shm_of(path) as shm, opened(path) as database:
        liveness(shm)
        database_lock(database)
        asks = (
            "import fcntl, struct, sys\n"
            "for name in sys.argv[1:]:\n"
            "    with open(name, 'rb') as file:\n"
            "        asked = struct.pack('@hhqqi0q', fcntl.F_WRLCK, 0, 0, 0, 0)\n"
            "        print(struct.unpack('@hhqqi0q', fcntl.fcntl(file, 36, asked))[0] == fcntl.F_UNLCK)\n"
        )
        command = [sys.executable, "-c", asks, str(path), f"{path}-shm"]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["True"] * 2


def test_our_opening_and_closing_harms_no_lock_of_an_application(tmp_path: Path) -> None:
    """An application's locks stay when we open and close its files beside it, and its writes continue."""
    path = tmp_path / "app.db"
    with wal_database(path) as app:
        for _ in range(3):
            for role in (Role.DATABASE, Role.WAL, Role.SHM):
                opened(side_path(path, role)).close()
        with shm_of(path) as shm:
            assert dms_holder(shm) == Holder(Liveness.LIVE, app.pid)
        app.execute("INSERT INTO t VALUES (1)")
        app.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT count(*) FROM t").fetchall() == [(2,)]
