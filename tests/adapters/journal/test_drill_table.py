"""Tests of drills in the journal: the last one of each database, and what one that passed proves."""

from __future__ import annotations

from pathlib import Path

from walsyncd.adapters.journal.drill_table import DrillOutcome, DrillRow
from walsyncd.adapters.journal.journal import Journal, reader


def test_last_drill_is_remembered(tmp_path: Path) -> None:
    """A later drill replaces the last one. A failed drill proves nothing, and what was proven before stays."""
    with Journal.open(tmp_path) as journal:
        row = journal.database("app", "/app.db")
        assert journal.last_drill(row.id) is None
        passed = DrillRow(row.id, 1000, DrillOutcome.PASSED, "g/1/2", "all")
        journal.note_drill(passed, name="app", proven_key="g/base/x")
        assert journal.last_drill(row.id) == passed
        failed = DrillRow(row.id, 2000, DrillOutcome.FAILED, "", "gone")
        journal.note_drill(failed, name="app", proven_key="g/base/y")
        assert (journal.database_by_id(row.id).proven_key, journal.verified_ms("app")) == ("g/base/x", 1000)
        with reader(tmp_path) as beside:
            assert beside.last_drill(row.id) == failed
