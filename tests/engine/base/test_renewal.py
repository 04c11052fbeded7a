"""Tests that, if the store deletes objects by age, a database whose WAL never restarts gets a new
generation in time.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import wal_database
from tests.aging import Calendar
from tests.engine.running import Place, restored_values, running, wait_for
from walsyncd.config import Settings
from walsyncd.core.keep.retention import DAY_MS
from walsyncd.core.limits import Limits
from walsyncd.engine.base.renewal import EXPIRING


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def calendar(monkeypatch: pytest.MonkeyPatch) -> Calendar:
    calendar = Calendar()
    calendar.rule(monkeypatch)
    return calendar


def expiring(place: Place) -> Settings:
    """Return settings with a base a day, and objects that are deleted after twenty days."""
    settings = place.settings("app")
    return replace(settings, storage=replace(settings.storage, delete=False, expire_after_s=20 * DAY_MS / 1000))


def generation(place: Place) -> str:
    return place.row().generation or ""


def test_an_idle_database_outlives_its_objects(place: Place, calendar: Calendar) -> None:
    """Before half of the age, a base is one more of the same generation.

    After that it is the first of another generation.
    """
    with wal_database(place.database()) as writer, running(expiring(place)):
        writer.execute("insert into t values (1)")
        place.sync()
        first, base_key = generation(place), place.row().base_key
        calendar.ahead_ms = DAY_MS
        place.ask(op="snapshot", name="app")
        wait_for(lambda: place.row().base_key != base_key)
        assert generation(place) == first
        calendar.ahead_ms = 10 * DAY_MS
        place.ask(op="snapshot", name="app")
        wait_for(lambda: generation(place) not in {first, ""})
        place.sync()
        with place.journal() as journal:
            assert [row.reason_ended for row in journal.generations(place.row().id)] == [EXPIRING.reason, ""]
        assert place.row().state == "following"
        shutil.rmtree(place.replica / "app" / first)
        assert restored_values(place) == [0, 1]
        writer.execute("insert into t values (2)")
        place.sync()
        assert restored_values(place) == [0, 1, 2]


def test_a_daemon_that_was_away_for_long_begins_anew_at_once(place: Place, calendar: Calendar) -> None:
    """What became due meanwhile does not wait for another interval."""
    with wal_database(place.database()):
        with running(expiring(place)):
            place.sync()
            first = generation(place)
        calendar.ahead_ms = 15 * DAY_MS
        with running(expiring(place)):
            wait_for(lambda: generation(place) not in {first, ""})
            place.sync()
        shutil.rmtree(place.replica / "app" / first)
        assert restored_values(place) == [0]


def test_a_wal_that_grows_over_epochs(place: Place, calendar: Calendar) -> None:
    """No base can begin in a later epoch than the WAL's incarnation, and no epoch for it. After two days it is time."""
    with (
        wal_database(place.database()) as writer,
        running(expiring(place), limits=Limits(epoch_bytes=1, spool_share=1 << 40)),
    ):
        place.sync()
        first, base_key = generation(place), place.row().base_key
        writer.execute("insert into t values (1)")
        assert int(place.sync().split("/")[1], 16) > 1
        calendar.ahead_ms = DAY_MS
        place.ask(op="snapshot", name="app")
        writer.execute("insert into t values (2)")
        place.sync()
        assert (generation(place), place.row().base_key) == (first, base_key)
        calendar.ahead_ms = 2 * DAY_MS + 60_000
        place.ask(op="snapshot", name="app")
        wait_for(lambda: generation(place) not in {first, ""})
        place.sync()
    shutil.rmtree(place.replica / "app" / first)
    assert restored_values(place) == [0, 1, 2]


def test_a_base_that_is_an_interval_late_is_given_up(place: Place) -> None:
    """Such a base is not requested again: the WAL does not restart, and no epoch can be begun for the base."""
    settings = expiring(place)
    settings = replace(settings, databases=tuple(replace(each, snapshot_interval_s=0.5) for each in settings.databases))
    with wal_database(place.database()) as writer, running(settings, limits=Limits(epoch_bytes=1, spool_share=1 << 40)):
        place.sync()
        first = generation(place)
        writer.execute("insert into t values (1)")
        place.sync()
        wait_for(lambda: generation(place) not in {first, ""})
        place.sync()
    assert restored_values(place) == [0, 1]
