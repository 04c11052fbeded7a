"""Tests that a change of a database's files by anything but SQLite is doubted, and a change by SQLite is not."""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.following import CHECKPOINT, Following, insert
from walsyncd.core.follow.gap import GapKind
from walsyncd.core.follow.resumption import WRITTEN_MEANWHILE
from walsyncd.core.sqlite.wal import MAGIC
from walsyncd.engine.follow.copy_frames import UNLOCKED
from walsyncd.engine.follow.wal_pair import CLOSED, LATE_EVENT_MS, REMOVED, UNTOLD
from walsyncd.engine.follow.wal_pairs import WRITTEN
from walsyncd.errors import RefusedError


def doubt(follow: Following) -> str:
    """Return the doubt that the looks must end with."""
    gap = follow.look(until=lambda _step: False).gap
    assert gap is not None
    assert gap.kind is GapKind.DOUBT, gap
    return gap.reason


def believes(follow: Following) -> bool:
    """Return whether looks end without a gap, also when everything has had time to become quiet."""
    return follow.look().gap is None and follow.settled().gap is None


def copied(path: Path) -> Path:
    backup = path.with_name("backup.db")
    shutil.copyfile(path, backup)
    return backup


def test_a_backup_that_is_copied_over(app: SqliteProcess, follow: Following) -> None:
    """Beside a live application, cp truncates the file, writes it and closes it, and no checkpoint explains that."""
    path = follow.path
    app.execute(CHECKPOINT)
    backup = copied(path)
    assert believes(follow)
    app.execute(insert(1))
    assert believes(follow)
    shutil.copyfile(backup, path)
    assert doubt(follow) in {WRITTEN, CLOSED}


def test_a_page_that_is_written_by_a_process_that_keeps_the_file_open(app: SqliteProcess, follow: Following) -> None:
    """There is no close that could show it, and nBackfill and the salts do not change."""
    for statement in (insert(1), CHECKPOINT, insert(2)):
        app.execute(statement)
        assert believes(follow)
    descriptor = os.open(follow.path, os.O_RDWR)
    os.pwrite(descriptor, b"\xff" * 100, 8192 - 100)
    assert doubt(follow) == WRITTEN
    os.close(descriptor)


def test_the_first_thing_that_happens_is_written_past_sqlite(app: SqliteProcess, follow: Following) -> None:
    """After a restart of the daemon a look reads the wal-index, so that a write is compared with what it showed."""
    for statement in (insert(1), CHECKPOINT, insert(2)):
        app.execute(statement)
        assert believes(follow)
    follow.die()
    follow.restart()
    assert believes(follow)
    descriptor = os.open(follow.path, os.O_RDWR)
    os.pwrite(descriptor, b"\xff" * 100, 8192 - 100)
    assert doubt(follow) == WRITTEN
    os.close(descriptor)


def test_a_page_that_is_written_through_a_mapping(app: SqliteProcess, follow: Following) -> None:
    """No event reports the write, but the file's time does."""
    app.execute(insert(1), CHECKPOINT)
    assert believes(follow)
    with follow.path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[-50:] = b"\xff" * 50
    follow.step()
    follow.ahead_ms += LATE_EVENT_MS
    assert doubt(follow) == UNTOLD


def test_a_page_that_is_written_through_a_hard_link(tmp_path: Path) -> None:
    """The folder's watch does not see events of the other folder."""
    path = tmp_path / "app.db"
    (tmp_path / "other").mkdir()
    with wal_database(path) as app, Following(path, tmp_path / "f").begin() as follow:
        app.execute(insert(1), CHECKPOINT)
        assert believes(follow)
        (tmp_path / "other" / "link.db").hardlink_to(path)
        with (tmp_path / "other" / "link.db").open("r+b") as file:
            file.write(path.read_bytes())
        follow.step()
        follow.ahead_ms += LATE_EVENT_MS
        assert doubt(follow) == UNTOLD


def test_a_connection_that_never_reads(app: SqliteProcess, follow: Following) -> None:
    """The connection closes the database without having opened -wal, and has written nothing."""
    app.execute(insert(1), CHECKPOINT)
    assert believes(follow)
    with SqliteProcess(follow.path) as other:
        other.close()
    assert believes(follow)
    app.execute(insert(2))
    assert believes(follow)
    follow.proves(app)


def test_a_copy_while_a_checkpoint_runs(app: SqliteProcess, follow: Following) -> None:
    """The checkpoint would explain the write, but not that another process closed the file."""
    path = follow.path
    app.execute(insert(1))
    assert believes(follow)
    backup = copied(path)
    app.execute(CHECKPOINT)
    shutil.copyfile(backup, path)
    assert doubt(follow) == CLOSED


@pytest.mark.parametrize("is_killed", [True, False])
@pytest.mark.parametrize("looked", [True, False])
def test_side_files_that_are_removed(app: SqliteProcess, follow: Following, *, is_killed: bool, looked: bool) -> None:
    """``rm -f app.db-*`` is no last close: commits that were not copied back are lost."""
    follow.look()
    app.execute(insert(1), insert(2))
    if looked:
        follow.look()
    if is_killed:
        app.kill()
    for side_file in ("app.db-shm", "app.db-wal"):
        follow.path.with_name(side_file).unlink()
    assert doubt(follow) == REMOVED


def test_side_files_that_are_removed_before_a_commit(app: SqliteProcess, follow: Following) -> None:
    """All was copied back. The application still commits into the file that has no name any more."""
    follow.look()
    app.execute(CHECKPOINT)
    follow.look()
    for side_file in ("app.db-shm", "app.db-wal"):
        follow.path.with_name(side_file).unlink()
    assert doubt(follow) == REMOVED


