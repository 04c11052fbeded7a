"""One round: what it waits for, and what it gives up on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import wal_database
from tests.engine.running import Place, opening, restored_values
from tests.fakes import Call, FakeStorage
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.adapters.storage.interface import Storage
from walsyncd.config import Settings
from walsyncd.core.limits import DEFAULT_LIMITS, Limits
from walsyncd.engine.daemon.daemon import ONCE, Daemon
from walsyncd.errors import TransientError


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@contextmanager
def one_round(settings: Settings, storage: Storage, limits: Limits = DEFAULT_LIMITS) -> Iterator[dict[str, str]]:
    """What is left of each database when the round is over, before the daemon stops."""
    daemon = Daemon(settings, opening(storage), limits=limits)
    daemon.start()
    single = daemon._single_round()
    try:
        assert daemon.serve() == ONCE
        yield single.left
    finally:
        daemon.stop(10.0)
        assert daemon.crash is None


def test_a_round_ends_with_everything_stored(place: Place) -> None:
    """The first round takes the base, the next one ships what was committed since; nothing is left by either."""
    storage = DirectoryStorage(place.replica)
    with wal_database(place.database()) as writer:
        with one_round(place.settings("app"), storage) as left:
            assert left == {}
        assert place.row().base_key is not None
        writer.execute("insert into t values (7)")
        with one_round(place.settings("app"), storage) as left:
            assert left == {}
        assert 7 in restored_values(place)


def test_a_base_that_is_due_by_the_clock_is_taken(place: Place) -> None:
    """A round comes rarely, so the clock has moved on since the last one."""
    storage = DirectoryStorage(place.replica)
    settings = place.settings("app")
    with wal_database(place.database()) as writer:
        with one_round(settings, storage):
            pass
        first = place.row().base_key
        writer.execute("insert into t values (1)")
        with one_round(settings, storage):
            pass
        assert place.row().base_key == first
        (entry,) = settings.databases
        writer.execute("pragma wal_checkpoint(restart)")
        writer.execute("insert into t values (2)")
        with one_round(replace(settings, databases=(replace(entry, snapshot_interval_s=0.01),)), storage):
            pass
        assert place.row().base_key != first


def test_without_databases_it_is_over_at_once(place: Place) -> None:
    """Nothing is configured, so nothing is left."""
    with one_round(place.settings(), FakeStorage()) as left:
        assert left == {}


def test_a_missing_database_keeps_nobody_waiting(place: Place) -> None:
    """It is looked at, and the others are shipped."""
    with wal_database(place.database()), one_round(place.settings("app", "absent"), FakeStorage()) as left:
        assert left == {}
        assert place.row("absent").state == "missing"
        assert place.row().base_key is not None


def test_it_gives_up_on_a_storage_that_is_away(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left has a name and a reason."""
    storage = FakeStorage()

    def away(_call: Call) -> None:
        raise TransientError("storage is away")

    storage.before = away
    with wal_database(place.database()), one_round(place.settings("app"), storage, Limits(once_trouble_s=0.5)) as left:
        assert set(left) == {"app"}
        storage.before = lambda _call: None


def test_it_gives_up_when_nothing_moves(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that takes a request and never answers ends no round by itself."""
    answer = threading.Event()
    storage = FakeStorage()

    def hang(_call: Call) -> None:
        answer.wait(60)

    storage.before = hang
    with wal_database(place.database()), one_round(place.settings("app"), storage, Limits(once_stalled_s=0.5)) as left:
        assert set(left) == {"app"}
        answer.set()
