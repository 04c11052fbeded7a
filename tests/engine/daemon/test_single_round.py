"""Tests of a single round: what it waits for, and what it gives up."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.files.sqlite_process import wal_database
from tests.engine.running import Place, opening, restored_values
from tests.fakes import Call, FakeStorage
from walsyncd.adapters.journal.journal import DatabaseRow
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.adapters.storage.interface import Storage
from walsyncd.config import Settings
from walsyncd.core.limits import DEFAULT_LIMITS, Limits
from walsyncd.engine.content.epoch_start import EpochStarts
from walsyncd.engine.content.scan_queue import ScanWait
from walsyncd.engine.daemon.daemon import ONCE, Daemon
from walsyncd.engine.daemon.single_round import SingleRound
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.errors import TransientError


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@contextmanager
def one_round(settings: Settings, storage: Storage, limits: Limits = DEFAULT_LIMITS) -> Iterator[dict[str, str]]:
    """Return what is left of each database when the round is over, before the daemon stops."""
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
    """The first round takes the base, the next one ships what was committed since, and neither leaves anything."""
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
    """Rounds are rare, so time has passed since the last one."""
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


@pytest.mark.parametrize("has_room", [True, False])
def test_a_base_of_a_wal_that_does_not_restart(
    place: Place, monkeypatch: pytest.MonkeyPatch, *, has_room: bool
) -> None:
    """The round waits for the epoch that is begun for it, but not for one that has no room in the spool."""
    make, awaited, is_waited_for = EpochStarts._make, SingleRound._awaited, threading.Event()

    def late(self: EpochStarts, tracked: FollowedDatabase, offer: Any) -> Generator[ScanWait, None, bool]:
        while not is_waited_for.is_set():
            yield ScanWait(until_s=time.monotonic() + 0.01)
        return (yield from make(self, tracked, offer))

    def asks(self: SingleRound, tracked: FollowedDatabase, row: DatabaseRow) -> str:
        is_late, reason = tracked.base.awaits_restart, awaited(self, tracked, row)
        if is_late and "no epoch was begun" in reason:
            is_waited_for.set()
        return reason

    monkeypatch.setattr(EpochStarts, "_make", late)
    monkeypatch.setattr(SingleRound, "_awaited", asks)
    storage, settings = DirectoryStorage(place.replica), place.settings("app")
    (entry,) = settings.databases
    due = replace(settings, databases=(replace(entry, snapshot_interval_s=0.01),))
    limits = Limits(epoch_bytes=10_000)
    with wal_database(place.database()) as writer:
        writer.execute("pragma wal_autocheckpoint = 0")
        for _ in range(3):  # the last one finds an epoch that is so full that it closes it
            with one_round(settings, storage, limits) as left:
                assert left == {}
            writer.execute("insert into t select hex(randomblob(1000)) from json_each('[1,2,3,4,5,6,7,8,9,10]')")
            writer.execute("insert into t select x from t")
        first = place.row().base_key
        assert first is not None
        with one_round(due, storage, limits if has_room else replace(limits, spool_share=1 << 40)) as left:
            assert left == {}
        assert (place.row().base_key != first) == has_room
        assert len(restored_values(place)) == len(writer.execute("select x from t"))


def test_without_databases_it_is_over_at_once(place: Place) -> None:
    """Nothing is configured, so nothing is left."""
    with one_round(place.settings(), FakeStorage()) as left:
        assert left == {}


def test_a_missing_database_keeps_nobody_waiting(place: Place) -> None:
    """A missing database is looked at, and the others are shipped."""
    with wal_database(place.database()), one_round(place.settings("app", "absent"), FakeStorage()) as left:
        assert left == {}
        assert place.row("absent").state == "missing"
        assert place.row().base_key is not None


def test_it_gives_up_on_a_storage_that_is_away(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The round reports what is left, with the reason."""
    storage = FakeStorage()

    def away(_call: Call) -> None:
        raise TransientError("storage is away")

    storage.before = away
    with wal_database(place.database()), one_round(place.settings("app"), storage, Limits(once_trouble_s=0.5)) as left:
        assert set(left) == {"app"}
        storage.before = lambda _call: None


def test_it_gives_up_when_nothing_moves(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that takes a request and never answers would not end a round."""
    answer = threading.Event()
    storage = FakeStorage()

    def hang(_call: Call) -> None:
        answer.wait(60)

    storage.before = hang
    limits = Limits(once_stalled_s=0.5, answer_s_max=0.5)
    with wal_database(place.database()), one_round(place.settings("app"), storage, limits) as left:
        assert set(left) == {"app"}
        answer.set()
