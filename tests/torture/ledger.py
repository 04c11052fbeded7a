"""The content of a tortured database, by which any restored copy can be judged alone.

| table    | what it holds                                                                              |
|----------|--------------------------------------------------------------------------------------------|
| `item`   | blobs of random content and size, inserted, changed and deleted at random                   |
| `ledger` | one row: transactions so far, the sum of the digests of all items, the chain                 |
| `log`    | that row as it was after each transaction                                                  |

The chain is SHA-256 over the chain before, the number and the sum. So a copy is some committed state exactly if its
items add up to the sum, its log is whole, and the chain is the one that the live database has at that number; equal
chains mean equal histories. `VACUUM` commits without counting.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

MODULUS = 2**62

SCHEMA = (
    "CREATE TABLE item (id INTEGER PRIMARY KEY, data BLOB NOT NULL)",
    "CREATE INDEX item_length ON item (length(data), id)",
    "CREATE TABLE ledger (n INTEGER NOT NULL, content INTEGER NOT NULL, chain BLOB NOT NULL)",
    "CREATE TABLE log (n INTEGER PRIMARY KEY, content INTEGER NOT NULL, chain BLOB NOT NULL)",
    "INSERT INTO ledger VALUES (0, 0, x'')",
)


class UnsoundError(Exception):
    """A database is no committed state, for this reason."""


class Connection(Protocol):
    """The methods that the module's connection and apsw's have in common."""

    def execute(self, sql: str, parameters: tuple[Any, ...] = ..., /) -> Iterable[tuple[Any, ...]]:
        """Run one statement."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The committed state of a database: its number of transactions, and the chain after each."""

    n: int
    chains: tuple[bytes, ...]


def create(file: Path, *, page_size: int, filler_bytes: int = 0) -> None:
    """Create an empty ledger in WAL mode, in a database of at least ``filler_bytes`` that nobody changes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for statement in (f"PRAGMA page_size={page_size}", "PRAGMA journal_mode=WAL", *SCHEMA):
            connection.execute(statement)
        connection.execute("CREATE TABLE filler AS SELECT randomblob(?) AS data", (filler_bytes,))


def digest(identity: int, data: bytes) -> int:
    """Return what an item adds to the sum."""
    head = hashlib.sha256(identity.to_bytes(8, "big") + data).digest()
    return int.from_bytes(head[:8], "big") % MODULUS


def _link(chain: bytes, n: int, content: int) -> bytes:
    return hashlib.sha256(chain + n.to_bytes(8, "big") + content.to_bytes(8, "big")).digest()


def count(connection: Connection, change: int) -> tuple[int, bytes]:
    """Enter the transaction under way, which changed the sum by ``change``. Return its number and chain."""
    ((n, content, chain),) = connection.execute("SELECT n, content, chain FROM ledger")
    n, content = n + 1, (content + change) % MODULUS
    chain = _link(chain, n, content)
    connection.execute("UPDATE ledger SET n = ?, content = ?, chain = ?", (n, content, chain))
    connection.execute("INSERT INTO log VALUES (?, ?, ?)", (n, content, chain))
    return n, chain


def standing_of(file: Path) -> Standing:
    """Judge a database that nobody has open and that has no WAL. Raises UnsoundError if it is no committed state."""
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?immutable=1", uri=True)) as connection:
            return _standing(connection)
    except sqlite3.DatabaseError as error:
        raise UnsoundError(f"SQLite can't read it: {error}") from error


def _standing(connection: sqlite3.Connection) -> Standing:
    verdict = connection.execute("PRAGMA integrity_check(3)").fetchall()
    if verdict != [("ok",)]:
        raise UnsoundError(f"integrity_check: {verdict}")
    ((n, content, chain),) = connection.execute("SELECT n, content, chain FROM ledger").fetchall()
    chains = [b""]
    summed = 0
    for row, (number, summed, linked) in enumerate(connection.execute("SELECT * FROM log ORDER BY n"), 1):
        if number != row or linked != _link(chains[-1], row, summed):
            raise UnsoundError(f"row {row} of the log is {number}, or breaks the chain")
        chains.append(linked)
    if (n, chain) != (len(chains) - 1, chains[-1]) or (n and content != summed):
        raise UnsoundError(f"the ledger counts {n} transactions, the log {len(chains) - 1}")
    found = sum(digest(*item) for item in connection.execute("SELECT id, data FROM item")) % MODULUS
    if found != content:
        raise UnsoundError(f"the items do not add up to what transaction {n} left")
    return Standing(n, tuple(chains))
