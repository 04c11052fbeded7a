"""Tests of walsyncd.engine.rollback.file_scrub, in a whole daemon: pages that nobody committed are found and healed."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.rollback.rollback_replicas import TABLE, filled, restored
from tests.engine.running import Place, running, wait_for
from tests.engine.scrubbing import change_behind_its_back, scrub
from walsyncd.cli import main
from walsyncd.core.follow.follow_state import parse_follow_state
from walsyncd.core.follow.gap import GapKind
from walsyncd.core.limits import Limits
from walsyncd.core.sqlite.freelist import free_leaves
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.rollback import shipped_moment
from walsyncd.engine.rollback.committed_moment import FileLooks, Hindrance, MomentStart, begin_moment
from walsyncd.engine.rollback.shipped_moment import ShippedMoments


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def has_differed(place: Place) -> bool:
    """Return whether a scrub has ever found something."""
    with place.journal() as journal:
        return GapKind.DIFFERS in journal.gaps()


@pytest.mark.parametrize(("mode", "rows"), [("DELETE", 300), ("TRUNCATE", 300), ("PERSIST", 2000)])
def test_a_page_that_nobody_committed_is_found_and_healed(
    place: Place, capsys: pytest.CaptureFixture[str], mode: str, rows: int
) -> None:
    """The page is reported once as an error, the positions since the last good scrub are suspect, and the next
    scrub is clean.
    """
    path = place.database()
    with SqliteProcess(path) as app, running(place.settings("app")):
        app.execute(f"PRAGMA journal_mode={mode}", *TABLE, filled(rows))
        good = place.sync()
        first = scrub(place)
        assert (first["differing"], first["skipped"]) == (0, "")
        assert first["pages"] > rows // 2
        app.execute("UPDATE t SET y = 'since the last good scrub' WHERE x = 1")
        since, generation = place.sync(), place.row().generation
        change_behind_its_back(place, 100)
        with capture_logs() as logs:
            assert scrub(place)["differing"] == 1
        (error,) = [line for line in logs if line["event"] == "replica_differed"]
        assert (error["first"], error["log_level"]) == ([100], "error")
        wait_for(lambda: len(list(place.replica.rglob("*.bridge.wal.zst"))) == 1)
        place.sync()
        assert scrub(place)["differing"] == 0
        (status,) = place.ask(op="status")["databases"]
        assert (status["scrub_differing"], status["scrub_differing_total"], status["state"]) == (0, 1, "following")
        assert place.row().generation == generation
        assert main(["ls", *place.config(), "app", "--json"]) == 0
        (bridge,) = json.loads(capsys.readouterr().out)["databases"][0]["generations"][0]["bridges"]
        assert (bridge["suspect"]["pages"], bridge["suspect"]["position"]) == (1, good)
        target = ["-o", str(place.folder / "suspect.db"), "--position", since]
        assert main(["restore", *place.config(), "app", *target]) == 4
        assert restored(place) == path.read_bytes()
    assert b"not what was committed" in path.read_bytes()


def test_a_page_that_went_back_is_found_after_a_restart(place: Place) -> None:
    """The daemon has not read the file since it started, because the file looks as it did when it stopped."""
    path = place.database()
    with SqliteProcess(path) as app:
        app.execute(*TABLE, filled(300))
        limits = Limits(quiet_file_ms=100)
        with running(place.settings("app"), limits=limits):
            place.sync()
            old = path.read_bytes()[99 * 4096 : 100 * 4096]
            app.execute("UPDATE t SET y = randomblob(3000)")
            place.sync()
            wait_for(lambda: parse_follow_state(place.row().follow or "").file.known)
        with running(place.settings("app"), limits=limits):
            place.sync()
            change_behind_its_back(place, 100, old)
            assert scrub(place)["differing"] == 1
            wait_for(lambda: len(list(place.replica.rglob("*.bridge.wal.zst"))) == 1)
            place.sync()
            assert scrub(place)["differing"] == 0
            assert restored(place) == path.read_bytes()


def test_free_leaves_are_no_difference(place: Place) -> None:
    """The bytes of free leaves mean nothing, and a transaction that was rolled back may leave other bytes there."""
    path = place.database()
    with SqliteProcess(path) as app, running(place.settings("app")):
        app.execute(*TABLE, filled(300), "DELETE FROM t WHERE x > 100")
        place.sync()
        content = path.read_bytes()
        leaves = free_leaves(lambda n: content[(n - 1) * 4096 : n * 4096], len(content) // 4096)
        change_behind_its_back(place, min(leaves))
        assert (found := scrub(place))["differing"] == 0
        assert not found["skipped"]
        assert not has_differed(place)


def test_what_an_application_writes_is_no_difference(place: Place) -> None:
    """Scrubs run beside commits, spills, rollbacks, kills with hot journals, VACUUM and all journal modes."""
    path = place.database()
    with (
        SqliteProcess(path) as app,
        running(place.settings("app"), limits=Limits(shipped_moment_s=1.0, scrub_attempts=2, scrub_attempt_s=0.1)),
    ):
        app.execute("PRAGMA auto_vacuum=1", *TABLE, filled(400))
        app.close()
        place.sync()
        stop = threading.Event()
        writer = threading.Thread(target=write_honestly, args=(path, stop))
        writer.start()
        try:
            results = [scrub(place) for _ in range(4)]
        finally:
            stop.set()
            writer.join()
    with running(place.settings("app")):
        with SqliteProcess(path) as other:  # the writer may have been killed in the middle of a transaction
            other.execute("UPDATE t SET y = 1 WHERE x = 1")
        place.sync()
        results.append(scrub(place))
        assert [each["differing"] for each in results] == [0] * 5
        assert results[-1]["skipped"] == ""
        assert not has_differed(place)
        assert restored(place) == path.read_bytes()


def write_honestly(path: Path, stop: threading.Event) -> None:
    """Write in other processes, some of which are killed in the middle of a transaction."""
    random = Random(7)
    while not stop.is_set():
        with SqliteProcess(path) as app:
            app.execute(f"PRAGMA journal_mode={random.choice(['DELETE', 'TRUNCATE', 'PERSIST'])}")
            for _ in range(random.randrange(3, 10)):
                app.execute(f"UPDATE t SET y = randomblob(3000) WHERE x % 40 = {random.randrange(40)}")
                stop.wait(0.03)
            app.execute("PRAGMA cache_size=3", "BEGIN", "UPDATE t SET y = randomblob(3000)")
            if random.randrange(2):
                app.kill()
                continue
            app.execute(random.choice(["ROLLBACK", "COMMIT"]), random.choice(["VACUUM", "DELETE FROM t WHERE x > 300"]))
            app.execute(f"{filled(20)}")
            app.close()


def test_a_hot_journal_is_no_difference_and_ends(place: Place) -> None:
    """The file is a mixture until somebody opens the database. Nothing is read, and the scrub says why."""
    path = place.database()
    with running(place.settings("app"), limits=Limits(scrub_attempt_s=0.01, shipped_moment_s=2.0)):
        with SqliteProcess(path) as app:
            app.execute(*TABLE, filled(200))
            place.sync()
            app.execute("PRAGMA cache_size=3", "BEGIN", "UPDATE t SET y = randomblob(3000)")
            app.kill()
        assert "journal waits to be played back" in scrub(place)["skipped"]
        with SqliteProcess(path) as other:
            other.execute("SELECT count(*) FROM t", "UPDATE t SET y = 3 WHERE x = 3")
            place.sync()
            found = scrub(place)
            assert (found["differing"], found["skipped"]) == (0, "")
        assert not has_differed(place)


def test_a_writer_that_never_pauses_postpones_it(place: Place) -> None:
    """A difference that no moment confirms does not count, and the scrub's result says so."""
    path = place.database()
    with (
        SqliteProcess(path) as app,
        running(place.settings("app"), limits=Limits(scrub_attempt_s=0.01, shipped_moment_s=2.0)),
    ):
        app.execute(*TABLE, filled(200))
        place.sync()
        app.execute("PRAGMA cache_size=3", "BEGIN", "UPDATE t SET y = randomblob(3000)")
        found = scrub(place)
        assert found["differing"] == 0
        assert found["skipped"]
        app.execute("ROLLBACK")
        place.sync()
        assert scrub(place)["skipped"] == ""


