"""Tests of drills in a daemon: restored from storage, compared with the live file, checked, removed, noted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.following import spec_of
from tests.engine.running import Place, running, wait_for
from tests.fakes import FakeStorage
from tests.shipping import G1, T0
from walsyncd.adapters.files.source import OpenFile
from walsyncd.adapters.journal.drill_table import DrillOutcome, DrillRow
from walsyncd.adapters.journal.journal import Advance, Journal, NewObject, ObjectKind, ObjectRow
from walsyncd.adapters.journal.journal_schema import Connection, Record
from walsyncd.adapters.journal.state_disk import StateDisk
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.cli import main
from walsyncd.config import Settings
from walsyncd.core.limits import Limits
from walsyncd.core.stored.layout import BaseKey, ManifestKey, format_key
from walsyncd.engine.content.map_making import MapMaker
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.wal_pairs import WalPairs
from walsyncd.engine.upkeep import drill
from walsyncd.engine.upkeep.drill_runner import FOLDER, Driller
from walsyncd.engine.upkeep.live_comparison import Differences, differences
from walsyncd.errors import TransientError


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def drilling(place: Place, *, interval_s: float | None = 0.2) -> Settings:
    """Run a daemon with drills of the database ``app`` all the time."""
    settings = place.settings("app")
    entries = tuple(replace(entry, verify_interval_s=interval_s) for entry in settings.databases)
    return replace(settings, databases=entries)


@contextmanager
def application(place: Place, mode: str = "WAL") -> Iterator[SqliteProcess]:
    with SqliteProcess(place.database()) as app:
        app.execute(f"PRAGMA journal_mode={mode}")
        app.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, payload BLOB)")
        app.execute(*["INSERT INTO t (payload) VALUES (randomblob(3000))"] * 50)
        yield app
        app.close()


def last_drill(place: Place) -> DrillRow | None:
    with place.journal() as journal:
        return journal.last_drill(place.row().id)


def drilled(place: Place, outcome: DrillOutcome, *, after_ms: int = 0) -> DrillRow:
    """Return the first drill that ends with this result, after another one."""
    found: list[DrillRow] = []

    def is_there() -> bool:
        row = last_drill(place)
        if row is not None and row.outcome is outcome and row.at_ms > after_ms:
            found.append(row)
        return bool(found)

    wait_for(is_there)
    return found[0]


def test_sound_replica_passes(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """All pages are compared. Status has the moment, retention knows the base, and nothing stays on disk."""
    with application(place) as app, running(drilling(place)):
        place.sync()
        row = drilled(place, DrillOutcome.PASSED)
        app.execute("INSERT INTO t (payload) VALUES (zeroblob(10000))")
        place.sync()
        later = drilled(place, DrillOutcome.PASSED, after_ms=row.at_ms)
        state = place.row()
        (status,) = place.ask(op="status")["databases"]
    assert "pages compared with the live file" in row.detail
    assert row.detail.endswith("integrity_check: ok")
    assert later.position >= row.position > ""
    assert state.proven_key == state.base_key
    assert status["last_verified_ms"] >= later.at_ms
    assert status["last_drill"].startswith("passed: ")
    assert not (place.state / FOLDER).exists()
    assert main(["status", *place.config()]) == 0
    assert "drill" not in capsys.readouterr().out


def test_writers_and_checkpoints_beside_it_do_no_harm(place: Place) -> None:
    """Pages that are written during the comparison are found in the frames. No drill fails, and some see such pages."""
    with application(place) as app, running(drilling(place, interval_s=0.001)):
        place.sync()
        begun_ms = drilled(place, DrillOutcome.PASSED).at_ms
        for drain in range(20):
            app.execute(f"UPDATE t SET payload = randomblob(3000) WHERE id % 7 = {drain % 7}")
            app.execute("INSERT INTO t (payload) VALUES (randomblob(9000))")
            app.execute(f"DELETE FROM t WHERE id = {drain}")
            if drain % 5 == 0:
                place.sync()  # otherwise the follower may be too late, which is not what this test is about
                app.execute("PRAGMA wal_checkpoint(RESTART)")
        generation = place.row().generation
        row = drilled(place, DrillOutcome.PASSED, after_ms=begun_ms)
        place.sync()
        assert place.row().generation == generation
    assert row.outcome is DrillOutcome.PASSED


def test_damaged_object_ends_the_generation(place: Place) -> None:
    """The damage is reported as an error, a new base is taken, and a drill of the new base passes."""
    with capture_logs() as logs, application(place), running(drilling(place, interval_s=None)) as daemon:
        place.sync()
        first = place.row().generation
        base = next((place.replica / "app").rglob("*.db.zst"))
        raw = bytearray(base.read_bytes())
        raw[len(raw) // 2] ^= 1
        base.write_bytes(raw)
        (tracked,) = daemon.databases
        daemon._destinations.all()[0].driller.plan(tracked, 0.2)  # a reload does this
        wait_for(lambda: place.row().generation not in {None, first})
        row = place.row()
        drilled(place, DrillOutcome.PASSED)
        with place.journal() as journal:
            ended = next(each for each in journal.generations(row.id) if each.generation == first)
    assert "a rehearsed restore failed" in ended.reason_ended
    assert base.name in ended.reason_ended
    assert "drill_failed" in [line["event"] for line in logs]


def write_unseen(place: Place, offset: int, content: bytes) -> None:
    """Write to the database by a second name in another folder, and restore its times, so that nothing reports it."""
    times = place.database().stat()
    other = place.folder / "elsewhere" / "app.db"
    other.parent.mkdir()
    other.hardlink_to(place.database())
    with other.open("r+b") as file:
        file.seek(offset)
        file.write(content)
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.unlink()


def test_difference_from_the_live_file_is_found(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page differs from the live file though no commit wrote it. Without a map no bridge heals it first."""
    monkeypatch.setattr(MapMaker, "due", lambda *_: None)
    with application(place) as app:
        app.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # pages that the database gets after the base can't be compared
        app.close()
    with SqliteProcess(place.database()) as app, running(drilling(place, interval_s=None)) as daemon:
        place.sync()
        app.execute("INSERT INTO t (payload) VALUES ('so that there is a WAL')")
        place.sync()
        first = place.row().generation
        write_unseen(place, 20 * 4096 + 2000, b"not SQLite's")
        (tracked,) = daemon.databases
        daemon._destinations.all()[0].driller.plan(tracked, 0.2)  # a reload does this
        row = drilled(place, DrillOutcome.FAILED)
        wait_for(lambda: place.row().generation != first)
    assert row.detail.startswith("1 page differs from the live database at ")
    assert row.detail.endswith(": 21")


