"""Tests of the set of followed databases: a reload adds, removes, renames and re-tunes them.

The others are not affected.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.applications import locks_of
from tests.engine.running import Place, serving, wait_for
from tests.fakes import FakeStorage
from walsyncd.config import Settings
from walsyncd.config.settings import Keep, StorageSettings
from walsyncd.core.follow.gap import GapKind
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.errors import UsageError


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


class Reloaded:
    """A configuration that a test changes."""

    def __init__(self, settings: Settings, storage: FakeStorage) -> None:
        self.settings = settings
        self.storage = storage
        self.problem: UsageError | None = None

    def read(self) -> tuple[Settings, FakeStorage]:
        if self.problem is not None:
            raise self.problem
        return self.settings, self.storage


@contextmanager
def two_followed(place: Place) -> Iterator[Reloaded]:
    """Run a daemon with the databases ``app`` and ``other``, both stored."""
    now = Reloaded(place.settings("app", "other"), FakeStorage())
    with (
        wal_database(place.database()),
        wal_database(place.database("other")),
        serving(now.settings, now.storage, now.read),
    ):
        place.sync("app")
        place.sync("other")
        # The next look is planned after the base was stored.
        wait_for(lambda: all(place.row(name).prune_due_ms for name in ("app", "other")))
        yield now


def test_a_reload_adds_and_removes_and_the_others_notice_nothing(place: Place) -> None:
    """The one that stays keeps its generation and makes no request. The one that left can come back."""
    with two_followed(place) as now, wal_database(place.database("new")) as writer:
        before = place.row(), place.row("other").generation
        now.settings = place.settings("app", "new")
        now.storage.calls.clear()
        answer = place.ask(op="reload")
        assert (answer["added"], answer["removed"], answer["changed"]) == (["new"], ["other"], [])
        place.sync("new")
        assert not [call for call in now.storage.calls if call.key.startswith(("app/", "other/"))]
        assert place.row() == before[0]
        assert place.row("other").state == "not configured"
        assert "follows no database 'other'" in place.ask(op="sync", names=["other"])["error"]
        writer.execute("insert into t values (1)")
        now.settings = place.settings("app", "new", "other")
        assert place.ask(op="reload")["added"] == ["other"]
        place.sync("other")
        assert place.row("other").generation == before[1], "nothing was committed meanwhile"
        assert place.row("other").state == "following"


def test_another_name_is_another_replica_and_another_path_another_history(place: Place) -> None:
    """A renamed database has a new folder.

    Another file under the same name is a gap in the same folder, bridged or not.
    """

    def gaps() -> int:
        with place.journal() as journal:
            return journal.gaps()[GapKind.REPLACED]

    with two_followed(place) as now:
        entries = now.settings.databases
        now.settings = replace(now.settings, databases=(entries[0], replace(entries[1], name="renamed")))
        answer = place.ask(op="reload")
        assert (answer["added"], answer["removed"]) == (["renamed"], ["other"])
        place.sync("renamed")
        assert any(key.startswith("renamed/") for key in now.storage.visible)
        with wal_database(place.database("moved")):
            moved = replace(entries[1], name="other", path=str(place.database("moved")))
            now.settings = replace(now.settings, databases=(entries[0], moved))
            answer = place.ask(op="reload")
            assert (answer["changed"], answer["removed"]) == ([], ["renamed"])
            place.sync("other")
            assert gaps() == 1
            now.settings = replace(now.settings, databases=(entries[0], replace(entries[1], name="other")))
            assert place.ask(op="reload")["changed"] == ["other"]
            place.sync("other")
            assert gaps() == 2


def test_other_settings_are_turned_over_without_a_break(place: Place) -> None:
    """The generation continues. A base that has become due by the new interval is taken."""
    with two_followed(place) as now:
        generation, base = place.row().generation, place.row().base_key
        entries = now.settings.databases
        tuned = replace(entries[0], upload_interval_s=0.01, snapshot_interval_s=0.01)
        now.settings = replace(now.settings, databases=(tuned, replace(entries[1], key="database[7]")))
        with place.journal() as journal:
            known = journal.databases()
        assert place.ask(op="reload")["changed"] == ["app"]
        with SqliteProcess(place.database()) as writer:
            writer.execute("insert into t values (1)")
        wait_for(lambda: place.row().base_key != base)
        assert place.row().generation == generation
        assert place.row("other") == next(row for row in known if row.name == "other")


def test_every_setting_reloads_by_itself(place: Place) -> None:
    """Every key of an entry is tried, so none is forgotten in a list."""
    with two_followed(place) as now:
        entry, other = now.settings.databases
        now.settings = replace(now.settings, others=(StorageSettings("fake://elsewhere", name="elsewhere"),))
        settings = {each.name for each in fields(entry)} - {"key", "path", "name", "exclude"}
        for name in sorted(settings):
            changes: dict[str, Any] = {name: _another(getattr(entry, name))}
            entry = replace(entry, **changes)
            now.settings = replace(now.settings, databases=(entry, other))
            assert place.ask(op="reload")["changed"] == ["app"], name


def _another(value: object) -> object:
    match value:
        case bool():
            return not value
        case None:
            return 3600.0
        case Keep():
            return replace(value, daily=value.daily + 1)
        case int():
            return value + 1
        case float():
            return value + 1.0
        case str():
            return "elsewhere"
    raise AssertionError(value)


def test_a_reload_goes_by_what_the_last_one_said_however_late_the_follower_is(place: Place) -> None:
    """The follower applies settings when it takes the database. A reload compares with the last reload instead."""
    now = Reloaded(place.settings("app"), FakeStorage())
    busy, released = threading.Event(), threading.Event()

    def hold_up(_tracked: FollowedDatabase) -> None:
        busy.set()
        released.wait()

    with wal_database(place.database()), serving(now.settings, now.storage, now.read) as daemon:
        place.sync()
        (tracked,) = daemon.databases
        daemon.follower.interrupt(tracked, hold_up)
        busy.wait()
        try:
            tuned = replace(now.settings.databases[0], upload_interval_s=7.0)
            now.settings = replace(now.settings, databases=(tuned,))
            assert place.ask(op="reload")["changed"] == ["app"]
            assert place.ask(op="reload")["changed"] == [], "nothing changed since the last reload"
        finally:
            released.set()
        wait_for(lambda: tracked.spec.upload_interval_s == 7.0)


def test_a_shorter_retention_is_kept_without_waiting_for_a_base(place: Place) -> None:
    """The old settings planned the next pruning in a day. The new settings make it due now."""
    with two_followed(place) as now:
        app, other = now.settings.databases
        assert place.row().pruned_ms == 0
        now.settings = replace(now.settings, databases=(replace(app, retention_s=1.0), other))
        assert place.ask(op="reload")["changed"] == ["app"]
        wait_for(lambda: place.row().pruned_ms)
        assert place.row("other").pruned_ms == 0


def test_presence_is_turned_on_and_off_and_ends_with_the_daemon(place: Place) -> None:
    """A reload changes it for one database. A database that leaves the configuration is released, too."""

    def present(*names: str) -> bool:
        return all(locks_of(place.database(name)) == ((name in names,) * 2) for name in ("app", "other"))

    with two_followed(place) as now:
        app, other = now.settings.databases
        assert present()
        now.settings = replace(now.settings, databases=(replace(app, presence=True), replace(other, presence=True)))
        assert place.ask(op="reload")["changed"] == ["app", "other"]
        wait_for(lambda: present("app", "other"))
        now.settings = replace(now.settings, databases=(app, replace(other, presence=True)))
        assert place.ask(op="reload")["changed"] == ["app"]
        assert present("other")
        now.settings = replace(now.settings, databases=(replace(app, presence=True),))
        place.ask(op="reload")
        wait_for(lambda: present("app"))
    assert present()


def test_a_refused_configuration_changes_nothing(place: Place) -> None:
    """The client gets the reason, and the daemon continues as before."""
    with two_followed(place) as now:
        kept, rows = now.settings, [place.row(), place.row("other")]
        now.settings = replace(kept, databases=(kept.databases[0], replace(kept.databases[0], name="twin")))
        answer = place.ask(op="reload")
        assert "is the same file as" in answer["error"]
        now.settings = replace(kept, daemon=replace(kept.daemon, state_dir=place.folder / "elsewhere"))
        assert "state_dir can't change" in place.ask(op="reload")["error"]

        now.problem = UsageError("configuration is not TOML", hint="mend it")
        assert place.ask(op="reload") == {"error": "configuration is not TOML", "hint": "mend it"}
        assert [place.row(), place.row("other")] == rows
        place.sync("app")
