"""The journal's part of the page maps: which file is a database's map, and which changes that file lacks.

Applying every redo row of the database to the file, oldest first, gives the map at the journal's position. A redo row
is written in the transaction of its segment. It outlives the segment's row, and is deleted once the file holds the
redo. The file never takes over the redo of a segment before the segment is stored, since spooled segments can still be
dropped, together with their redo rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

from walsyncd.adapters.journal.journal_schema import Connection, Record
from walsyncd.core.content.comparison import Cipher
from walsyncd.core.content.redo import Redo, format_entries, parse_entries
from walsyncd.core.stored.position import Position


@dataclass(frozen=True, slots=True)
class PageMapRow:
    """The map of a database: the id and the counter of its file, and the generation and page size that it belongs to.

    ``scanned_…`` are the time when the database file was last found to agree with the map, and the position at that
    time. They are 0 if it never was.
    """

    database_id: int
    generation: str
    map_id: str
    counter: int
    page_size: int
    cipher: Cipher
    scanned_ms: int
    scanned_epoch: int
    scanned_frame: int


@dataclass(frozen=True, slots=True)
class RedoRow:
    """The changes that frames ``first`` to ``last`` of an epoch make in the map. Ids ascend like positions."""

    id: int
    epoch: int
    first: int
    last: int
    redo: Redo


_MAP = ", ".join(field.name for field in fields(PageMapRow))
_IS_STORED = (
    "redo.generation = database.stored_generation"
    " AND (redo.epoch, redo.last) <= (database.stored_epoch, database.stored_frame)"
)


@dataclass(frozen=True, slots=True)
class NewPageMap:
    """A new map of a database in this generation: the file ``map_id``, and the redo rows after ``before``."""

    database_id: int
    generation: str
    map_id: str
    page_size: int
    before: Position


class PageMapReads(Connection):
    """Queries."""

    def page_map(self, database_id: int) -> PageMapRow | None:
        """Return the map of a database, or None if there is none."""
        sql = f"SELECT {_MAP} FROM page_map WHERE database_id = ?"  # noqa: S608  constants
        rows = self._rows(sql, (database_id,))
        return _map_row(rows[0]) if rows else None

    def page_maps(self) -> list[PageMapRow]:
        """Return all maps."""
        rows = self._rows(f"SELECT {_MAP} FROM page_map ORDER BY database_id")  # noqa: S608  constants
        return [_map_row(row) for row in rows]

    def redo_rows(self, database_id: int, *, stored_only: bool = False) -> list[RedoRow]:
        """Return the redo rows that the map's file lacks, oldest first: all, or only those of stored segments."""
        sql = (
            "SELECT redo.id, epoch, first, last, size_min, size, entries FROM redo"  # noqa: S608  constants
            " JOIN database ON database.id = redo.database_id"
            f" WHERE redo.database_id = ?1 AND (NOT ?2 OR ({_IS_STORED})) ORDER BY redo.id"
        )
        return [
            RedoRow(row_id, epoch, first, last, parse_entries(text, size_min=size_min, size=size))
            for row_id, epoch, first, last, size_min, size, text in self._rows(sql, (database_id, stored_only))
        ]

    def redo_waiting(self) -> list[tuple[int, int]]:
        """Return pairs of a database's id and the bytes of redo rows that the file of its map may take over."""
        sql = (
            "SELECT redo.database_id, sum(length(entries)) FROM redo"  # noqa: S608  constants
            " JOIN database ON database.id = redo.database_id"
            f" JOIN page_map ON page_map.database_id = redo.database_id WHERE {_IS_STORED} GROUP BY redo.database_id"
        )
        return [(int(row_id), int(size)) for row_id, size in self._rows(sql)]