def test_damage_that_the_application_has_costs_no_base(place: Place) -> None:
    """The replica holds what the database is, and another base would hold the same."""
    with application(place) as app:
        app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        ((root,),) = app.execute("SELECT rootpage FROM sqlite_schema")
    with place.database().open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(bytes(100))
    with running(drilling(place)):
        wait_for(lambda: (place.state / "journal.db").exists() and place.row().base_key)
        generation = place.row().generation
        row = drilled(place, DrillOutcome.FAILED)
        drilled(place, DrillOutcome.FAILED, after_ms=row.at_ms)
        assert place.row().generation == generation
    assert "the database itself is damaged" in row.detail


def test_rollback_mode_is_rehearsed_too(place: Place) -> None:
    """A quiet file without a WAL is compared as a whole."""
    with application(place, "DELETE"), running(drilling(place)):
        row = drilled(place, DrillOutcome.PASSED)
    assert "pages compared" in row.detail


def test_rollback_mode_is_compared_beside_a_writer(place: Place) -> None:
    """Pages that differ are read again at a moment whose position is known. Only commits can explain them."""
    with application(place, "DELETE") as app, running(drilling(place, interval_s=None)) as daemon:
        place.sync()
        (tracked,) = daemon.databases
        driller = daemon._destinations.all()[0].driller
        reads: list[int] = []
        read_shipped = driller.read_shipped

        def counted(tracked: FollowedDatabase, page_size: int, read: Callable[[OpenFile], Any]) -> Any:
            reads.append(page_size)
            return read_shipped(tracked, page_size, read)

        def differences_after_a_commit(*arguments: Any) -> Differences:
            app.execute("UPDATE t SET payload = randomblob(3000) WHERE id = 7")
            return differences(*arguments)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(driller, "read_shipped", counted)
            patched.setattr(drill, "differences", differences_after_a_commit)
            driller.plan(tracked, 0.2)
            passed = drilled(place, DrillOutcome.PASSED)
            assert "pages compared with the live file, 2 more were written meanwhile" in passed.detail
            assert reads
        place.sync()
        first = place.row().generation
        write_unseen(place, 20 * 4096 + 2000, b"not SQLite's")
        row = drilled(place, DrillOutcome.FAILED)
        wait_for(lambda: place.row().generation not in {None, first})
        assert row.detail.startswith("1 page differs from the live database at ")
        assert ": 21" in row.detail