def test_side_files_that_are_removed_after_a_close_of_the_index(app: SqliteProcess, follow: Following) -> None:
    """A process closes -shm between the DELETEs. The wal-index says that not all was copied back."""
    path = follow.path
    app.execute(insert(1))
    follow.look()
    with path.with_name("app.db-shm").open("r+b"):
        path.with_name("app.db-shm").unlink()
    path.with_name("app.db-wal").unlink()
    assert doubt(follow) == REMOVED


@pytest.mark.parametrize("checkpoints", [True, False])
def test_a_database_that_is_written_while_the_daemon_is_away(
    app: SqliteProcess, follow: Following, *, checkpoints: bool
) -> None:
    """Only a checkpoint of the WAL explains it. A process that only reads writes nothing."""
    path = follow.path
    app.execute(insert(1))
    follow.look()
    follow.die()
    app.execute("SELECT * FROM t")
    assert believes(follow.restart())
    follow.die()
    if checkpoints:
        app.execute(CHECKPOINT)
    else:
        with path.open("r+b") as file:
            file.write(path.read_bytes())
    follow.restart()
    if checkpoints:
        assert believes(follow)
        follow.proves(app)
    else:
        assert doubt(follow) == WRITTEN_MEANWHILE


def test_an_application_that_drops_its_locks(tmp_path: Path) -> None:
    """The application's wal-index looks unused, but goes on counting, and has commits that the WAL's chain does not
    reach.
    """
    path = tmp_path / "app.db"
    wal_database(path).close()
    script = (
        "import sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('SELECT * FROM t').fetchall()\n"
        "open(sys.argv[1] + '-shm').close()\n"
        "for line in sys.stdin:\n"
        "    connection.execute(line)\n"
        "    print(flush=True)\n"
    )
    arguments = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as app:

        def execute(statement: str) -> None:
            assert app.stdin is not None
            assert app.stdout is not None
            print(statement, file=app.stdin, flush=True)
            app.stdout.readline()

        execute(insert(1))
        with Following(path, tmp_path / "f").begin() as follow:
            execute(insert(2))
            assert believes(follow)
            execute(insert(3))
            last = path.with_name("app.db-wal").stat().st_size - 4096 - 24
            with path.with_name("app.db-wal").open("r+b") as wal:
                wal.seek(last + 8)
                wal.write(bytes(16))
            assert doubt(follow) == UNLOCKED
        app.kill()


def test_a_wal_of_another_format_is_refused(app: SqliteProcess, follow: Following) -> None:
    """Such a WAL does not count as empty, because its commits would be missed silently."""
    follow.look()
    app.kill()
    with follow.path.with_name("app.db-wal").open("r+b") as wal:
        wal.write(struct.pack(">2I", MAGIC, 3021000))
    with pytest.raises(RefusedError, match="no WAL of SQLite 3"):
        follow.look()


Act = Callable[[Path, SqliteProcess], None]


def is_doubted(follow: Following) -> bool:
    """Return whether looks end in a doubt. Commits that were overwritten before any look are another kind of gap."""
    gap = follow.look().gap or follow.settled().gap
    return gap is not None and gap.kind is GapKind.DOUBT


def _opens_and_reads(path: Path, _app: SqliteProcess) -> None:
    with SqliteProcess(path) as other:
        other.execute("SELECT * FROM t")
        other.close()


def _opens_writes_and_dies(path: Path, _app: SqliteProcess) -> None:
    with SqliteProcess(path) as other:
        other.execute(insert(7), CHECKPOINT, insert(8))


def _three_connections_of_one_process(path: Path, _app: SqliteProcess) -> None:
    script = (
        "import sqlite3, sys\n"
        "three = [sqlite3.connect(sys.argv[1], isolation_level=None) for _ in range(3)]\n"
        "for value, each in enumerate(three): each.execute(f'INSERT INTO t VALUES ({value})')\n"
        "three[1].execute('PRAGMA wal_checkpoint')\n"
        "for each in three: each.close()\n"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)


def _checkpoints(_path: Path, app: SqliteProcess) -> None:
    for value, kind in enumerate(("PASSIVE", "FULL", "RESTART", "TRUNCATE")):
        app.execute(insert(value), f"PRAGMA wal_checkpoint({kind})")


def _vacuums(_path: Path, app: SqliteProcess) -> None:
    app.execute("DELETE FROM t WHERE x > 0", "VACUUM", CHECKPOINT)


def _reads_only(path: Path, _app: SqliteProcess) -> None:
    with SqliteProcess(f"file:{path}?mode=ro") as other:
        other.execute("SELECT * FROM t")
        other.close()


def _closes_last(path: Path, app: SqliteProcess) -> None:
    with SqliteProcess(path) as other:
        other.execute(insert(9))
        app.close()
        other.close()


HONEST = (
    _opens_and_reads,
    _opens_writes_and_dies,
    _three_connections_of_one_process,
    _checkpoints,
    _vacuums,
    _reads_only,
    _closes_last,
)


@pytest.mark.parametrize("looks", [True, False])
@pytest.mark.parametrize("act", HONEST, ids=[act.__name__[1:] for act in HONEST])
def test_what_applications_do_is_not_doubted(app: SqliteProcess, follow: Following, act: Act, *, looks: bool) -> None:
    """No doubt arises, at whatever times the looks come."""
    path = follow.path
    assert believes(follow)
    for value in range(3):
        app.execute(insert(value))
        if looks:
            follow.look()
    act(path, app)
    assert not is_doubted(follow)
    with SqliteProcess(path) as other:
        other.execute(insert(100))
        assert not is_doubted(follow)
