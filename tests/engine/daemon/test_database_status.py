"""How databases stand, from the journal alone."""

from __future__ import annotations

from pathlib import Path

from tests.shipping import G1, T0, segment
from walsyncd.adapters.journal.journal import Advance, Journal, reader
from walsyncd.engine.daemon.database_status import statuses


def test_lag_is_the_age_of_the_oldest_commit_that_waits(tmp_path: Path) -> None:
    """With nothing waiting it is 0, however long ago the last commit was."""
    with Journal.open(tmp_path) as journal:
        idle = journal.database("idle", "/srv/idle.db")
        busy = journal.database("busy", "/srv/busy.db")
        for row in (idle, busy):
            journal.begin_generation(row.id, G1, "test", None, T0)
        journal.advance([Advance(busy.id, None, (segment(1, 1), segment(2, 5)))])
        journal.note_error(idle.id, "storage is away", T0)
        with reader(tmp_path) as view:
            told = {status.name: status for status in statuses(view, now_ms=T0 + 2001)}
            assert [status.name for status in statuses(view, now_ms=T0, configured=["idle"])] == ["idle"]
    assert (told["busy"].lag_s, told["busy"].spool_objects) == (2.0, 2)
    assert (told["idle"].lag_s, told["idle"].spool_objects) == (0, 0)
    assert (told["idle"].error, told["idle"].error_ms) == ("storage is away", T0)
    assert told["busy"].position is None
