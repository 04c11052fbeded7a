"""Tests of an application that drops SQLite's locks on the wal-index, and publishes frames without salts."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.files.sqlite_process import wal_database
from tests.engine.following import CHECKPOINT, Following, insert
from tests.engine.running import Place, restored_values, running, wait_for
from walsyncd.core.follow.database_state import DatabaseState
from walsyncd.core.sqlite.walindex import IndexHeader
from walsyncd.engine.follow.copy_frames import UNLOCKED
from walsyncd.engine.follow.source_reader import SourceReader

SALTED = (3, 50, 2)  # from this version on SQLite publishes no frame without salts

APPLICATION = """
import json, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("SELECT * FROM t").fetchall()
open(sys.argv[1] + "-shm").close()
for line in sys.stdin:
    for statement in json.loads(line):
        rows = connection.execute(statement).fetchall()
    print(json.dumps(rows), flush=True)
"""


class Unlocked:
    """The application. A file that it closes by itself drops the locks of its connection (fcntl(2))."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def execute(self, *statements: str) -> list[Any]:
        """Run the statements. Return the rows of the last one."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(statements), file=self._process.stdin, flush=True)
        rows: list[Any] = json.loads(self._process.stdout.readline())
        return rows


@contextmanager
def unlocked(path: Path) -> Iterator[Unlocked]:
    arguments = [sys.executable, "-c", APPLICATION, str(path)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Unlocked(process)
        process.kill()


def test_a_commit_between_the_chain_and_the_wal_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wal-index has more than the WAL had when it was read, and goes on counting. The WAL holds that, too."""
    path = tmp_path / "app.db"
    wal_database(path).close()
    left_index = SourceReader.left_index
    with unlocked(path) as app, Following(path, tmp_path / "f").begin() as follow:

        def late(self: SourceReader) -> IndexHeader | None:
            app.execute(insert(2))
            return left_index(self)

        app.execute(insert(1))
        assert follow.look().gap is None
        monkeypatch.setattr(SourceReader, "left_index", late)
        for _ in range(5):
            assert follow.step().gap is None


@pytest.mark.skipif(sqlite3.sqlite_version_info >= SALTED, reason="this SQLite publishes no frame without salts")
def test_no_sync_while_commits_are_not_stored(tmp_path: Path) -> None:
    """The WAL's chain ends before them, so a wal-index that seems unused has more than the WAL."""
    place = Place(tmp_path)
    path = place.database()
    with wal_database(path) as maker:
        maker.execute("CREATE INDEX i ON t (x)", "CREATE TABLE u (x)")
        maker.close()
    undone = "INSERT INTO t SELECT randomblob(3000) FROM pragma_function_list LIMIT 14"
    with unlocked(path) as app, running(place.settings("app")), place.journal() as journal:
        app.execute(insert(1))
        place.sync()
        wait_for(lambda: journal.page_map(1) is not None)
        app.execute("PRAGMA cache_size = 5", "BEGIN", insert(2), "SAVEPOINT s", undone, "ROLLBACK TO s", "COMMIT")
        for value in range(3, 6):
            assert "error" in place.ask(op="sync", names=["app"])["databases"]["app"]
            wait_for(lambda: (place.row().state, place.row().cause) == (DatabaseState.DEGRADED, UNLOCKED))
            app.execute(insert(value))
        app.execute(CHECKPOINT, insert(6))
        place.sync()
        assert [[x] for x in restored_values(place)] == app.execute("SELECT x FROM t ORDER BY x")
