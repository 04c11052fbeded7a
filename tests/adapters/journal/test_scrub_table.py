"""Tests of scrubs in the journal: the last one of each database, and how many pages ever differed."""

from __future__ import annotations

from pathlib import Path

from walsyncd.adapters.journal.journal import Journal, reader
from walsyncd.adapters.journal.scrub_table import ScrubRow


def test_last_scrub_is_remembered(tmp_path: Path) -> None:
    """A later scrub replaces the last one, and differences add up. A skipped scrub changes neither."""
    with Journal.open(tmp_path) as journal:
        row = journal.database("app", "/app.db")
        assert journal.last_scrub(row.id) is None
        journal.note_scrub_skipped(row.id, "no map")
        assert journal.last_scrub(row.id) == ScrubRow(row.id, 0, 0, 0, 0, "no map")
        journal.note_scrub(row.id, at_ms=1000, pages=50, differing=2)
        assert journal.last_scrub(row.id) == ScrubRow(row.id, 1000, 50, 2, 2, "")
        journal.note_scrub(row.id, at_ms=2000, pages=60, differing=0)
        journal.note_scrub_skipped(row.id, "no WAL")
        with reader(tmp_path) as beside:
            assert beside.last_scrub(row.id) == ScrubRow(row.id, 2000, 60, 0, 2, "no WAL")
