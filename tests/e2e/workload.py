"""Applications that write: random transactions by seed, through three different SQLites.

| kind   | what it is                                                     |
|--------|----------------------------------------------------------------|
| module | Python's ``sqlite3``                                           |
| apsw   | the ``apsw`` wheel, which brings a newer SQLite                |
| cli    | the ``sqlite3`` program, one process for each connection       |

Every transaction adds 1 to ``counter.n`` and writes that number into ``note``, so a file shows how many transactions it
holds. ``VACUUM`` and the creation of the schema are the only other commits. As a program (``workload.py KIND FILE …``)
this is one application with several connections to one database.

A reader that takes no lock can be outrun: nobody can read what is checkpointed and overwritten at once after its
commit. Only some tests are about this. In the others the application knows the daemon (``calm``) and has it look once
more before each checkpoint, which it makes only by its own statements.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

KINDS = ("module", "apsw", "cli")
CONNECTIONS = 3
BUSY_MS = 20_000
PAUSE_SECONDS = 0.01  # seconds after each thing done: an application that waits for its users
STOP_SECONDS_MAX = 60.0

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS counter (n INTEGER NOT NULL)",
    "INSERT INTO counter SELECT 0 WHERE NOT EXISTS (SELECT * FROM counter)",
    "CREATE TABLE IF NOT EXISTS note (n INTEGER PRIMARY KEY, said TEXT)",
    "CREATE TABLE IF NOT EXISTS item (id INTEGER PRIMARY KEY, size INTEGER, data BLOB)",
    "CREATE INDEX IF NOT EXISTS item_size ON item (size, data)",
)


# -- what is done ---------------------------------------------------------------------------------------------------


def create(file: Path, *, page_size: int = 4096, rows: int = 0, row_bytes: int = 1000) -> Path:
    """Create a database in WAL mode with the workload's schema and ``rows`` rows that do not compress."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size={page_size}")
        connection.execute("PRAGMA journal_mode=WAL")
        for statement in (*SCHEMA, insertion(rows, row_bytes)):
            connection.execute(statement)
    return file


def insertion(rows: int, row_bytes: int) -> str:
    """Return a statement that inserts rows of random bytes."""
    numbers = f"WITH RECURSIVE i(n) AS (SELECT 1 WHERE {rows} > 0 UNION ALL SELECT n + 1 FROM i WHERE n < {rows})"
    return f"{numbers} INSERT INTO item (size, data) SELECT abs(random() % 1000), randomblob({row_bytes}) FROM i"


def counted(*statements: str, said: str = "") -> list[str]:
    """Return a transaction that counts itself."""
    note = f"INSERT INTO note SELECT n, '{said}' FROM counter"
    return ["BEGIN IMMEDIATE", *statements, "UPDATE counter SET n = n + 1", note, "COMMIT"]


def transactions(seed: int, *, only_counted: bool = False) -> Iterator[tuple[int, list[str]]]:
    """Yield without end the number of a connection, and what it does next. ``reopen`` means that all of them close and
    open.

    With ``only_counted`` every commit adds 1 to the counter, and a rollback leaves nothing in the WAL.
    """
    chance = random.Random(seed)
    rare = ("vacuum", "reopen") if not only_counted else ("reopen",)
    common = ("insert", "insert", "update", "delete", "rollback", "savepoint", "big", "checkpoint", "small")
    while True:
        connection = chance.randrange(CONNECTIONS)
        kind = chance.choice(common * 3 + rare)
        statements = _statements(kind, chance)
        if only_counted and kind == "rollback":
            statements = _in_memory(statements)
        yield connection, statements


def _statements(kind: str, chance: random.Random) -> list[str]:
    some = insertion(chance.randint(1, 20), chance.choice((10, 200, 3000)))
    match kind:
        case "insert":
            return counted(some, said=kind)
        case "update":
            return counted(f"UPDATE item SET data = randomblob(size) WHERE id % 9 = {chance.randrange(9)}", said=kind)
        case "delete":
            return counted(f"DELETE FROM item WHERE id % 5 = {chance.randrange(5)}", said=kind)
        case "rollback":
            return ["BEGIN IMMEDIATE", insertion(150, 500), "UPDATE counter SET n = n + 1000", "ROLLBACK"]
        case "savepoint":
            # It must not spill, because an SQLite such as 3.40.1 then commits frames without checksums, which a crash
            # loses.
            undone = ["SAVEPOINT inner", some, "UPDATE counter SET n = n + 1000", "ROLLBACK TO inner", "RELEASE inner"]
            return _in_memory(counted(insertion(2, 50), *undone, said=kind))
        case "big":
            return counted(insertion(300, 1000), "UPDATE item SET size = size + 1", said=kind)
        case "checkpoint":
            mode = chance.choice(("PASSIVE", "PASSIVE", "FULL", "RESTART", "TRUNCATE"))
            return [f"PRAGMA wal_checkpoint({mode})"]
        case "small":
            return counted(said=kind)
        case "vacuum":
            return ["VACUUM"]
        case _:
            return ["reopen"]


def _in_memory(statements: list[str]) -> list[str]:
    """Return the transaction with settings that spill nothing before the commit."""
    return ["PRAGMA cache_size=2000", *statements, "PRAGMA cache_size=5"]


def _is_harsh(statement: str) -> bool:
    """Return whether the next writer may then overwrite what was written a moment ago."""
    return statement == "reopen" or "wal_checkpoint" in statement


