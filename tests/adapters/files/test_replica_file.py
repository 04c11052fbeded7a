"""Tests that transactions that we append are like SQLite's own: readers see them whole, and recovery finds them."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from walsyncd.adapters.files.open_folder import open_folder
from walsyncd.adapters.files.replica_file import ReplicaFile
from walsyncd.errors import RefusedError, StateError

PAGE_SIZE = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "copy.db"
    with closing(sqlite3.connect(found, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (a)")
        connection.execute("INSERT INTO t VALUES ('before')")
    return found


@contextmanager
def opened(path: Path) -> Iterator[ReplicaFile]:
    with open_folder(path.parent) as folder:
        file = ReplicaFile(folder, path.name)
        yield file
        file.close()


@pytest.fixture
def standby(path: Path) -> Iterator[ReplicaFile]:
    with opened(path) as file:
        yield file


def rows_of(path: Path, text: str) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.uint8]], int]:
    """Return the frames that set the first row to ``text``, and the size in pages."""
    raw = re.sub(b"before|first!", text.encode(), path.read_bytes())
    count = len(raw) // PAGE_SIZE
    rows = np.zeros((count, 24 + PAGE_SIZE), np.uint8)
    rows[:, 3] = np.arange(1, count + 1)
    rows[:, 24:] = np.frombuffer(raw, np.uint8).reshape(count, PAGE_SIZE)
    rows[-1, 7] = count
    return rows, count


def seen(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        text: str = connection.execute("SELECT a FROM t").fetchone()[0]
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    return text


def test_update_is_seen_when_it_is_committed(path: Path, standby: ReplicaFile) -> None:
    """An update is not visible before its commit. Any number of updates works, also after the WAL was emptied."""
    for number in range(5):
        text = f"stat {number}"[:6]
        rows, count = rows_of(path, text)
        with standby.update() as update:
            update.add(rows)
            assert seen(path) != text
            update.commit(count)
        assert seen(path) == text
        if number == 2:
            assert standby.checkpoint()
            assert standby.wal_bytes == 0
            path.write_bytes(path.read_bytes().replace(text.encode(), b"before"))


def test_update_that_is_given_up_leaves_no_trace(path: Path, standby: ReplicaFile) -> None:
    """Whatever ended the update, the next one overwrites what it left."""
    rows, count = rows_of(path, "middle")

    def give_up() -> None:
        with standby.update() as update:
            update.add(rows.copy())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        give_up()
    assert seen(path) == "before"
    later, _ = rows_of(path, "after!")
    with standby.update() as update:
        update.add(later)
        update.commit(count)
    assert seen(path) == "after!"


def test_index_that_was_lost_is_recovered_with_the_update(path: Path, tmp_path: Path) -> None:
    """The WAL has all that SQLite needs, so after a crash it finds the transaction there."""
    with opened(path) as file:
        rows, count = rows_of(path, "crash!")
        with file.update() as update:
            update.add(rows)
            update.commit(count)
        crashed = tmp_path / "crashed.db"
        crashed.write_bytes(path.read_bytes())
        Path(f"{crashed}-wal").write_bytes(Path(f"{path}-wal").read_bytes())
    assert seen(crashed) == "crash!"


def test_writer_waits_for_the_lock_and_the_lock_for_the_writer(path: Path, standby: ReplicaFile) -> None:
    """While an update is made, SQLite's own writers are told that the database is busy."""
    rows, _ = rows_of(path, "locked")
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other, standby.update() as update:
        update.add(rows)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("UPDATE t SET a = 'mine'")


def test_commit_of_somebody_else_is_noticed(path: Path, standby: ReplicaFile) -> None:
    """A commit of another process is not overwritten."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("UPDATE t SET a = 'theirs'")
        with pytest.raises(RefusedError, match="another process has written"), standby.update():
            pass
    assert seen(path) == "theirs"


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    """A file that is not a database is refused. So is an encrypted database, which looks the same."""
    (tmp_path / "noise.db").write_bytes(bytes(range(256)) * 32)
    with pytest.raises(RefusedError, match="encrypted"), opened(tmp_path / "noise.db"):
        pass


def test_full_disk_is_refused_and_nothing_is_seen(
    path: Path, standby: ReplicaFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy keeps its position, and continues when there is room."""
    rows, count = rows_of(path, "later!")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    def update() -> None:
        with standby.update() as update:
            update.add(rows.copy())
            update.commit(count)

    with monkeypatch.context() as patched:
        patched.setattr("walsyncd.adapters.files.replica_file.os.fsync", full)
        with pytest.raises(StateError, match="no space left"):
            update()
    assert seen(path) == "before"
    update()
    assert seen(path) == "later!"


def apply(file: ReplicaFile, path: Path, text: str) -> None:
    rows, count = rows_of(path, text)
    with file.update() as update:
        update.add(rows)
        update.commit(count)


