"""Tests of what can be seen of a rollback-mode database: real SQLite in other processes holds the locks."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from walsyncd.adapters.files.rollback_files import (
    JournalSight,
    WriterLocks,
    journal_sight,
    journal_size,
    writer_locks,
)
from walsyncd.adapters.files.source import open_file

MAGIC = bytes.fromhex("d9d505f920a163d7")


def locks(path: Path) -> WriterLocks:
    file = open_file(path)
    assert file is not None
    with file:
        return writer_locks(file)


def test_how_large_a_journal_is(tmp_path: Path) -> None:
    """The -journal of a database without one, or in no folder, has no size."""
    path = tmp_path / "app.db"
    assert journal_size(path) is None
    assert journal_size(tmp_path / "gone" / "app.db") is None
    (tmp_path / "app.db-journal").write_bytes(b"")
    assert journal_size(path) == 0
    (tmp_path / "app.db-journal").write_bytes(b"1234")
    assert journal_size(path) == 4


def test_the_locks_of_a_writer(tmp_path: Path) -> None:
    """BEGIN IMMEDIATE takes RESERVED; a spill or exclusive mode takes the file itself; a reader takes neither."""
    path = tmp_path / "app.db"
    with SqliteProcess(path) as app:
        app.execute("CREATE TABLE t (x)", "INSERT INTO t VALUES (1)")
        assert locks(path) == WriterLocks(reserved=False, writing=False)
        app.execute("BEGIN", "SELECT * FROM t")
        assert locks(path) == WriterLocks(reserved=False, writing=False)
        app.execute("COMMIT", "BEGIN IMMEDIATE", "INSERT INTO t VALUES (2)")
        assert locks(path) == WriterLocks(reserved=True, writing=False)
        app.execute("ROLLBACK", "BEGIN EXCLUSIVE")
        assert locks(path).writing
        app.execute("COMMIT")
        assert locks(path) == WriterLocks(reserved=False, writing=False)


@pytest.mark.parametrize("mode", ["DELETE", "PERSIST", "TRUNCATE"])
def test_a_journal_is_hot_while_a_transaction_is_open_and_after_a_kill(tmp_path: Path, mode: str) -> None:
    """The journal of an ended transaction is deleted, empty, or begins with zeros."""
    path = tmp_path / "app.db"
    with SqliteProcess(path) as app:
        app.execute(f"PRAGMA journal_mode={mode}", "CREATE TABLE t (x)", "INSERT INTO t VALUES (1)")
        assert journal_sight(path) is JournalSight.COLD
        app.execute("PRAGMA cache_size=3", "BEGIN", "INSERT INTO t SELECT hex(randomblob(200000))")
        assert journal_sight(path) is JournalSight.HOT
        app.kill()
    assert journal_sight(path) is JournalSight.HOT
    with SqliteProcess(path) as other:
        other.execute("SELECT * FROM t")
        assert journal_sight(path) is JournalSight.COLD


def a_journal(folder: Path, name: bytes, *, total: int | None = None) -> Path:
    """Return a journal that names a super-journal, as SQLite writes it."""
    path = folder / "app.db"
    tail = struct.pack(">II", len(name), sum(name) if total is None else total) + MAGIC
    path.with_name("app.db-journal").write_bytes(MAGIC + bytes(504) + bytes(4) + name + tail)
    return path


def test_the_super_journal_decides(tmp_path: Path) -> None:
    """While the super-journal exists, the transaction is not committed.

    Without it the journal only waits to be deleted.
    """
    other = tmp_path / "app.db-mj123"
    path = a_journal(tmp_path, bytes(other))
    other.write_bytes(b"x")
    assert journal_sight(path) is JournalSight.HOT
    other.unlink()
    assert journal_sight(path) is JournalSight.SUPER_JOURNAL_GONE


def test_a_super_journal_elsewhere_says_nothing(tmp_path: Path) -> None:
    """The application may see other folders than we do, so the name proves nothing."""
    assert journal_sight(a_journal(tmp_path, b"/elsewhere/app.db-mj1")) is JournalSight.HOT
