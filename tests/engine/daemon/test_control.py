"""What the daemon answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import wal_database
from tests.engine.running import Place, running, wait_for
from tests.fakes import Call, FakeStorage
from walsyncd.adapters.system.control_socket import ask_daemon
from walsyncd.errors import TransientError


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_status_has_the_databases_that_are_followed(place: Place) -> None:
    """As the journal has them, with the daemon's pid."""
    with wal_database(place.database()), running(place.settings("app")):
        position = place.sync()
        answer = place.ask(op="status")
    (database,) = answer["databases"]
    assert (database["name"], database["stored_position"]) == ("app", position)
    assert answer["pid"] > 0


def test_status_tells_of_presence(place: Place) -> None:
    """Off, asked for, or held at this moment."""
    settings = place.settings("app", "other", "idle")
    entries = [replace(entry, presence=entry.name != "idle") for entry in settings.databases]
    with (
        wal_database(place.database()),
        wal_database(place.database("idle")),
        running(replace(settings, databases=tuple(entries))),
    ):
        place.sync("app")
        told = {database["name"]: database["presence"] for database in place.ask(op="status")["databases"]}
    assert told == {"app": "held", "other": "on", "idle": "off"}


def test_what_is_still_to_come_is_told_until_it_is_stored(place: Place) -> None:
    """``stored`` answers for what ``sync`` promised, and says when that promise is void."""
    storage = FakeStorage()

    def away(_call: Call) -> None:
        raise TransientError("storage is away")

    with wal_database(place.database()) as writer, running(place.settings("app"), storage):
        place.sync()
        storage.before = away
        writer.execute("insert into t values (1)")
        asked = place.ask(op="sync", names=["app"])["databases"]
        answer = place.ask(op="stored", databases=asked)
        assert "wait" in answer["waiting"]["app"]
        assert answer["again"] == []
        storage.before = lambda _call: None
        wait_for(lambda: place.ask(op="stored", databases=asked)["waiting"] == {"app": ""})
        void = {"app": asked["app"] | {"generation": "20200101T000000Z-00000000"}}
        assert place.ask(op="stored", databases=void)["again"] == ["app"]


def test_a_base_is_asked_for_and_awaited(place: Place) -> None:
    """``base`` has the key of one newer than that of ``snapshot``."""
    with wal_database(place.database()), running(place.settings("app")):
        place.sync()
        before = place.ask(op="snapshot", name="app")["base_key"]
        assert before == place.row().base_key
        wait_for(lambda: place.ask(op="base", name="app", base_key=before)["base_key"])


def test_a_daemon_answers_for_its_own_state_directory_only(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command with another configuration that finds this socket is told that it is not meant."""
    with running(place.settings()):
        assert place.ask(op="ping", state_dir=str(place.state))["pid"] > 0
        assert place.ask(op="ping", state_dir="/elsewhere")["is_other"]
        monkeypatch.setattr("walsyncd.adapters.system.control_socket.SERVICE_FOLDER", place.state)
        assert ask_daemon(place.folder / "elsewhere", {"op": "ping"}, timeout_s=10) is None
