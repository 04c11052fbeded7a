"""Tests of the probe: it finds a revoked key, or a storage that went away, while nothing is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import wal_database
from tests.engine.running import Place, running, wait_for
from tests.fakes import Call, FakeStorage
from walsyncd.config import Settings
from walsyncd.errors import RefusedError, TransientError


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def probing(settings: Settings, interval_s: float | None) -> Settings:
    return replace(settings, daemon=replace(settings.daemon, probe_interval_s=interval_s))


def test_trouble_shows_on_an_idle_host_and_goes_again(place: Place) -> None:
    """The probe makes one GET of an owner.json at a time. The status has the result and the remedy."""
    storage = FakeStorage()

    def refuse(_call: Call) -> None:
        raise RefusedError("get: the access key was revoked", hint="make another")

    def away(_call: Call) -> None:
        raise TransientError("connection refused")

    with wal_database(place.database()), running(probing(place.settings("app"), 0.05), storage):
        place.sync()
        storage.calls.clear()
        wait_for(lambda: storage.calls)
        assert storage.calls[0] == Call("get", "app/owner.json")
        assert place.ask(op="status")["storage"] == ""
        storage.before = refuse
        words = "storage refuses: get: the access key was revoked (hint: make another)"
        wait_for(lambda: place.ask(op="status")["storage"] == words)
        storage.before = away
        wait_for(lambda: "storage is away: connection refused" in place.ask(op="status")["storage"])
        storage.before = lambda _call: None
        wait_for(lambda: place.ask(op="status")["storage"] == "")
        assert {call.name for call in storage.calls} == {"get"}


def test_without_a_database_the_storage_is_listed(place: Place) -> None:
    """Without a database there is no object yet that could be read."""
    storage = FakeStorage()
    with running(probing(place.settings(), 0.05), storage):
        wait_for(lambda: storage.calls)
    assert storage.calls[0] == Call("list", "")


def test_off_means_no_request(place: Place) -> None:
    """An idle daemon makes no request."""
    storage = FakeStorage()
    with wal_database(place.database()), running(probing(place.settings("app"), None), storage) as daemon:
        place.sync()
        calls = len(storage.calls)
        place.ask(op="status")
        assert len(storage.calls) == calls
        assert daemon.crash is None
