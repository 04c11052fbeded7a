"""The journal's drills: the result of each database's last restore drill."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from enum import StrEnum

from walsyncd.adapters.journal.database_table import VERIFIED
from walsyncd.adapters.journal.journal_schema import Connection


class DrillOutcome(StrEnum):
    """How a drill ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class DrillRow:
    """A drill at ``at_ms`` (since 1970). ``position`` is the position that was restored, or "" if nothing was restored.

    ``detail`` says what was examined, or what went wrong.
    """

    database_id: int
    at_ms: int
    outcome: DrillOutcome
    position: str
    detail: str


class DrillReads(Connection):
    """Queries."""

    def last_drill(self, database_id: int) -> DrillRow | None:
        """Return the last drill of a database, or None."""
        sql = "SELECT database_id, at_ms, outcome, position, detail FROM drill WHERE database_id = ?"
        for row_id, at_ms, outcome, position, detail in self._rows(sql, (database_id,)):
            return DrillRow(row_id, at_ms, DrillOutcome(outcome), position, detail)
        return None


class DrillTable(DrillReads):
    """Changes by the daemon."""

    def note_drill(self, row: DrillRow, *, name: str, proven_key: str | None) -> None:
        """Note a result.

        A drill that passed proves the replica of ``name`` and the base of the manifest ``proven_key``.
        """
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO drill VALUES (?, ?, ?, ?, ?)", astuple(row))
            if row.outcome is DrillOutcome.PASSED:
                sql = "UPDATE database SET proven_key = coalesce(?, proven_key) WHERE id = ?"
                connection.execute(sql, (proven_key, row.database_id))
                fact = f"{VERIFIED}{name}", str(row.at_ms)
                connection.execute("INSERT OR REPLACE INTO fact (name, value) VALUES (?, ?)", fact)
