"""The end of an object in the journal: the store has acknowledged it, at once or with the next transaction."""

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
    """Changes to objects that are stored. Every method is one step, which is durable unless its name says otherwise."""

    def deferred_due_s(self) -> float | None:
        """Return in how many seconds ``commit_deferred`` has to be called, or None if nothing is deferred."""
        return self._deferred.due_s()

    def stored_deferred(self, row: ObjectRow, *, now_ms: int, tokens: float) -> bool:
        """Note as ``stored`` does that the store acknowledged a segment, with the next transaction if one comes soon.

        Until then the store has this object and the journal on the disk does not say so. Every row that is begun after
        it is begun in a later transaction, or in the one that notes this, so it is never more than one per database.
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
        """Note that the store acknowledged the object: advance the database, remove the row, then the body.

        A segment's body may be kept until its epoch becomes one object (``epoch_table``). ``tokens`` of the database's
        bucket are left. Returns False if the row was dropped meanwhile.
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