def test_no_room_is_no_failure(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The drill is skipped, and status shows the reason."""
    monkeypatch.setattr(StateDisk, "room_bytes", lambda _disk: 1000)
    with application(place), running(drilling(place)):
        place.sync()
        generation = place.row().generation
        row = drilled(place, DrillOutcome.SKIPPED)
        assert place.row().generation == generation
    assert "1000 can be spared" in row.detail


class AwayForReaders(DirectoryStorage):
    """A storage that accepts everything, and does not return a base."""

    asked = 0

    def get(self, key: str, *, first: int = 0, length: int | None = None) -> bytes:
        if key.endswith(".json.zst"):
            AwayForReaders.asked += 1
            raise TransientError("the line is down")
        return super().get(key, first=first, length=length)


def test_storage_that_is_away_is_no_failure(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is noted and nothing ends. The drill is tried again later."""
    monkeypatch.setattr("walsyncd.engine.restore.replica.pause", lambda _attempt: None)
    with application(place), running(drilling(place), AwayForReaders(place.replica)):
        place.sync()
        generation = place.row().generation
        wait_for(lambda: AwayForReaders.asked > 3)
    assert (last_drill(place), place.row().generation) == (None, generation)


def test_stop_does_not_wait_for_a_drill(place: Place) -> None:
    """The drill is dropped and is due again. What it had restored is removed."""
    limits = Limits(drill_bytes_per_s=100)  # the time for this base would be half an hour
    with application(place), running(drilling(place), limits=limits):
        place.sync()
        wait_for((place.state / FOLDER).exists)
    assert last_drill(place) is None
    assert not (place.state / FOLDER).exists()


def test_leftovers_of_a_killed_daemon_go(place: Place) -> None:
    """Nothing in the folder was of use to anybody."""
    left = place.state / FOLDER / "1.db"
    left.parent.mkdir(parents=True)
    left.write_bytes(bytes(1000))
    with running(drilling(place, interval_s=None)):
        wait_for(lambda: not left.exists())


def test_off_is_off(place: Place) -> None:
    """By default nothing is restored, whatever is stored."""
    with application(place), running(place.settings("app")) as daemon:
        place.sync()
        assert daemon._destinations.all()[0].driller.round() is None
    assert last_drill(place) is None


DAY_S = 86_400.0


def driller(journal: Journal, now_ms: Callable[[], int] = lambda: T0) -> Driller:
    """The drills of a daemon that follows nothing."""

    def nobody(*_: object) -> Any:
        raise AssertionError("no drill is due")

    return Driller(
        journal,
        FakeStorage(),
        request=nobody,
        read_shipped=nobody,
        on_generation_lost=nobody,
        bytes_per_s_max=1.0,
        wall_ms=now_ms,
    )


def planned(drills: Driller, journal: Journal, name: str) -> ObjectRow:
    """The manifest of a database whose first base is about to be stored, and whose drills are planned."""
    row = journal.database(name, f"/srv/{name}.db")
    journal.begin_generation(row.id, G1, "first", "{}", T0)
    key = format_key(ManifestKey(BaseKey(G1, 1, 0, "0000abcd"), 1, 1, T0))
    manifest = NewObject(ObjectKind.MANIFEST, key, b"{}", 1, 0, 1, T0, G1)
    drills.plan(FollowedDatabase(spec_of(Path(row.path)), row.id, WalPairs(Path(row.path))), DAY_S)
    return journal.advance([Advance(row.id, None, (manifest,))])[0]


@pytest.mark.parametrize("count", [8, 16])
def test_a_first_base_costs_a_look_at_its_own_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """However many databases have drills, each base that is stored costs the same number of queries."""
    asked: list[str] = []
    with Journal.open(tmp_path) as journal:
        drills, ask = driller(journal), Connection._rows

        def counted(self: Connection, sql: str, values: Sequence[object] = ()) -> list[Record]:
            asked.append(sql)
            return ask(self, sql, values)

        manifests = [planned(drills, journal, f"app-{number}") for number in range(count)]
        assert drills.round() is None  # none has a base
        monkeypatch.setattr(Connection, "_rows", counted)
        for row in manifests:
            journal.stored(row.id, now_ms=T0, tokens=0.0)
            drills.stored(row)
            wait_s = drills.round()
            assert wait_s is not None
            assert 0 < wait_s <= DAY_S
    assert len(asked) == 3 * count


def test_the_next_drill_is_the_first_that_is_due(tmp_path: Path) -> None:
    """The order of the bases does not matter. A database whose drills end is not waited for."""
    with Journal.open(tmp_path) as journal:
        drills = driller(journal)
        waits: dict[str, float] = {}
        for name in ("app-1", "app-2", "app-3"):
            alone = driller(journal)
            row = planned(alone, journal, name)
            journal.stored(row.id, now_ms=T0, tokens=0.0)
            alone.stored(row)
            waits[name] = alone.round() or 0.0
            drills.plan(FollowedDatabase(spec_of(Path(name)), row.database_id, WalPairs(Path(name))), DAY_S)
        assert drills.round() == pytest.approx(min(waits.values()), abs=5.0)
        first = min(waits, key=lambda name: waits[name])
        row_id = journal.database(first, f"/srv/{first}.db").id
        drills.plan(FollowedDatabase(spec_of(Path(first)), row_id, WalPairs(Path(first))), None)
        assert drills.round() == pytest.approx(sorted(waits.values())[1], abs=5.0)
