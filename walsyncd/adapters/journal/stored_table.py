"""Notes that the store has acknowledged an object, at once or in the next transaction, and removes the object's row."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from walsyncd.adapters.journal.object_table import ObjectTable
from walsyncd.adapters.journal.rows import (
    ObjectKind,
    ObjectRow,
    fetch,
    keep,
    note_manifest_stored,
    note_segment_stored,
)


class StoredTable(ObjectTable):
    """Changes to objects that are stored.

    Every method is one step, which is durable at once unless its name says deferred.
    """

    def deferred_due_s(self) -> float | None:
        """Return after how many seconds ``commit_deferred`` has to be called, or None if nothing is deferred."""
        return self._deferred.due_s()

    def stored_deferred(self, row: ObjectRow, *, now_ms: int, tokens: float) -> bool:
        """Do what ``stored`` does for a segment, but in the next transaction if another one is likely to come soon.

        Until that transaction the store has the object, but the journal on the disk does not say so. The database's
        next row is begun in that transaction or a later one. So at any time this is true of at most one object of a
        database.
        """
        if row.kind is not ObjectKind.SEGMENT or row.body_path is not None or not self._deferred.is_worthwhile():
            return self.stored(row.id, now_ms=now_ms, tokens=tokens)

        def note(connection: sqlite3.Connection) -> Callable[[], None]:
            kept = self._stored(connection, row, now_ms=now_ms, tokens=tokens)

            def count() -> None:
                self._kept_bytes += row.size if kept else 0

            return count

        self._deferred.add(note)
        return True

    def stored(self, object_id: int, *, now_ms: int, tokens: float) -> bool:
        """Note that the store acknowledged the object: advance the database and remove the row, then remove the body.

        A segment's body may be kept until its epoch becomes one object (``epoch_table``). ``tokens`` are left in the
        database's token bucket. Returns False if the row was dropped meanwhile.
        """
        with self._transaction() as connection:
            row = fetch(connection, object_id)
            if row is None:
                return False
            kept = self._stored(connection, row, now_ms=now_ms, tokens=tokens)
            self._kept_bytes += row.size if kept else 0
        self._remove_files([None if kept else row.body_path])
        return True

    def _stored(self, connection: sqlite3.Connection, row: ObjectRow, *, now_ms: int, tokens: float) -> bool:
        """Note that the row's object is stored, unless the row was dropped. Returns whether its body is kept."""
        kept = False
        if row.kind is ObjectKind.SEGMENT and self._kept_bytes_max is not None and self._is_kept(row.database_id):
            kept = self._kept_bytes + row.size <= self._kept_bytes_max
            keep(connection, row.id, with_body=kept)
        if not connection.execute("DELETE FROM object WHERE id = ?", (row.id,)).rowcount:
            return False
        if row.kind is ObjectKind.SEGMENT:
            note_segment_stored(connection, row, now_ms, tokens)
        else:
            note_manifest_stored(connection, row, now_ms, tokens)
        return kept
