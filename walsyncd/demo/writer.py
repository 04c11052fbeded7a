"""The demo's application, a process of its own: ``python -m walsyncd.demo.writer DATABASE DIARY``.

The application knows nothing of walsyncd. It reads commands from stdin, one word on a line. As soon as it obeys a
command, it writes the command's word to stdout. It ends at the end of stdin, so it never outlives its parent.

=========  =========================================================================================
command    what it does from then on
=========  =========================================================================================
``write``  transactions of some rows, deletes that shrink the file
``stir``   also transactions larger than the cache, rolled back or not, checkpoints of every mode and
           short-lived second connections
``close``  closes its connection, the last one, and opens it again; then it continues as before
``pause``  nothing: the connection stays open
=========  =========================================================================================

The application checkpoints only after ``stir``, and only after an idle moment. If a WAL restarts twice before the
daemon looks, the daemon can't prove that it saw every frame, and has to begin a new generation.
"""

from __future__ import annotations

import random
import select
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from walsyncd.demo.diary import Entry, format_entry

COMMANDS = ("write", "stir", "close", "pause")
CHECKPOINTS = ("PASSIVE", "FULL", "RESTART", "TRUNCATE")

GAP_S = 0.012  # between two transactions, on average
IDLE_S = 0.1
CACHE_PAGES = 40  # so that a transaction of LARGE_ROWS is in the WAL before it commits
LARGE_ROWS = 300
ROW_BYTES_MAX = 3000
ROWS_MAX = 2000  # with more rows the oldest half is deleted, so that about 3 MB stay

_SCHEMA = """
CREATE TABLE IF NOT EXISTS counter (value INTEGER NOT NULL);
INSERT INTO counter SELECT 0 WHERE NOT EXISTS (SELECT * FROM counter);
CREATE TABLE IF NOT EXISTS note (id INTEGER PRIMARY KEY, title TEXT NOT NULL, body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS note_title ON note (title);
"""


@dataclass(frozen=True, slots=True)
class Act:
    """One kind of application action, and its relative frequency."""

    do: Callable[[Application], None]
    weight: int


class Application:
    """An application with one open database. ``step`` does the next action, at random but repeatably."""

    def __init__(self, database: Path, diary: TextIO, chance: random.Random) -> None:
        self._database = database
        self._diary = diary
        self._chance = chance
        self._connection = _connect(database)
        self._connection.executescript(_SCHEMA)
        self._rounds = 0

    def close(self) -> None:
        """Close the connection, which is the last one, so that SQLite checkpoints and deletes the WAL."""
        self._connection.close()

    def reopen(self) -> None:
        """Close the connection and open it again."""
        self._connection.close()
        self._connection = _connect(self._database)

    def step(self, acts: tuple[Act, ...]) -> None:
        """Do one of these actions, chosen at random by weight."""
        (act,) = self._chance.choices(acts, [act.weight for act in acts])
        act.do(self)

    def small(self) -> None:
        """Commit a transaction of a few rows."""
        with self._transaction(self._connection):
            self._insert(self._connection, self._chance.randint(1, 4))

    def large(self) -> None:
        """Commit a transaction that is larger than the cache, so that its pages reach the WAL before the commit."""
        with self._transaction(self._connection):
            self._insert(self._connection, LARGE_ROWS)

    def rename(self) -> None:
        """Commit a transaction that changes rows all over the file."""
        remainder = self._chance.randrange(50)
        with self._transaction(self._connection):
            self._connection.execute("UPDATE note SET title = title || '.' WHERE id % 50 = ?", [remainder])

    def forget(self) -> None:
        """Commit a transaction that deletes the older half of the rows if there are many. The file gets shorter."""
        (rows,) = self._connection.execute("SELECT count(*) FROM note").fetchone()
        with self._transaction(self._connection):
            if rows > ROWS_MAX:
                half = "SELECT id FROM note ORDER BY id LIMIT ?"
                self._connection.execute(f"DELETE FROM note WHERE id IN ({half})", [rows // 2])  # noqa: S608

    def change_its_mind(self) -> None:
        """Roll back a large transaction, then commit a larger one, which overwrites the frames of the first one."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._insert(self._connection, LARGE_ROWS // 2)
        self._connection.execute("ROLLBACK")
        self.large()

    def checkpoint(self) -> None:
        """Run SQLite's four kinds of checkpoint by turns, after an idle moment."""
        time.sleep(IDLE_S)
        self._rounds += 1
        self._connection.execute(f"PRAGMA wal_checkpoint({CHECKPOINTS[self._rounds % len(CHECKPOINTS)]})").fetchall()

    def second_connection(self) -> None:
        """Open another connection, commit in it and close it."""
        with closing(_connect(self._database)) as other, self._transaction(other):
            self._insert(other, 2)

    def _insert(self, connection: sqlite3.Connection, rows: int) -> None:
        for _ in range(rows):
            body = self._chance.randbytes(self._chance.randint(20, ROW_BYTES_MAX))
            title = f"{self._chance.getrandbits(32):08x}"
            connection.execute("INSERT INTO note (title, body) VALUES (?, ?)", [title, body])

    @contextmanager
    def _transaction(self, connection: sqlite3.Connection) -> Iterator[None]:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("UPDATE counter SET value = value + 1")
        (counter,) = connection.execute("SELECT value FROM counter").fetchone()
        connection.execute("COMMIT")
        self._diary.write(format_entry(Entry(counter, time.time_ns() // 1_000_000)))
        self._diary.flush()


WRITING = (
    Act(Application.small, 60),
    Act(Application.rename, 12),
    Act(Application.forget, 8),
)
STIRRING = (
    *WRITING,
    Act(Application.large, 4),
    Act(Application.change_its_mind, 4),
    Act(Application.checkpoint, 5),
    Act(Application.second_connection, 12),
)


def _connect(database: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(database, isolation_level=None, timeout=10)
    connection.execute("PRAGMA auto_vacuum = FULL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute(f"PRAGMA cache_size = {CACHE_PAGES}")
    return connection


def run(application: Application, commands: TextIO, answers: TextIO, chance: random.Random) -> None:
    """Obey the commands until they end."""
    acts: tuple[Act, ...] = ()
    while True:
        gap_s = chance.expovariate(1 / GAP_S) if acts else None
        readable, _, _ = select.select([commands], [], [], gap_s)
        if not readable:
            application.step(acts)
            continue
        command = commands.readline().strip()
        match command:
            case "":
                return
            case "write":
                acts = WRITING
            case "stir":
                acts = STIRRING
            case "pause":
                acts = ()
            case "close":
                application.reopen()
        answers.write(f"{command}\n")
        answers.flush()


def main(database: Path, diary: Path, seed: int) -> None:
    """Run the application until stdin ends."""
    chance = random.Random(seed)  # noqa: S311 - decides what to do next, guards nothing
    with diary.open("a", encoding="ascii") as out:
        application = Application(database, out, chance)
        try:
            run(application, sys.stdin, sys.stdout, chance)
        finally:
            application.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), seed=1)
