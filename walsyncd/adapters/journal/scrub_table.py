"""The journal's scrubs: how the last comparison of each database's file with its page map ended."""

from __future__ import annotations

from dataclasses import dataclass

from walsyncd.adapters.journal.journal_schema import Connection


@dataclass(frozen=True, slots=True)
class ScrubRow:
    """The last scrub that ended. ``at_ms`` is when it ended (since 1970), or 0 if none has ended.

    It compared ``pages`` pages, of which ``differing`` differed. ``differing_total`` is the sum over all scrubs.
    ``skipped`` says why a later scrub compared nothing. It is empty if no later scrub was skipped.
    """

    database_id: int
    at_ms: int
    pages: int
    differing: int
    differing_total: int
    skipped: str


class ScrubReads(Connection):
    """Queries."""

    def last_scrub(self, database_id: int) -> ScrubRow | None:
        """Return the last scrub of a database."""
        sql = "SELECT database_id, at_ms, pages, differing, differing_total, skipped FROM scrub WHERE database_id = ?"
        rows = self._rows(sql, (database_id,))
        return ScrubRow(*rows[0]) if rows else None


class ScrubTable(ScrubReads):
    """Changes by the daemon."""

    def note_scrub(self, database_id: int, *, at_ms: int, pages: int, differing: int) -> None:
        """Note that a scrub ended."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO scrub VALUES (?1, ?2, ?3, ?4, ?4, '') ON CONFLICT (database_id) DO UPDATE SET"
                " at_ms = ?2, pages = ?3, differing = ?4, differing_total = differing_total + ?4, skipped = ''",
                (database_id, at_ms, pages, differing),
            )

    def note_scrub_skipped(self, database_id: int, reason: str) -> None:
        """Note that a scrub could compare nothing, and why."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO scrub VALUES (?1, 0, 0, 0, 0, ?2) ON CONFLICT (database_id) DO UPDATE SET skipped = ?2",
                (database_id, reason),
            )
