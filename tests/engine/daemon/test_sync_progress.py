"""Tests of what is still to come until a database is stored as requested."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.shipping import G1, G2, T0, segment
from walsyncd.adapters.journal.journal import Advance, Journal
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.stored.position import Position
from walsyncd.engine.daemon.sync_progress import SyncPoint, is_outdated, missing, parse_sync_point
from walsyncd.errors import UsageError

ASKED = SyncPoint(position=Position(G1, 1, 2), object_id=1, rewinds=0, by_base=False)
OTHER = replace(ASKED, position=Position(G2, 1, 2))


def test_segments_then_the_base_are_waited_for(tmp_path: Path) -> None:
    """What was spooled after the request does not count. An error and another generation do."""
    with Journal.open(tmp_path) as journal:
        database = journal.database("app", "/srv/app.db")
        journal.begin_generation(database.id, G1, "test", "{}", T0)
        first, _ = journal.advance([Advance(database.id, "{}", (segment(1, 2), segment(3, 4)))])
        row = journal.database_by_id(database.id)
        assert missing(journal, row, ASKED) == "1 objects wait to be uploaded"
        journal.stored(first.id, now_ms=T0, tokens=1)
        assert missing(journal, row, ASKED) == "the base is not stored yet"
        assert missing(journal, row, "it can't be read") == "it can't be read"
        assert missing(journal, row, OTHER) == "a new generation begins"
        assert not is_outdated(row, ASKED)
        assert "read again" in missing(journal, row, replace(ASKED, rewinds=1))
        assert is_outdated(row, replace(ASKED, rewinds=1))
        assert is_outdated(row, OTHER)
        assert is_outdated(row, "it can't be read")


def test_what_is_dropped_while_it_is_asked_about_is_not_stored(tmp_path: Path) -> None:
    """The row has the generation from before the drop, and the spool is empty after it."""
    with Journal.open(tmp_path) as journal:
        database = journal.database("app", "/srv/app.db")
        journal.begin_generation(database.id, G1, "test", "{}", T0)
        base_key = f"{G1}/base/00000001-00000000-00000001.00000001-00000000.{T0:013}.json.zst"
        journal.advance([Advance(database.id, "{}", (segment(1, 2),))])
        before = replace(journal.database_by_id(database.id), base_key=base_key)
        assert missing(journal, before, ASKED) == "1 objects wait to be uploaded"
        journal.lose_generation(database.id, G1, Gap.of(GapKind.OWNER, "another daemon writes"), T0)
        assert missing(journal, before, ASKED) == "what was spooled was dropped"


def test_a_point_passes_through_the_socket_whole() -> None:
    """Parsing is the inverse of formatting, and an error comes back as its text."""
    assert parse_sync_point(ASKED.fields()) == ASKED
    assert parse_sync_point({"error": "it can't be read"}) == "it can't be read"


@pytest.mark.parametrize(
    "change",
    [{"position": "x"}, {"object_id": "1"}, {"object_id": True}, {"object_id": 2**70}, {"rewinds": None}],
)
def test_what_sync_never_answered_is_refused(change: dict[str, Any]) -> None:
    """Each field is tried with another type and out of its range."""
    with pytest.raises(UsageError):
        parse_sync_point({**ASKED.fields(), **change})
