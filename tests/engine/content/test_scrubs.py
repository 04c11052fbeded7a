"""Tests of walsyncd.engine.content.scrubs, in a whole daemon: a replica that is wrong is found, reported and healed."""

from __future__ import annotations

import heapq
import itertools
import json
import os
import threading
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import apsw
import pytest
from structlog.testing import capture_logs

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.running import Place, running, wait_for
from tests.engine.scrubbing import change_behind_its_back, scrub
from tests.shipping import T0
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.cli import main
from walsyncd.config import Settings
from walsyncd.core.content.comparison import Cipher
from walsyncd.core.follow.follow_state import parse_follow_state
from walsyncd.core.follow.gap import GapKind
from walsyncd.core.limits import Limits
from walsyncd.core.restore.plan import Head
from walsyncd.engine.content import scrubs
from walsyncd.engine.content.bridges import Bridges
from walsyncd.engine.content.scan_queue import ScanSteps, ScanWait
from walsyncd.engine.content.scrub_steps import Scrub, ScrubSteps
from walsyncd.engine.content.scrubs import ScrubResult, Scrubs
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.restore.replica import Replica
from walsyncd.engine.restore.restorer import find_plan, restore


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def application(path: Path) -> SqliteProcess:
    """Run an application with a database in WAL mode."""
    app = SqliteProcess(path)
    app.execute("PRAGMA busy_timeout = 60000", "PRAGMA journal_mode = WAL")
    return app


def has_map(place: Place) -> bool:
    with place.journal() as journal:
        (row,) = journal.databases()
        return journal.page_map(row.id) is not None and row.has_base


def fill(app: SqliteProcess) -> None:
    numbers = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 299)"
    app.execute("CREATE TABLE t (x INTEGER PRIMARY KEY, y)")
    app.execute(f"INSERT INTO t {numbers} SELECT i, randomblob(3000) FROM n")


def scrubbing(settings: Settings, interval_s: float) -> Settings:
    return replace(settings, databases=tuple(replace(each, scrub_interval_s=interval_s) for each in settings.databases))


def restored(place: Place) -> bytes:
    target = place.folder / "restored.db"
    target.unlink(missing_ok=True)
    replica = Replica(DirectoryStorage(place.replica), "app")
    restore(replica, find_plan(replica, Head()), target)
    return target.read_bytes()