class PageMapTable(PageMapReads):
    """Changes to maps. Every method is one durable step."""

    def page_map_made(self, database_id: int, generation: str, map_id: str, page_size: int, before: Position) -> bool:
        """Note that ``map_id`` is the file of the map and lacks only the rows after ``before``. Delete older rows.

        Returns False if the generation is no longer the current one.
        """
        return bool(self.page_maps_made([NewPageMap(database_id, generation, map_id, page_size, before)]))

    def page_maps_made(self, maps: Iterable[NewPageMap]) -> set[int]:
        """Note the maps of several databases as ``page_map_made`` does, in one transaction.

        Returns the databases whose generation is still the current one. The maps of the others are not noted.
        """
        with self._transaction() as connection:
            return {new.database_id for new in maps if _note_made(connection, new)}

    def redo_forgotten(self, database_id: int, before: Position) -> None:
        """Delete the rows up to ``before``, which no map will need. Deletes nothing if the database has a map."""
        if not self._rows("SELECT 1 FROM redo WHERE database_id = ? LIMIT 1", (database_id,)):
            return  # rows that are added meanwhile are newer than ``before``
        with self._transaction() as connection:
            if connection.execute("SELECT 1 FROM page_map WHERE database_id = ?", (database_id,)).fetchone() is None:
                _forget_upto(connection, database_id, before)

    def page_map_written(self, database_id: int, map_id: str, counter: int, last_id: int) -> None:
        """Note that the file durably holds the changes of the rows up to ``last_id``, and delete these rows."""
        with self._transaction() as connection:
            sql = "UPDATE page_map SET counter = ? WHERE database_id = ? AND map_id = ?"
            if connection.execute(sql, (counter, database_id, map_id)).rowcount:
                connection.execute("DELETE FROM redo WHERE database_id = ? AND id <= ?", (database_id, last_id))

    def page_map_lost(self, database_id: int) -> None:
        """Forget a map whose file is gone or belongs to another history. The rows stay for the next map."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM page_map WHERE database_id = ?", (database_id,))

    def note_cipher(self, database_id: int, cipher: Cipher) -> None:
        """Note whether the database file holds the bytes of the frames that were copied into it."""
        with self._transaction() as connection:
            connection.execute("UPDATE page_map SET cipher = ? WHERE database_id = ?", (cipher, database_id))

    def note_scanned(self, database_id: int, position: Position, now_ms: int) -> None:
        """Note that the database file agreed with the map at ``position``."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE page_map SET scanned_ms = ?, scanned_epoch = ?, scanned_frame = ?"
                " WHERE database_id = ? AND generation = ?",
                (now_ms, position.epoch, position.frame, database_id, position.generation),
            )


def _note_made(connection: sqlite3.Connection, new: NewPageMap) -> bool:
    sql = "SELECT 1 FROM database WHERE id = ? AND generation = ?"
    if connection.execute(sql, (new.database_id, new.generation)).fetchone() is None:
        return False
    connection.execute(
        "INSERT OR REPLACE INTO page_map (database_id, generation, map_id, counter, page_size, cipher)"
        " VALUES (?1, ?2, ?3, 0, ?4, 'unknown')",
        (new.database_id, new.generation, new.map_id, new.page_size),
    )
    _forget_upto(connection, new.database_id, new.before)
    return True


def _map_row(record: Record) -> PageMapRow:
    row = PageMapRow(*record)
    return replace(row, cipher=Cipher(row.cipher))


def insert_redo(
    connection: sqlite3.Connection, database_id: int, generation: str, place: tuple[int, int, int], redo: Redo
) -> None:
    """Add the redo row of a segment. ``place`` holds the segment's epoch, first frame and last frame."""
    connection.execute(
        "INSERT INTO redo (database_id, generation, epoch, first, last, size_min, size, entries)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (database_id, generation, *place, redo.size_min, redo.size, format_entries(redo)),
    )


def forget_map(connection: sqlite3.Connection, database_id: int, generation: str | None = None) -> None:
    """Forget a database's map and redo rows, if they are of ``generation`` or ``generation`` is None."""
    for table in ("page_map", "redo"):
        sql = f"DELETE FROM {table} WHERE database_id = ?1 AND (?2 IS NULL OR generation = ?2)"  # noqa: S608  constants
        connection.execute(sql, (database_id, generation))


def _forget_upto(connection: sqlite3.Connection, database_id: int, before: Position) -> None:
    connection.execute(
        "DELETE FROM redo WHERE database_id = ?1 AND (generation != ?2 OR (epoch, last) <= (?3, ?4))",
        (database_id, before.generation, before.epoch, before.frame),
    )
