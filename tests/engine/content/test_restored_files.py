"""Tests of databases that were restored from their own replica: the generation continues, and no base is taken."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import apsw
import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.content.test_bridging import has_map, restored
from tests.engine.running import Place, running, wait_for
from walsyncd.adapters.journal.drill_table import DrillOutcome, DrillRow
from walsyncd.cli import main
from walsyncd.config import Settings
from walsyncd.core.follow.database_state import DatabaseState

CREATE = ("CREATE TABLE t (x INTEGER PRIMARY KEY, y)", "CREATE INDEX i ON t (y)")
FILL = (
    "INSERT INTO t (y) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900)"
    " SELECT randomblob(900) FROM n"
)
MODES = ["WAL", "DELETE"]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def begun(place: Place, mode: str) -> tuple[str, str]:
    """Make a database with an application, and a replica with a map. Return the generation, and a position before the
    last.

    The application has closed the database.
    """
    with running(place.settings("app")):
        with SqliteProcess(place.database()) as app:
            app.execute(f"PRAGMA journal_mode = {mode}", *CREATE, FILL)
            place.sync()
            wait_for(lambda: has_map(place))
            app.execute("UPDATE t SET y = randomblob(900) WHERE x < 5")
            before = place.sync()
            app.execute("UPDATE t SET y = randomblob(900) WHERE x BETWEEN 100 AND 105")
            place.sync()
            app.close()
        place.sync()
        generation = place.row().generation
        assert generation is not None
    return generation, before


def remove(place: Place) -> None:
    for path in place.database().parent.iterdir():
        path.unlink()


def restore(place: Place, *options: str) -> None:
    path = str(place.database())
    assert main([*["restore", "app"], *place.config(), "-o", path, *options]) == 0


def bases(place: Place) -> int:
    return len(list(place.replica.rglob("base/*.json.zst")))


def bridges(place: Place) -> int:
    return len(list(place.replica.rglob("*.bridge.wal.zst")))


def goes_on(place: Place, generation: str, *, bridged: int) -> None:
    """Assert that the generation continues, with the base that it has, and that new commits are restored exactly."""
    place.sync()
    assert place.row().generation == generation
    with SqliteProcess(place.database()) as app:
        app.execute("UPDATE t SET y = randomblob(900) WHERE x = 300", "DELETE FROM t WHERE x > 890")
        place.sync()
        app.close()
    place.sync()
    assert place.row().generation == generation
    assert bases(place) == 1
    assert bridges(place) == bridged
    assert restored(place).read_bytes() == place.database().read_bytes()


@pytest.mark.parametrize("mode", MODES)
def test_restored_while_the_daemon_was_away(place: Place, mode: str) -> None:
    """A scan shows that the restored file is what was shipped. Without a WAL the scan is a bridge in any case."""
    generation, _ = begun(place, mode)
    remove(place)
    restore(place)
    with running(place.settings("app")):
        goes_on(place, generation, bridged=int(mode == "DELETE"))


def test_written_before_the_daemon_starts(place: Place) -> None:
    """The bridge has what was written, and nothing else."""
    generation, _ = begun(place, "WAL")
    remove(place)
    restore(place)
    with SqliteProcess(place.database()) as app:
        app.execute("UPDATE t SET y = randomblob(900) WHERE x BETWEEN 200 AND 203")
        with running(place.settings("app")):
            place.sync()
            app.close()
            goes_on(place, generation, bridged=1)


def test_restored_to_an_earlier_moment(place: Place) -> None:
    """The bridge leads back to that moment."""
    generation, before = begun(place, "DELETE")
    restore(place, "--position", before, "--force")
    with running(place.settings("app")):
        goes_on(place, generation, bridged=1)


def test_restored_over_the_file_beside_the_daemon(place: Place) -> None:
    """``--force`` puts another file in its place."""
    generation, _ = begun(place, "WAL")
    with running(place.settings("app")):
        place.sync()
        restore(place, "--force")
        goes_on(place, generation, bridged=0)


@pytest.mark.parametrize("mode", MODES)
def test_lost_and_restored_beside_the_daemon(place: Place, mode: str) -> None:
    """As long as the file is missing, the generation waits."""
    generation, _ = begun(place, mode)
    with running(place.settings("app")):
        place.sync()
        remove(place)
        wait_for(lambda: place.row().state is DatabaseState.MISSING)
        restore(place)
        goes_on(place, generation, bridged=int(mode == "DELETE"))


def scrubbed(place: Place) -> int:
    """Compare now, as ``walsyncd scrub`` does. Return how many pages differ."""
    asked = place.ask(op="scrub", names=["app"])["databases"]
    done: dict[str, int] = {}

    def is_over() -> bool:
        done.update(place.ask(op="scrubbed", databases=asked)["done"])
        return bool(done)

    wait_for(is_over)
    found = json.loads(json.dumps(done))["app"]
    assert found["skipped"] == ""
    return int(found["differing"])


def unlock(cipher: str) -> tuple[str, ...]:
    if not hasattr(apsw, "mc_version"):
        pytest.skip("another apsw than that of apsw-sqlite3mc is installed")
    return f"PRAGMA cipher = '{cipher}'", "PRAGMA key = 'a key'", "PRAGMA wal_autocheckpoint = 0"


def tuned(place: Place, **changes: float | None) -> Settings:
    """Return the settings with those of the database changed."""
    settings = place.settings("app")
    return replace(settings, databases=tuple(replace(each, **changes) for each in settings.databases))  # type: ignore[arg-type]


def drilled(place: Place) -> DrillRow:
    """Return the result of a drill."""
    row_id = place.row().id

    def last() -> DrillRow | None:
        with place.journal() as journal:
            return journal.last_drill(row_id)

    with running(tuned(place, scrub_interval_s=None, verify_interval_s=1.0)):
        wait_for(last)
    row = last()
    assert row is not None
    return row


@pytest.mark.parametrize("restores", [False, True])
def test_a_drill_after_a_gap_raises_no_alarm(place: Place, restores: bool) -> None:
    """Some of the live file's pages have the bytes of the bridge, or of a restore, and others have those of frames."""
    keys, settings = unlock("chacha20"), tuned(place, scrub_interval_s=None)
    app = SqliteProcess(place.database(), module="apsw")
    app.execute(*keys, "PRAGMA journal_mode = WAL", CREATE[0], FILL)
    with running(settings):
        place.sync()
        app.execute("PRAGMA wal_checkpoint(TRUNCATE)", "INSERT INTO t (y) VALUES (1)")
        place.sync()
        wait_for(lambda: has_map(place))
        app.execute("UPDATE t SET y = randomblob(900) WHERE x < 60")
        place.sync()
        app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        place.sync()
        generation = place.row().generation
        if restores:
            app.close()
            place.sync()
    if restores:
        remove(place)
        restore(place)
        app = SqliteProcess(place.database(), module="apsw")
        app.execute(*keys)
    for number in range(0 if restores else 3):
        app.execute(f"UPDATE t SET y = randomblob(900) WHERE x = {number}", "PRAGMA wal_checkpoint(TRUNCATE)")
    with running(settings):
        place.sync()
        app.execute("UPDATE t SET y = randomblob(900) WHERE x BETWEEN 40 AND 90")
        place.sync()
        app.execute("PRAGMA wal_checkpoint(TRUNCATE)", "INSERT INTO t (y) VALUES (2)")
        place.sync()
    found = drilled(place)
    app.kill()
    assert (found.outcome, place.row().generation, bases(place)) == (DrillOutcome.PASSED, generation, 1), found.detail