def begun_after_an_event(looks: FileLooks) -> MomentStart:
    """Return a moment before which something was written that no scan has shipped."""
    start = begin_moment(looks)
    assert isinstance(start, MomentStart)
    return replace(start, events=start.events + 1)


@pytest.mark.parametrize("missing", ["shipped", "committed"])
def test_a_difference_counts_only_at_a_moment_whose_content_is_shipped(
    place: Place, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """Pages that are committed and not shipped yet differ too, and so do pages that a writer is writing.

    The scrub waits for such a moment once, and then the next database has its turn.
    """
    waits, read = list[str](), ShippedMoments.read

    def noted(self: ShippedMoments, tracked: FollowedDatabase, *arguments: Any) -> Any:
        waits.append(tracked.name)
        return read(self, tracked, *arguments)

    with (
        SqliteProcess(place.database()) as app,
        running(place.settings("app"), limits=Limits(scrub_attempt_s=0.01, shipped_moment_s=2.0)),
    ):
        app.execute(*TABLE, filled(200))
        place.sync()
        change_behind_its_back(place, 50)
        with monkeypatch.context() as patched:
            if missing == "shipped":
                patched.setattr(shipped_moment, "begin_moment", begun_after_an_event)
                patched.setattr(shipped_moment, "end_moment", lambda *_: None)
            else:
                patched.setattr(shipped_moment, "end_moment", lambda *_: Hindrance.WRITTEN)
            patched.setattr(ShippedMoments, "read", noted)
            found = scrub(place)
        assert waits == ["app"]
        assert found["differing"] == 0
        assert "no moment to compare" in found["skipped"]
        assert not has_differed(place)
        assert scrub(place)["differing"] == 1
