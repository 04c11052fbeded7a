"""The journal's closed epochs. The stored segments of each are to become one object, and the rows note the progress.

    segment stored → kept ──(epoch closed)──> begun ──(read back)──> stored ──(an hour, segments deleted)──> replaced

Rows of ``kept`` name the segments of an epoch, so that no listing is needed. The segments' bodies are kept as well, up
to the ``bytes_max`` of ``keep_bodies`` in all. A row in state ``replaced`` stays until a listing shows that the
segments are gone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from walsyncd.adapters.journal.journal_schema import Connection
from walsyncd.adapters.journal.stored_table import StoredTable

_OF_EPOCH = "database_id = ? AND generation = ? AND epoch = ?"


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch of a database, by its row id."""

    database_id: int
    generation: str
    epoch: int


@dataclass(frozen=True, slots=True)
class KeptRow:
    """A stored segment. ``has_body`` means that the journal or the spool still holds its bytes."""

    first: int
    last: int
    key: str
    size: int
    body_path: str | None
    has_body: bool


@dataclass(frozen=True, slots=True)
class WholeRow:
    """An epoch in one object, in ``state`` since ``at_ms`` by the store's clock."""

    epoch: Epoch
    key: str
    size: int
    state: str
    at_ms: int


class WholeReads(Connection):
    """Queries about closed epochs."""

    def closed_epochs(self, database_id: int | None = None) -> list[Epoch]:
        """Return the closed epochs of one database, or of all, that have not become one object yet, oldest first."""
        sql = (
            "SELECT DISTINCT k.database_id, k.generation, k.epoch FROM kept k JOIN database d ON d.id = k.database_id"
            " LEFT JOIN whole w ON w.database_id = k.database_id AND w.generation = k.generation"
            " AND w.epoch = k.epoch WHERE coalesce(w.state, 'begun') = 'begun'"
            " AND NOT EXISTS (SELECT 1 FROM object o WHERE o.database_id = k.database_id AND o.kind = 'segment'"
            " AND o.generation = k.generation AND o.epoch <= k.epoch)"
            " AND (d.generation IS NOT k.generation"
            " OR (d.stored_generation = k.generation AND d.stored_epoch > k.epoch))"
        )
        order = " ORDER BY k.generation, k.epoch"
        if database_id is None:
            return [Epoch(*row) for row in self._rows(sql + order)]
        return [Epoch(*row) for row in self._rows(sql + " AND k.database_id = ?" + order, (database_id,))]

    def kept(self, epoch: Epoch) -> list[KeptRow]:
        """Return the epoch's segments in order, as far as this journal knows them."""
        columns = "first, last, key, size, body_path, body IS NOT NULL OR body_path IS NOT NULL"
        sql = f"SELECT {columns} FROM kept WHERE {_OF_EPOCH} ORDER BY first"  # noqa: S608  constants
        return [KeptRow(*row) for row in self._rows(sql, _values(epoch))]

    def wholes(self, database_id: int) -> list[WholeRow]:
        """Return the epochs of a database that are becoming one object."""
        return self._wholes("database_id = ?", database_id)

    def wholes_stored(self, by_ms: int) -> list[WholeRow]:
        """Return all databases' epochs that became one object by ``by_ms`` and whose segments still exist."""
        return self._wholes("state = 'stored' AND at_ms <= ?", by_ms)

    def _wholes(self, which: str, value: int) -> list[WholeRow]:
        sql = f"SELECT database_id, generation, epoch, key, size, state, at_ms FROM whole WHERE {which}"  # noqa: S608
        return [WholeRow(Epoch(*row[:3]), *row[3:]) for row in self._rows(sql, (value,))]


