"""Transactions that we append are SQLite's own: seen whole by readers, taken up by recovery, and by no other writer."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from walsyncd.adapters.files.replica_file import ReplicaFile
from walsyncd.errors import RefusedError

PAGE_SIZE = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "copy.db"
    with closing(sqlite3.connect(found, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (a)")
        connection.execute("INSERT INTO t VALUES ('before')")
    return found


@pytest.fixture
def standby(path: Path) -> Iterator[ReplicaFile]:
    file = ReplicaFile(path)
    yield file
    file.close()


def rows_of(path: Path, text: str) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.uint8]], int]:
    """The frames that make the first row say ``text``; and the size in pages."""
    raw = path.read_bytes().replace(b"before", text.encode())
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
    """Not before; and again and again, also after the WAL was emptied."""
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
    """Whatever ends it: the next one overwrites what it left."""
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
    """All that SQLite needs is in the WAL: after a crash it finds the transaction there."""
    file = ReplicaFile(path)
    rows, count = rows_of(path, "crash!")
    with file.update() as update:
        update.add(rows)
        update.commit(count)
    crashed = tmp_path / "crashed.db"
    crashed.write_bytes(path.read_bytes())
    Path(f"{crashed}-wal").write_bytes(Path(f"{path}-wal").read_bytes())
    file.close()
    assert seen(crashed) == "crash!"


def test_writer_waits_for_the_lock_and_the_lock_for_the_writer(path: Path, standby: ReplicaFile) -> None:
    """While an update is made SQLite's own writers are told busy."""
    rows, _ = rows_of(path, "locked")
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other, standby.update() as update:
        update.add(rows)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("UPDATE t SET a = 'mine'")


def test_commit_of_somebody_else_is_noticed(path: Path, standby: ReplicaFile) -> None:
    """Nothing is written over it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("UPDATE t SET a = 'theirs'")
        with pytest.raises(RefusedError, match="another process has written"), standby.update():
            pass
    assert seen(path) == "theirs"


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    """An encrypted one looks like that."""
    (tmp_path / "noise.db").write_bytes(bytes(range(256)) * 32)
    with pytest.raises(RefusedError, match="encrypted"):
        ReplicaFile(tmp_path / "noise.db")


def test_full_disk_is_refused_and_nothing_is_seen(
    path: Path, standby: ReplicaFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy stays where it was, and goes on when there is room."""
    rows, count = rows_of(path, "later!")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    def update() -> None:
        with standby.update() as update:
            update.add(rows.copy())
            update.commit(count)

    with monkeypatch.context() as patched:
        patched.setattr("walsyncd.adapters.files.replica_file.os.fsync", full)
        with pytest.raises(RefusedError, match="no space left"):
            update()
    assert seen(path) == "before"
    update()
    assert seen(path) == "later!"