def test_a_page_that_nobody_committed_is_found_and_healed(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """The page is reported once as an error, the positions since the last good scrub are suspect, and the next
    scrub is clean.
    """
    path = place.database()
    with application(path) as app, running(place.settings("app")):
        fill(app)
        place.sync()
        wait_for(lambda: has_map(place))
        app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        good = place.sync()
        first = scrub(place)
        assert (first["differing"], first["skipped"]) == (0, "")
        assert first["pages"] > 200
        app.execute("INSERT INTO t VALUES (1000, 'since the last good scrub')")
        since = place.sync()
        app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        place.sync()
        generation = place.row().generation
        change_behind_its_back(place, 100)
        with capture_logs() as logs:
            assert scrub(place)["differing"] == 1
        (error,) = [line for line in logs if line["event"] == "replica_differed"]
        assert (error["first"], error["log_level"]) == ([100], "error")
        wait_for(lambda: len(list(place.replica.rglob("*.bridge.wal.zst"))) == 1)
        place.sync()
        assert scrub(place)["differing"] == 0
        (status,) = place.ask(op="status")["databases"]
        assert (status["scrub_differing"], status["scrub_differing_total"]) == (0, 1)
        assert status["last_scrub_ms"]
        assert place.row().generation == generation
        assert main(["ls", *place.config(), "app", "--json"]) == 0
        (bridge,) = json.loads(capsys.readouterr().out)["databases"][0]["generations"][0]["bridges"]
        assert bridge["suspect"]["pages"] == 1
        assert bridge["suspect"]["position"] == good
        target = ["-o", str(place.folder / "suspect.db"), "--position", since]
        assert main(["restore", *place.config(), "app", *target]) == 4
        assert main(["restore", *place.config(), "app", "-o", str(place.folder / "good.db"), "--position", good]) == 0
    assert restored(place) == path.read_bytes()
    assert b"not what was committed" in path.read_bytes()


def test_a_scrub_comes_by_itself(place: Place) -> None:
    """Scrubs come at their interval, again and again, and not after they are switched off."""
    settings = place.settings("app")
    with application(place.database()) as app, running(scrubbing(settings, 0.2)):
        fill(app)
        place.sync()
        wait_for(lambda: has_map(place))
        app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        place.sync()

        def last_ms() -> int:
            with place.journal() as journal:
                row = journal.last_scrub(1)
                return row.at_ms if row is not None and not row.skipped else 0

        wait_for(lambda: last_ms() > 0)
        first_ms = last_ms()
        wait_for(lambda: last_ms() > first_ms)
        change_behind_its_back(place, 50)
        wait_for(lambda: bool(list(place.replica.rglob("*.bridge.wal.zst"))))


def test_what_cannot_be_healed_begins_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no bridge can be made, a new base is taken, which is a copy of the live file."""
    monkeypatch.setattr(Bridges, "begin", lambda *_: False)
    limits = Limits(generation_delay_s=0.01)
    with application(place.database()) as app, running(place.settings("app"), limits=limits):
        fill(app)
        place.sync()
        wait_for(lambda: has_map(place))
        app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        place.sync()
        before = place.row().generation
        change_behind_its_back(place, 60)
        assert scrub(place)["differing"] == 1
        wait_for(lambda: place.row().generation not in {None, before})
        place.sync()
    assert restored(place) == place.database().read_bytes()


@pytest.mark.parametrize("auto_vacuum", [0, 1])
def test_an_honest_database_raises_no_alarm(place: Place, auto_vacuum: int) -> None:
    """The database may write, checkpoint in all modes, VACUUM, shrink, close and open meanwhile."""
    path = place.database()
    with SqliteProcess(path) as app:
        app.execute(f"PRAGMA auto_vacuum = {auto_vacuum}", "PRAGMA journal_mode = WAL")
        fill(app)
        app.close()
    with SqliteProcess(path) as reader, running(place.settings("app"), limits=Limits(map_segments=3, map_redo_bytes=1)):
        reader.execute("SELECT count(*) FROM t")
        place.sync()
        wait_for(lambda: has_map(place))
        stop = threading.Event()
        worker = threading.Thread(target=work_honestly, args=(path, stop))
        worker.start()
        try:
            results = [scrub(place) for _ in range(10)]
        finally:
            stop.set()
            worker.join()
        place.sync()  # a follower that was late may have begun another generation
        wait_for(lambda: has_map(place))
        results.append(scrub(place))
        assert [each["differing"] for each in results] == [0] * 11
        assert results[-1]["skipped"] == ""
        with place.journal() as journal:
            assert GapKind.DIFFERS not in journal.gaps()


def work_honestly(path: Path, stop: threading.Event) -> None:
    """Write in another process. Closing a file that SQLite has open in the same process would drop SQLite's locks."""
    random = Random(5)
    operations = (
        "VACUUM",
        "DELETE FROM t WHERE x > 200",
        "INSERT OR REPLACE INTO t SELECT x + 100, randomblob(3000) FROM t WHERE x BETWEEN 50 AND 200",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "PRAGMA wal_checkpoint(RESTART)",
        "PRAGMA wal_checkpoint(PASSIVE)",
    )
    while not stop.is_set():
        with SqliteProcess(path) as app:
            app.execute("PRAGMA wal_autocheckpoint = 50")
            for _ in range(random.randrange(5, 30)):
                app.execute(f"UPDATE t SET y = randomblob(3000) WHERE x % 40 = {random.randrange(40)}")
                stop.wait(0.01)
            app.execute(random.choice(operations))
            if random.randrange(2):
                app.close()
            else:
                app.kill()


@pytest.mark.parametrize("cipher", ["chacha20", "aes256cbc"])
def test_an_encrypted_database_raises_no_alarm(place: Place, cipher: str) -> None:
    """No page counts as different, even if each page is encrypted again when it is copied from the WAL."""
    if not hasattr(apsw, "mc_version"):
        pytest.skip("another apsw than that of apsw-sqlite3mc is installed")
    with SqliteProcess(place.database(), module="apsw") as app:
        app.execute(f"PRAGMA cipher = '{cipher}'", "PRAGMA key = 'a key'", "PRAGMA journal_mode=WAL")
        app.execute("CREATE TABLE t (x)", *["INSERT INTO t VALUES (randomblob(3000))"] * 40)
        with running(place.settings("app")):
            place.sync()
            app.execute("PRAGMA wal_checkpoint(TRUNCATE)", "INSERT INTO t VALUES (1)")
            place.sync()
            wait_for(lambda: has_map(place))
            app.execute("UPDATE t SET x = randomblob(3000) WHERE rowid < 20")
            place.sync()  # a checkpoint right after it could overwrite what nobody has read, which would be a gap
            app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            place.sync()
            for _ in range(2):
                found = scrub(place)
                assert (found["differing"], found["skipped"]) == (0, "")
                assert found["pages"] > 40
            with place.journal() as journal:
                page_map = journal.page_map(1)
                assert page_map is not None
                assert page_map.cipher is (Cipher.ANEW if cipher == "chacha20" else Cipher.STABLE)


def test_a_small_database_is_compared_after_an_absence(place: Place) -> None:
    """A backup was copied over it while no daemon ran, and a later checkpoint seems to explain the change."""
    path = place.database()
    settings = scrubbing(place.settings("app"), 86_400)
    app = SqliteProcess(path)
    app.execute("PRAGMA journal_mode = WAL", "CREATE TABLE t (x, y)")
    numbers = "WITH RECURSIVE r(n) AS (SELECT 1 UNION SELECT n + 1 FROM r LIMIT 300)"
    app.execute(f"INSERT INTO t {numbers} SELECT n, zeroblob(3000) FROM r")
    app.execute("PRAGMA wal_checkpoint(TRUNCATE)", "INSERT INTO t VALUES (0, 0)")
    with running(settings):
        place.sync()
        wait_for(lambda: has_map(place))
        generation = place.row().generation
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(99 * 4096 + 2000)
        file.write(b"other")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    app.execute("PRAGMA wal_checkpoint(PASSIVE)")
    with capture_logs() as logs, running(settings):
        wait_for(lambda: len(list(place.replica.rglob("*.bridge.wal.zst"))) == 1)
        place.sync()
        assert place.row().generation == generation
    assert [line["differing"] for line in logs if line["event"] == "replica_differed"] in ([1], [])
    app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    app.kill()
    assert restored(place) == path.read_bytes()


def test_what_nobody_touched_meanwhile_is_not_read_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand idle databases are not read at each start of the daemon."""
    path = place.database()
    settings = scrubbing(place.settings("app"), 86_400)
    with application(path) as app:
        fill(app)
        app.close()
    with running(settings):
        place.sync()
        with application(path) as app:
            app.execute("INSERT INTO t VALUES (1000, 1)")
            app.close()
        place.sync()
        wait_for(lambda: has_map(place))
        wait_for(lambda: is_known(place))
    begun: list[str] = []
    steps = Scrub.steps

    def counted(scrub: Scrub, tracked: FollowedDatabase) -> ScrubSteps:
        begun.append(tracked.name)
        return steps(scrub, tracked)

    monkeypatch.setattr(Scrub, "steps", counted)
    with running(settings):
        place.sync()
        assert scrub(place)["differing"] == 0  # this base was requested after the one that a start may want
    assert begun == ["app"]


def is_known(place: Place) -> bool:
    """Return whether the file's size and times are in the journal."""
    follow = place.row().follow
    return follow is not None and parse_follow_state(follow).file.known


class Day:
    """The scans' queue and the clocks of a day that takes no time. ``wake_ups`` counts how often a scan continued."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.wake_ups = 0
        self.scrubbed: dict[int, int] = {}
        self._waiting: list[tuple[float, int, ScanSteps]] = []
        self._order = itertools.count()

    def add(self, steps: ScanSteps, *, urgent: bool = False, delay_s: float = 0.0) -> None:
        assert not urgent
        heapq.heappush(self._waiting, (self.now_s + delay_s, next(self._order), steps))

    def last_scrub(self, row_id: int) -> object:
        at_ms = self.scrubbed.get(row_id)
        return None if at_ms is None else SimpleNamespace(at_ms=at_ms)

    def attempts(self, tracked: FollowedDatabase) -> Generator[ScanWait, None, tuple[ScrubResult, bool]]:
        """Scrub a small file, which is one block."""
        yield ScanWait(4096)
        assert tracked.row_id not in self.scrubbed
        self.scrubbed[tracked.row_id] = self.wall_ms()
        return ScrubResult(1), True

    def wall_ms(self) -> int:
        return T0 + round(1000 * self.now_s)

    def run_until(self, end_s: float) -> None:
        while self._waiting and self._waiting[0][0] < end_s:
            at_s, _, steps = heapq.heappop(self._waiting)
            self.now_s = max(self.now_s, at_s)
            self.wake_ups += 1
            for wait in steps:
                self.now_s = max(self.now_s, wait.until_s)


def test_a_day_of_ten_thousand_databases_wakes_for_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is scrubbed once, at its own moment. In between nothing wakes the daemon."""
    day, count, day_s = Day(), 10_000, 86_400.0
    monkeypatch.setattr(scrubs, "time", SimpleNamespace(monotonic=lambda: day.now_s))
    journal = SimpleNamespace(last_scrub=day.last_scrub, generations=lambda _id: [], page_map=lambda _id: None)
    environment = SimpleNamespace(wall_ms=day.wall_ms, boot_id="boot")
    parts: list[Any] = [journal, environment, None, day, None]
    planned = Scrubs(*parts, request=cast("Any", None), heal=lambda *_: None)
    monkeypatch.setattr(planned, "_attempts", day.attempts)
    for number in range(count):
        tracked = SimpleNamespace(row_id=number, name=f"tenant {number}", state=None)
        planned.plan(cast("Any", tracked), day_s, was_away=True)
    day.run_until(day_s)
    assert len(day.scrubbed) == count
    assert day.wake_ups <= count + 50  # the database that is planned first is seldom the first to be due
