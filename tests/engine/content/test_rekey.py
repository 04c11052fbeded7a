"""Tests of a database that gets another key beside the daemon: every page changes, and nothing is reported as wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.content.test_bridging import has_map, restored
from tests.engine.content.test_restored_files import CREATE, FILL, drilled, scrubbed, tuned, unlock
from tests.engine.running import Place, running, wait_for
from walsyncd.adapters.journal.drill_table import DrillOutcome

WAL = "PRAGMA journal_mode = WAL"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("cipher", ["chacha20", "sqlcipher"])
def test_another_key_raises_no_alarm(place: Place, cipher: str) -> None:
    """A cipher changes the key without a WAL. Whatever it costs, scrubs and drills find the replica right."""
    keys, settings = unlock(cipher), tuned(place, scrub_interval_s=None)
    app = SqliteProcess(place.database(), module="apsw")
    app.execute(*keys, WAL, CREATE[0], FILL)
    with running(settings):
        place.sync()
        app.execute("PRAGMA wal_checkpoint(TRUNCATE)", "INSERT INTO t (y) VALUES (1)")
        place.sync()
        wait_for(lambda: has_map(place))
        app.execute("PRAGMA journal_mode = DELETE", "PRAGMA rekey = 'another key'", WAL)
        app.execute("UPDATE t SET y = randomblob(900) WHERE x < 60")
        place.sync()
        app.execute("PRAGMA wal_checkpoint(TRUNCATE)", "UPDATE t SET y = randomblob(900) WHERE x = 70")
        place.sync()
        wait_for(lambda: has_map(place))
        assert scrubbed(place) == 0
        app.execute("PRAGMA wal_checkpoint(TRUNCATE)", "UPDATE t SET y = randomblob(900) WHERE x = 80")
        place.sync()
        assert scrubbed(place) == 0
        generation = place.row().generation
    found = drilled(place)
    assert (found.outcome, place.row().generation) == (DrillOutcome.PASSED, generation), found.detail
    copy = restored(place)
    app.close()
    with SqliteProcess(copy, module="apsw") as reader:
        count = reader.execute(keys[0], "PRAGMA key = 'another key'", "SELECT count(*) FROM t WHERE length(y) > 1")
        assert count == [[900]]
