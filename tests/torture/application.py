"""One application that treats a database badly. It is a process of its own, and may be killed at any moment.

| role         | what it does                                                                                      |
|--------------|---------------------------------------------------------------------------------------------------|
| `writer`     | transactions of all kinds and sizes, rollbacks, savepoints, spills, now and then VACUUM or reopening |
| `cycler`     | opens, commits once to three times, closes                                                          |
| `alone`      | a writer with `locking_mode=EXCLUSIVE`: no wal-index                                                |
| `checkpoint` | checkpoints in all four modes, by one connection or by one for each                                 |

It reads `pause`, `go` or `end` as lines from its standard input, and answers `paused` when it does nothing. After each
commit it writes a line (number, chain) into the oracle, a file elsewhere.
"""

from __future__ import annotations

import argparse
import os
import random
import select
import sqlite3
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import apsw

from tests.torture.ledger import Connection, count, digest

ROLES = ("writer", "cycler", "alone", "checkpoint")
KINDS = ("module", "apsw")
BUSY_MS = 2_000
ITEMS_MAX = 600
MODES = ("PASSIVE", "FULL", "RESTART", "TRUNCATE")
AUTOCHECKPOINTS = (0, 5, 50, 1000)
UNSOUND = 3  # exit code: SQLite itself found the database damaged
UNREADABLE = 4  # exit code: SQLite found less in a file than the wal-index counts; the last line says when (monotonic)
_BUSY_WORDS = ("locked", "busy", "locking protocol", "schema has changed")
_FAULTS = (sqlite3.DatabaseError, apsw.Error)


class Application:
    """An application that does one thing after another to one database, as drawn by ``chance``."""

    def __init__(self, kind: str, role: str, file: str, oracle: Path, chance: random.Random, pace_s: float) -> None:
        self.kind = kind
        self.role = role
        self.file = file
        self.chance = chance
        self.pace_s = pace_s
        self.oracle = os.open(oracle, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.connection: Any = None

    # -- connections ------------------------------------------------------------------------------------------------

    def open(self) -> Any:
        if self.connection is None:
            if self.kind == "apsw":
                self.connection = apsw.Connection(self.file)
                self.connection.set_busy_timeout(BUSY_MS)
            else:
                self.connection = sqlite3.connect(self.file, isolation_level=None, timeout=BUSY_MS / 1000)
            for setting in self.settings():
                list(self.connection.execute(f"PRAGMA {setting}"))
        return self.connection

    def settings(self) -> list[str]:
        drawn = [
            f"synchronous={self.chance.choice(['OFF', 'NORMAL', 'FULL'])}",
            f"wal_autocheckpoint={self.chance.choice(AUTOCHECKPOINTS)}",
            f"cache_size={self.chance.choice([5, 100, 2000])}",
            f"journal_size_limit={self.chance.choice([-1, 20_000])}",
        ]
        return ["locking_mode=EXCLUSIVE", *drawn] if self.role == "alone" else drawn

    def close(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()

    # -- what is done -----------------------------------------------------------------------------------------------

    def act(self) -> None:
        """Do one thing. A busy database is left alone for now."""
        try:
            getattr(self, f"_{self.role}")()
        except _FAULTS as error:
            if not any(word in str(error).lower() for word in _BUSY_WORDS):
                raise
            self._abandon()

    def _abandon(self) -> None:
        if self.connection is None:
            return
        in_transaction = self.connection.in_transaction
        if in_transaction:
            list(self.connection.execute("ROLLBACK"))

    def _writer(self) -> None:
        drawn = self.chance.random()
        if drawn < 0.002:
            list(self.open().execute("VACUUM"))
        elif drawn < 0.01:
            self.close()
        elif drawn < 0.012:
            self._checkpoint_once(self.open())
        else:
            self._transact()

    _alone = _writer

    def _cycler(self) -> None:
        for _ in range(self.chance.choice([1, 1, 2, 3])):
            self._transact()
        self.close()

    def _checkpoint(self) -> None:
        self._checkpoint_once(self.open())
        if self.chance.random() < 0.3:
            self.close()

    def _checkpoint_once(self, connection: Connection) -> None:
        list(connection.execute(f"PRAGMA wal_checkpoint({self.chance.choice(MODES)})"))

    def _transact(self) -> None:
        connection = self.open()
        connection.execute("BEGIN IMMEDIATE")
        change = 0
        for _ in range(self.chance.choice([1, 1, 1, 2, 5, 30])):
            change += self._change(connection)
        if self.chance.random() < 0.1:
            connection.execute("SAVEPOINT s")
            self._change(connection)
            connection.execute("ROLLBACK TO s")
            connection.execute("RELEASE s")
        if self.chance.random() < 0.08:
            connection.execute("ROLLBACK")
            return
        n, chain = count(connection, change)
        connection.execute("COMMIT")
        os.write(self.oracle, f"{n} {chain.hex()}\n".encode())

    def _change(self, connection: Connection) -> int:
        """Change one item. Return by how much the sum changes."""
        ((size, last),) = connection.execute("SELECT count(*), coalesce(max(id), 0) FROM item")
        kind = self.chance.choice(["insert", "insert", "update", "delete"])
        if size and (kind != "insert" or size > ITEMS_MAX):
            drawn = (self.chance.randint(1, last),)
            ((identity, before),) = connection.execute("SELECT id, data FROM item WHERE id >= ? LIMIT 1", drawn)
            if kind == "update":
                data = self._data()
                connection.execute("UPDATE item SET data = ? WHERE id = ?", (data, identity))
                return digest(identity, data) - digest(identity, before)
            connection.execute("DELETE FROM item WHERE id = ?", (identity,))
            return -digest(identity, before)
        data = self._data()
        connection.execute("INSERT INTO item VALUES (?, ?)", (last + 1, data))
        return digest(last + 1, data)

    def _data(self) -> bytes:
        return self.chance.randbytes(self.chance.choice([8, 100, 100, 1000, 5000, 40_000]))

    # -- orders -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run until told to end, or until nobody is there to tell."""
        while self._go_on():
            self.act()
            if self.pace_s:
                time.sleep(self.chance.uniform(0, 2 * self.pace_s))
        self.close()

    def _go_on(self) -> bool:
        if not select.select([sys.stdin], [], [], 0)[0]:
            return True
        order = sys.stdin.readline().strip()
        while order == "pause":
            print("paused", flush=True)
            order = sys.stdin.readline().strip()
        return order == "go"


def main() -> int:
    """Run one application."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=ROLES)
    parser.add_argument("file")
    parser.add_argument("oracle", type=Path)
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--seed", required=True)
    parser.add_argument("--pace", type=float, default=0.0, metavar="SECONDS", help="between two things done")
    given = parser.parse_args()
    chance = random.Random(given.seed)
    application = Application(given.kind, given.role, given.file, given.oracle, chance, given.pace)
    try:
        application.run()
    except _FAULTS as error:
        if "disk I/O error" in str(error):
            traceback.print_exc()
            print(time.monotonic(), flush=True)
            return UNREADABLE
        if "malformed" not in str(error) and "not a database" not in str(error):
            raise
        print(f"unsound: {error}", flush=True)
        return UNSOUND
    return 0


if __name__ == "__main__":
    sys.exit(main())
