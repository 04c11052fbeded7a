"""SQLite in a process of its own, as applications use it. A test says what it does, and can kill it."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

_CHILD = """
import importlib, json, sys
path, module = sys.argv[1:]
sqlite = importlib.import_module(module)
if module == "apsw":
    connection = sqlite.Connection(path)
else:
    connection = sqlite.connect(path, isolation_level=None, uri=path.startswith("file:"))
for line in sys.stdin:
    try:
        rows = [list(connection.execute(sql)) for sql in json.loads(line)]
        print(json.dumps(rows[-1] if rows else []), flush=True)
    except sqlite.Error as error:
        print(json.dumps({"error": str(error)}), flush=True)
connection.close()
"""


class SqliteError(Exception):
    """SQLite refused a statement; the text is its message."""


class SqliteProcess:
    """One connection to ``path`` (a file, or a ``file:`` URI). It lives until ``close``, which is clean, or
    ``kill``.

    ``module`` is ``sqlite3``, ``apsw`` or another module with the calls of either. ``environment`` replaces our own
    environment.
    """

    def __init__(self, path: Path | str, *, module: str = "sqlite3", environment: dict[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(path), module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        return self._process.pid

    def execute(self, *statements: str) -> list[Any]:
        """Run statements in turn and return the rows of the last one; SqliteError at the first that fails."""
        self.begin(*statements)
        assert self._process.stdout is not None
        answer = json.loads(self._process.stdout.readline())
        if isinstance(answer, dict):
            raise SqliteError(answer["error"])
        rows: list[Any] = answer
        return rows

    def begin(self, *statements: str) -> None:
        """Make the process run statements without waiting for them, because it will be killed meanwhile."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(statements) + "\n")
        self._process.stdin.flush()

    def answer(self, seconds_max: float) -> str:
        """Return the line that the process answers with, or "" if it has ended or is silent for too long."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], seconds_max)
        return self._process.stdout.readline() if ready else ""

    def close(self) -> None:
        """Close the connection and end the process."""
        self._process.communicate(timeout=30)
        assert self._process.returncode == 0

    def kill(self) -> None:
        """Kill the process by SIGKILL, so that nothing is cleaned up."""
        self._process.kill()
        self._process.communicate(timeout=30)


def wal_database(path: Path) -> SqliteProcess:
    """Return a process with a new database in WAL mode that holds one table ``t`` and one row."""
    process = SqliteProcess(path)
    process.execute("PRAGMA journal_mode=WAL", "CREATE TABLE t (x)", "INSERT INTO t VALUES (0)")
    return process
