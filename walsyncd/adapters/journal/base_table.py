"""The journal's bases under way. The bytes of a part are only in memory until the store acknowledges the part.

begun ──(stored)──> stored ──(its manifest stored)──> row removed
  └──(dropped)──> a leftover upload, to be aborted
"""

from __future__ import annotations

from walsyncd.adapters.journal.journal_schema import Connection
from walsyncd.adapters.journal.rows import (
    COLUMNS,
    UNNUMBERED,
    UNWRITTEN,
    Base,
    ObjectKind,
    ObjectRow,
    ObjectState,
    StoredBase,
    drop_one,
    fetch,
    insert,
    note_base_stored,
    object_row,
)


class BaseReads(Connection):
    """Queries about bases under way."""

    def bases(self, database_id: int | None = None) -> list[Base]:
        """Return the bases whose manifest is not stored yet, of one database or all, oldest first."""
        sql = (
            f"SELECT {COLUMNS}, plan, etag FROM object"  # noqa: S608  constants
            " WHERE kind = 'base' AND (?1 IS NULL OR database_id = ?1) ORDER BY id"
        )
        return [Base(object_row(record[:-2]), record[-2], record[-1]) for record in self._rows(sql, (database_id,))]


class BaseTable(BaseReads):
    """Changes to bases under way. Every method is one durable step."""

    def base_begun(
        self,
        database_id: int,
        *,
        generation: str,
        key: str,
        token: str,
        plan: str,
        part_size: int,
        epoch: int,
        frame: int,
        now_ms: int,
        run_id: str = "",
    ) -> ObjectRow:
        """Note that a base is about to be stored; ``epoch`` and ``frame`` are its start S.

        ``run_id`` is the run that is about to claim the database. If no run can have written to the database's folder
        yet, the run is noted as ``claim_begun`` does.
        """
        new = ObjectRow(
            id=UNNUMBERED,
            database_id=database_id,
            generation=generation,
            kind=ObjectKind.BASE,
            key=key,
            size=0,
            md5="",
            token=token,
            epoch=epoch,
            first=frame,
            last=frame,
            time_ms=now_ms,
            state=ObjectState.BEGUN,
            upload_id=None,
            part_size=part_size,
            body_path=None,
            attempted_ms=now_ms,
        )
        with self._transaction() as connection:
            row = insert(connection, new, None)
            connection.execute("UPDATE object SET plan = ? WHERE id = ?", (plan, row.id))
            if run_id:
                sql = f"UPDATE database SET owner_next = ? WHERE id = ? AND {UNWRITTEN}"  # noqa: S608  constants
                connection.execute(sql, (run_id, database_id))
        return row

    def base_stored(self, object_id: int, *, etag: str, size: int) -> None:
        """Note that the upload was completed. The row stays until the manifest is stored."""
        with self._transaction() as connection:
            note_base_stored(connection, StoredBase(object_id, etag, size))

    def gap_found(self, database_id: int, follow: str) -> None:
        """Store a follow state in which a gap is bridged. Drop every base under way, since it has become worthless."""
        with self._transaction() as connection:
            connection.execute("UPDATE database SET follow = ? WHERE id = ?", (follow, database_id))
            sql = "SELECT id FROM object WHERE kind = 'base' AND database_id = ?"
            for (object_id,) in connection.execute(sql, (database_id,)).fetchall():
                row = fetch(connection, object_id)
                assert row is not None
                drop_one(connection, row)

    def base_dropped(self, object_id: int) -> None:
        """Drop a worthless base. An upload that is still open becomes a leftover."""
        with self._transaction() as connection:
            row = fetch(connection, object_id)
            if row is not None:
                drop_one(connection, row)