@pytest.mark.parametrize("cipher", ["chacha20", "aes256cbc"])
def test_an_encrypted_database_that_was_restored_raises_no_alarm(place: Place, cipher: str) -> None:
    """A restored file has the frames' bytes, also where a checkpoint would have encrypted them again."""
    keys, settings = unlock(cipher), tuned(place, scrub_interval_s=None)
    with SqliteProcess(place.database(), module="apsw") as app:
        app.execute(*keys, "PRAGMA journal_mode = WAL", *CREATE, FILL)
        with running(settings):
            place.sync()
            app.execute("PRAGMA wal_checkpoint(TRUNCATE)", "INSERT INTO t (y) VALUES (1)")
            place.sync()
            wait_for(lambda: has_map(place))
            app.execute("UPDATE t SET y = randomblob(900) WHERE x % 3 = 0")
            place.sync()
            app.close()
            place.sync()
            generation = place.row().generation
    remove(place)
    restore(place)
    with running(settings):
        place.sync()
        assert scrubbed(place) == 0
        with SqliteProcess(place.database(), module="apsw") as app:
            for remainder in range(3):
                app.execute(*keys, f"UPDATE t SET y = randomblob(900) WHERE x % 9 = {remainder}")
                place.sync()
                app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                place.sync()
                assert scrubbed(place) == 0
        assert place.row().generation == generation
        assert bases(place) == 1
