"""Tests of the demo's application: the diary has every commit, and nothing else."""

from __future__ import annotations

import io
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from walsyncd.demo import writer
from walsyncd.demo.diary import parse_diary
from walsyncd.demo.writer import STIRRING, WRITING, Application


@contextmanager
def _application(folder: Path) -> Iterator[tuple[Application, io.StringIO]]:
    diary = io.StringIO()
    application = Application(folder / "app.db", diary, random.Random(1))
    try:
        yield application, diary
    finally:
        application.close()


def _counter(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "app.db")) as connection:
        (value,) = connection.execute("SELECT value FROM counter").fetchone()
    assert isinstance(value, int)
    return value


def _frames(folder: Path) -> int:
    """Return how many frames of 4,096 bytes each the WAL has room for."""
    return ((folder / "app.db-wal").stat().st_size - 32) // (24 + 4096)


@pytest.mark.parametrize("acts", [WRITING, STIRRING], ids=["write", "stir"])
def test_the_diary_has_every_commit_in_order(
    tmp_path: Path, acts: tuple[writer.Act, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commits are counted from 1 without a hole, up to the counter in the database."""
    monkeypatch.setattr(writer, "IDLE_S", 0.0)
    with _application(tmp_path) as (application, diary):
        for _ in range(150):
            application.step(acts)
    counters = [entry.counter for entry in parse_diary(diary.getvalue())]
    assert counters == list(range(1, _counter(tmp_path) + 1))
    assert len(counters) > 100


def test_a_large_transaction_is_in_the_wal_before_it_commits(tmp_path: Path) -> None:
    """It is larger than the cache. After a rollback, its pages stay in the WAL and count for nothing."""
    with _application(tmp_path) as (application, diary):
        application.small()
        before = _frames(tmp_path)
        application._connection.execute("BEGIN IMMEDIATE")
        application._insert(application._connection, writer.LARGE_ROWS)
        assert _frames(tmp_path) > before + writer.CACHE_PAGES
        application._connection.execute("ROLLBACK")
    assert [entry.counter for entry in parse_diary(diary.getvalue())] == [1]


def test_a_change_of_mind_is_one_commit(tmp_path: Path) -> None:
    """What was rolled back is not counted, and what was committed instead is."""
    with _application(tmp_path) as (application, diary):
        application.change_its_mind()
    assert [entry.counter for entry in parse_diary(diary.getvalue())] == [1]


def test_forgetting_shrinks_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleted pages are given back at the commit."""
    monkeypatch.setattr(writer, "ROWS_MAX", 100)
    with _application(tmp_path) as (application, _):
        application.large()
        (before,) = application._connection.execute("PRAGMA page_count").fetchone()
        application.forget()
        (after,) = application._connection.execute("PRAGMA page_count").fetchone()
    assert after < before * 0.7


def test_all_four_checkpoints_have_their_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last of four is PASSIVE again, and the one before it truncates the WAL."""
    monkeypatch.setattr(writer, "IDLE_S", 0.0)
    sizes = []
    with _application(tmp_path) as (application, _):
        for _ in range(4):
            application.small()
            application.checkpoint()
            sizes.append((tmp_path / "app.db-wal").stat().st_size)
    assert [size == 0 for size in sizes] == [False, False, True, False]


def test_reopening_is_a_last_close(tmp_path: Path) -> None:
    """SQLite deletes the WAL with the last connection. A second connection keeps it."""
    with _application(tmp_path) as (application, _):
        application.small()
        with (tmp_path / "app.db-wal").open("rb") as held:
            application.second_connection()
            assert os.fstat(held.fileno()).st_nlink == 1
            application.reopen()
            assert os.fstat(held.fileno()).st_nlink == 0


def test_commands_are_answered_and_the_end_of_stdin_is_the_end(tmp_path: Path) -> None:
    """The program answers each word, then closes its connection and ends with 0."""
    module = [sys.executable, "-m", "walsyncd.demo.writer", str(tmp_path / "app.db"), str(tmp_path / "diary.txt")]
    with subprocess.Popen(module, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        for command in ("write", "stir", "close", "pause"):
            process.stdin.write(f"{command}\n")
            process.stdin.flush()
            assert process.stdout.readline() == f"{command}\n"
        process.stdin.close()
        assert process.stdout.read() == ""
        assert process.wait() == 0
    assert not (tmp_path / "app.db-wal").exists()