def test_process_that_follows_has_no_connection_of_sqlites() -> None:
    """A process that had one would lose its locks when any descriptor of the file is closed."""
    modules = "walsyncd.cli.restore_follow, walsyncd.engine.restore.read_replica"
    script = f"import sys, {modules}\nprint('sqlite3' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_wal_is_copied_back_beside_a_reader_in_another_process(path: Path, standby: ReplicaFile) -> None:
    """The WAL is copied back as far as the reader does not need it.

    The reader's state stays, and the next one is seen later.
    """
    with SqliteProcess(f"file:{path}?mode=rw") as reader:
        apply(standby, path, "first!")
        reader.execute("BEGIN")
        assert reader.execute("SELECT a FROM t") == [["first!"]]
        apply(standby, path, "second")
        assert not standby.checkpoint()
        assert reader.execute("SELECT a FROM t") == [["first!"]]
        reader.execute("COMMIT")
        assert standby.checkpoint()
        assert standby.wal_bytes == 0
        assert reader.execute("SELECT a FROM t") == [["second"]]


def test_checkpoint_of_somebody_else_is_no_write(path: Path, standby: ReplicaFile) -> None:
    """Readers may copy the WAL back and empty it, which is no write."""
    with SqliteProcess(f"file:{path}?mode=rw") as reader:
        apply(standby, path, "first!")
        assert reader.execute("PRAGMA wal_checkpoint(TRUNCATE)") == [[0, 0, 0]]
        assert standby.wal_bytes == 0
        apply(standby, path, "second")
        assert reader.execute("SELECT a FROM t") == [["second"]]


def test_index_that_is_damaged_is_recovered_beside_a_reader(path: Path, standby: ReplicaFile) -> None:
    """A process that was killed between writing the two copies of the header leaves the index like this."""
    with SqliteProcess(f"file:{path}?mode=rw") as reader:
        apply(standby, path, "first!")
        shm = os.open(f"{path}-shm", os.O_RDWR)
        os.pwrite(shm, b"\xff", 60)
        os.close(shm)
        apply(standby, path, "second")
        assert reader.execute("SELECT a FROM t") == [["second"]]
        assert reader.execute("PRAGMA integrity_check") == [["ok"]]


def test_copy_that_a_reader_recovered_is_gone_on_with(path: Path) -> None:
    """A follower that was killed leaves -wal and -shm.

    The next reader finds nobody there, and makes the index again.
    """
    script = (
        "import os, sys\nfrom pathlib import Path\n"
        "from tests.adapters.files.test_replica_file import apply, opened\n"
        "with opened(Path(sys.argv[1])) as file:\n"
        "    apply(file, Path(sys.argv[1]), 'killed')\n    os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert killed.returncode == -9
    assert Path(f"{path}-wal").stat().st_size > 0
    with SqliteProcess(f"file:{path}?mode=ro") as reader:
        assert reader.execute("SELECT a FROM t") == [["killed"]]
        with opened(path) as file:
            apply(file, path, "later!")
            assert reader.execute("SELECT a FROM t") == [["later!"]]
    assert seen(path) == "later!"


def test_rollback_mode_is_left_before_the_first_update(path: Path) -> None:
    """The change works for a reader that had looked at the file before, too.

    While somebody reads the file, it is refused.
    """
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    with SqliteProcess(f"file:{path}?mode=ro") as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT a FROM t") == [["before"]]
        with pytest.raises(RefusedError, match="has it open"), opened(path):
            pass
        reader.execute("COMMIT")
        with opened(path) as file:
            apply(file, path, "after!")
            assert reader.execute("SELECT a FROM t") == [["after!"]]


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_file_that_somebody_took_away_is_noticed(path: Path, suffix: str) -> None:
    """Nobody would see what is written to a file without a name."""
    with open_folder(path.parent) as folder:
        file = ReplicaFile(folder, path.name)
        Path(f"{path}{suffix}").rename(f"{path}.away")
        with pytest.raises(RefusedError, match="moved, removed or replaced"):
            apply(file, path.with_name("copy.db.away") if not suffix else path, "unseen")
        file.close()


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_link_is_not_followed(path: Path, tmp_path: Path, suffix: str) -> None:
    """The owner of the folder decides where a link leads to."""
    victim = tmp_path / "victim"
    victim.write_bytes(path.read_bytes())
    for name in (f"{path}{suffix}", *([] if suffix else [f"{path}-wal", f"{path}-shm"])):
        Path(name).unlink(missing_ok=True)
    Path(f"{path}{suffix}").symlink_to(victim)
    with pytest.raises(RefusedError, match="symbolic links"), opened(path):
        pass
    assert victim.read_bytes()[:16] == b"SQLite format 3\0"


def test_files_are_removed_at_the_end_unless_somebody_reads(path: Path) -> None:
    """The -wal and -shm are removed at the end, as SQLite's last connection does."""
    with SqliteProcess(f"file:{path}?mode=rw") as reader:
        assert reader.execute("SELECT a FROM t") == [["before"]]
        with opened(path) as file:
            apply(file, path, "first!")
        assert Path(f"{path}-shm").exists()
        assert reader.execute("SELECT a FROM t") == [["first!"]]
    with opened(path) as file:
        apply(file, path, "second")
    assert not Path(f"{path}-shm").exists()
    assert not Path(f"{path}-wal").exists()
    assert seen(path) == "second"


def test_two_that_follow_into_one_file_do_not_meet(path: Path, standby: ReplicaFile) -> None:
    """The second process is refused, and the first one continues."""
    with pytest.raises(RefusedError, match="another process follows"), opened(path):
        pass
    apply(standby, path, "first!")
    assert seen(path) == "first!"