class WholeTable(WholeReads, StoredTable):
    """Changes to closed epochs. Every method is one durable step."""

    def keep_bodies(self, bytes_max: int, is_kept: Callable[[int], bool] = lambda _database_id: True) -> None:
        """Keep stored segments of the databases that ``is_kept`` accepts.

        Their bodies are kept too, up to ``bytes_max`` bytes in all.
        """
        sql = "SELECT coalesce(sum(size), 0) FROM kept WHERE body IS NOT NULL OR body_path IS NOT NULL"
        self._kept_bytes = int(self._rows(sql)[0][0])
        self._kept_bytes_max, self._is_kept = bytes_max, is_kept

    def kept_blocks(self, epoch: Epoch, row: KeptRow) -> Iterator[bytes]:
        """Yield a kept body in blocks of bounded size. Raises CorruptError if its file can't be read."""
        if row.body_path is not None:
            yield from self._spool.blocks(row.body_path)
            return
        sql = f"SELECT body FROM kept WHERE {_OF_EPOCH} AND first = ?"  # noqa: S608  constants
        yield from (record[0] for record in self._rows(sql, (*_values(epoch), row.first)))

    def whole_begun(self, epoch: Epoch, key: str, size: int, now_ms: int) -> None:
        """Note that the epoch is about to be written as one object."""
        with self._transaction() as connection:
            sql = "INSERT OR REPLACE INTO whole VALUES (?, ?, ?, ?, ?, 'begun', ?)"
            connection.execute(sql, (*_values(epoch), key, size, now_ms))

    def whole_stored(self, epoch: Epoch, now_ms: int) -> None:
        """Note that the object was read back and is correct. The bodies are then no longer needed."""
        self._drop_bodies(epoch)
        with self._transaction() as connection:
            sql = f"UPDATE whole SET state = 'stored', at_ms = ? WHERE {_OF_EPOCH} RETURNING size"  # noqa: S608
            (size,) = connection.execute(sql, (now_ms, *_values(epoch))).fetchone()
            _count(connection, epoch.database_id, objects=1, size=size)

    def whole_replaced(self, epoch: Epoch, now_ms: int) -> None:
        """Note that the segments were deleted from the store."""
        rows = self.kept(epoch)
        with self._transaction() as connection:
            sql = f"UPDATE whole SET state = 'replaced', at_ms = ? WHERE {_OF_EPOCH}"  # noqa: S608  constants
            connection.execute(sql, (now_ms, *_values(epoch)))
            connection.execute(f"DELETE FROM kept WHERE {_OF_EPOCH}", _values(epoch))  # noqa: S608  constants
            size = sum(row.size for row in rows)
            _count(connection, epoch.database_id, objects=-len(rows), size=-size)
            sql = "UPDATE database SET prune_due_ms = coalesce(prune_due_ms, ?) WHERE id = ?"
            connection.execute(sql, (now_ms, epoch.database_id))  # the listing shows whether they are gone

    def epoch_forgotten(self, epoch: Epoch) -> None:
        """Forget an epoch for which nothing is left to do."""
        self._drop_bodies(epoch)
        with self._transaction() as connection:
            for table in ("kept", "whole"):
                connection.execute(f"DELETE FROM {table} WHERE {_OF_EPOCH}", _values(epoch))  # noqa: S608  constants

    def forget_kept(self, database_id: int) -> None:
        """Forget a database's kept segments: deletion is not allowed, or the replica is in another storage."""
        sql = "SELECT DISTINCT database_id, generation, epoch FROM kept WHERE database_id = ?"
        for record in self._rows(sql, (database_id,)):
            self.epoch_forgotten(Epoch(*record))
        with self._transaction() as connection:
            connection.execute("DELETE FROM whole WHERE database_id = ?", (database_id,))

    def _drop_bodies(self, epoch: Epoch) -> None:
        """Remove the bodies.

        The rows are changed first. A crash then leaves at worst files that no row names, which ``sweep`` removes.
        """
        rows = [row for row in self.kept(epoch) if row.has_body]
        with self._transaction() as connection:
            sql = f"UPDATE kept SET body = NULL, body_path = NULL WHERE {_OF_EPOCH}"  # noqa: S608  constants
            connection.execute(sql, _values(epoch))
            self._kept_bytes -= sum(row.size for row in rows)
        self._remove_files(row.body_path for row in rows)


def _values(epoch: Epoch) -> tuple[int, str, int]:
    return epoch.database_id, epoch.generation, epoch.epoch


def _count(connection: sqlite3.Connection, database_id: int, *, objects: int, size: int) -> None:
    connection.execute(
        "UPDATE database SET bucket_objects = max(0, bucket_objects + ?), bucket_bytes = max(0, bucket_bytes + ?)"
        " WHERE id = ?",
        (objects, size, database_id),
    )
