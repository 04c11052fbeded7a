"""The journal's multipart uploads: their ids, their parts, and the abandoned ones."""

from __future__ import annotations

from collections.abc import Iterable

from walsyncd.adapters.journal.journal_schema import Connection
from walsyncd.adapters.journal.rows import Leftover, PartRow, fetch


class UploadReads(Connection):
    """Queries about uploads."""

    def parts(self, object_id: int) -> list[PartRow]:
        """Return the parts of one object that were begun, by number."""
        sql = "SELECT number, size, md5, etag, detail FROM part WHERE object_id = ? ORDER BY number"
        return [PartRow(*record) for record in self._rows(sql, (object_id,))]

    def leftovers(self) -> list[Leftover]:
        """Return the abandoned uploads, which have to be aborted."""
        sql = "SELECT id, database_id, key, upload_id FROM leftover ORDER BY id"
        return [Leftover(*record) for record in self._rows(sql)]


class UploadTable(UploadReads):
    """Changes to uploads. Every method is one durable step."""

    def upload_opened(self, object_id: int, upload_id: str, part_size: int) -> bool:
        """Note that the store has opened a multipart upload. Returns False if the row was dropped meanwhile."""
        with self._transaction() as connection:
            sql = "UPDATE object SET upload_id = ?, part_size = ? WHERE id = ?"
            return connection.execute(sql, (upload_id, part_size, object_id)).rowcount == 1

    def upload_forgotten(self, object_id: int) -> None:
        """Forget an upload that the store no longer knows, with the parts that it had acknowledged."""
        with self._transaction() as connection:
            connection.execute("UPDATE object SET upload_id = NULL WHERE id = ?", (object_id,))
            connection.execute("UPDATE part SET etag = NULL WHERE object_id = ?", (object_id,))

    def parts_begun(self, object_id: int, parts: Iterable[PartRow]) -> bool:
        """Note that these parts are about to be sent. Returns False if the row was dropped meanwhile."""
        with self._transaction() as connection:
            if fetch(connection, object_id) is None:
                return False
            connection.executemany(
                "INSERT OR REPLACE INTO part (object_id, number, size, md5, etag, detail) VALUES (?, ?, ?, ?, ?, ?)",
                [(object_id, part.number, part.size, part.md5, part.etag, part.detail) for part in parts],
            )
            return True

    def part_begun(self, object_id: int, number: int, size: int, md5: str, detail: str = "") -> bool:
        """Note that one part is about to be sent. Returns False if the row was dropped meanwhile."""
        return self.parts_begun(object_id, [PartRow(number, size, md5, None, detail)])

    def part_stored(self, object_id: int, number: int, etag: str) -> None:
        """Note that the store acknowledged a part."""
        with self._transaction() as connection:
            sql = "UPDATE part SET etag = ? WHERE object_id = ? AND number = ?"
            connection.execute(sql, (etag, object_id, number))

    def leftover_aborted(self, leftover_id: int) -> None:
        """Note that an abandoned upload is no longer open."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM leftover WHERE id = ?", (leftover_id,))
