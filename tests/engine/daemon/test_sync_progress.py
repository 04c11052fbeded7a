"""What is still to come until a database is stored as it was asked for."""

from __future__ import annotations

from pathlib import Path

from tests.shipping import G1, G2, T0, segment
from walsyncd.adapters.journal.journal import Advance, Journal
from walsyncd.engine.daemon.sync_progress import is_outdated, missing

ASKED = {"position": f"{G1}/00000001/00000002", "generation": G1, "object_id": 1, "by_base": False}


def test_segments_then_the_base_are_waited_for(tmp_path: Path) -> None:
    """What was spooled after the question does not count; an error and another generation do."""
    with Journal.open(tmp_path) as journal:
        database = journal.database("app", "/srv/app.db")
        journal.begin_generation(database.id, G1, "test", "{}", T0)
        first, _ = journal.advance([Advance(database.id, "{}", (segment(1, 2), segment(3, 4)))])
        row = journal.database_by_id(database.id)
        assert missing(journal, row, ASKED) == "1 objects wait to be uploaded"
        journal.stored(first.id, now_ms=T0, tokens=1)
        assert missing(journal, row, ASKED) == "the base is not stored yet"
        assert missing(journal, row, {"error": "it can't be read"}) == "it can't be read"
        assert missing(journal, row, ASKED | {"generation": G2}) == "a new generation begins"
        assert not is_outdated(row, ASKED)
        assert "read again" in missing(journal, row, ASKED | {"rewinds": 1})
        assert is_outdated(row, ASKED | {"rewinds": 1})
        assert is_outdated(row, ASKED | {"generation": G2})
        assert is_outdated(row, {"error": "it can't be read"})