def _calm(control: str) -> None:
    """Let the daemon that listens there, if any, look at everything once more."""
    from walsyncd.adapters.system.control_socket import NOT_ONE_VERSION, ask
    from walsyncd.errors import TransientError

    try:
        answer = ask(Path(control), {"op": "sync"}, timeout_s=STOP_SECONDS_MAX)
    except (TransientError, FileNotFoundError):  # the daemon was killed, or has not begun yet
        return
    # A database may have no generation at the moment. A request that is not understood would have no effect, unnoticed.
    assert answer is None or answer.get("hint") != NOT_ONE_VERSION, answer


# -- who does it ----------------------------------------------------------------------------------------------------


class Connection(Protocol):
    """A connection to the database, of one kind."""

    def open(self) -> None:
        """Open the file, and apply the settings of each connection."""

    def execute(self, statement: str) -> None:
        """Run one statement to its end."""

    def close(self) -> None:
        """Close it as an application does at its end."""


SETTINGS = (f"PRAGMA busy_timeout={BUSY_MS}", "PRAGMA cache_size=5", "PRAGMA wal_autocheckpoint=0")


class _Module:
    def __init__(self, file: str) -> None:
        self._file = file

    def open(self) -> None:
        self._connection = sqlite3.connect(self._file, isolation_level=None)
        for setting in SETTINGS:
            self.execute(setting)

    def execute(self, statement: str) -> None:
        self._connection.execute(statement).fetchall()

    def close(self) -> None:
        self._connection.close()


class _Apsw(_Module):
    def open(self) -> None:
        import apsw

        self._connection = apsw.Connection(self._file)  # type: ignore[assignment]  # the same calls
        for setting in SETTINGS:
            self.execute(setting)


class _Cli:
    """Feeds the program and waits until it repeats a mark, so that connections take turns as the others do."""

    MARK = "walsyncd-mark"

    def __init__(self, file: str) -> None:
        self._file = file

    def open(self) -> None:
        arguments = ["sqlite3", "-batch", "-bail", self._file]
        self._process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for setting in SETTINGS:
            self.execute(setting)

    def execute(self, statement: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{statement};\n.print {self.MARK}\n")
        self._process.stdin.flush()
        while (answer := self._process.stdout.readline()) != f"{self.MARK}\n":
            if not answer:
                raise RuntimeError(f"sqlite3 ended at {statement}")

    def close(self) -> None:
        with self._process:  # closes its input and waits
            pass


_CONNECTIONS: dict[str, type[_Module] | type[_Cli]] = {"module": _Module, "apsw": _Apsw, "cli": _Cli}


def work(
    kind: str, file: str, *, seed: int, count: int | None, pause_s: float, only_counted: bool, calm: str | None
) -> None:
    """Do ``count`` things, or do without end. A line on stdout reports each thing done."""
    connections: list[Connection] = [_CONNECTIONS[kind](file) for _ in range(CONNECTIONS)]
    for connection in connections:
        connection.open()
    for number, (chosen, statements) in enumerate(transactions(seed, only_counted=only_counted), start=1):
        for statement in statements:
            if calm and _is_harsh(statement):
                _calm(calm)
            if statement == "reopen":
                _reopen(connections)
            else:
                connections[chosen].execute(statement)
        print(number, flush=True)
        if number == count:
            break
        time.sleep(pause_s)
    sys.stdin.readline()  # the connections stay open until somebody says so, or kills us
    for connection in connections:
        connection.close()


def _reopen(connections: list[Connection]) -> None:
    """Close all and open them again. The last one to close deletes the WAL."""
    for connection in connections:
        connection.close()
    for connection in connections:
        connection.open()


class Writer:
    """An application in processes of its own. As a context manager it is killed at the end if it still runs."""

    def __init__(
        self,
        kind: str,
        file: Path,
        *,
        seed: int,
        count: int | None = None,
        pause_s: float = PAUSE_SECONDS,
        only_counted: bool = False,
        calm: Path | None = None,
    ) -> None:
        arguments = [kind, str(file), f"--seed={seed}", f"--pause={pause_s}"]
        arguments += [f"--count={count}"] if count is not None else []
        arguments += ["--only-counted"] if only_counted else []
        arguments += [f"--calm={calm}"] if calm is not None else []
        self._count = count
        self._process = subprocess.Popen(
            [sys.executable, __file__, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def wait_for(self, number: int) -> None:
        """Wait until it has done that many things."""
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if int(line) >= number:
                return
        raise AssertionError(f"the application ended with {self._process.wait()} before it had done {number} things")

    def finish(self) -> None:
        """Wait until it has done all. Its connections are open still."""
        assert self._count is not None
        self.wait_for(self._count)

    def close(self) -> None:
        """Let it close its connections and end, once it has finished."""
        _, _ = self._process.communicate(b"\n", timeout=STOP_SECONDS_MAX)
        assert self._process.returncode == 0

    def kill(self) -> None:
        """End all of its processes at once."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            self.kill()


def main() -> None:
    """Run one application."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("file")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--count", type=int)
    parser.add_argument("--pause", type=float, default=PAUSE_SECONDS)
    parser.add_argument("--only-counted", action="store_true")
    parser.add_argument("--calm", help="control socket of a daemon")
    given = parser.parse_args()
    work(
        given.kind,
        given.file,
        seed=given.seed,
        count=given.count,
        pause_s=given.pause,
        only_counted=given.only_counted,
        calm=given.calm,
    )


if __name__ == "__main__":
    main()
