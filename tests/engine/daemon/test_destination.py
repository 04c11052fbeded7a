"""Tests of a storage that changes under a daemon, or between two runs: a new generation begins there, and
only there.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import wal_database
from tests.engine.running import Place, running, serving, wait_for
from tests.fakes import Call, FakeStorage
from walsyncd.config import Settings
from walsyncd.core.limits import Limits
from walsyncd.errors import RefusedError, TransientError


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


class Elsewhere(FakeStorage):
    """A storage of another url."""

    @property
    def url(self) -> str:
        return "fake://elsewhere"


def moved(settings: Settings) -> Settings:
    return replace(settings, storage=replace(settings.storage, url="fake://elsewhere"))


def test_a_reload_moves_every_database_to_another_storage(place: Place) -> None:
    """Idle databases move, too. Each gets a base in the new storage, and nothing more is sent to the old one."""
    settings, old, new = place.settings("app", "idle"), FakeStorage(), Elsewhere()
    source = (settings, old)
    with wal_database(place.database()) as writer, wal_database(place.database("idle")):
        with serving(settings, old, lambda: source):
            generations = {place.sync(name).split("/")[0] for name in ("app", "idle")}
            source = (moved(settings), new)
            assert "error" not in place.ask(op="reload")
            calls = len(old.calls)
            writer.execute("insert into t values (1)")
            assert not {place.sync(name).split("/")[0] for name in ("app", "idle")} & generations
            with place.journal() as journal:
                reason = journal.generations(place.row("idle").id)[-1].reason_begun
        assert f"the storage changed from {settings.storage.url} to fake://elsewhere" in reason
        assert len(old.calls) == calls
        assert any("/base/" in key for key in new.visible)


def test_new_credentials_for_the_same_place_end_nothing(place: Place) -> None:
    """The generation continues through the new connection."""
    settings, old = place.settings("app"), FakeStorage()
    new = FakeStorage()
    new.objects = old.objects
    source = (settings, old)
    with wal_database(place.database()) as writer, serving(settings, old, lambda: source):
        generation = place.sync().split("/")[0]
        keys = {"access_key_id": "k", "secret_access_key": "s"}
        source = (replace(settings, storage=replace(settings.storage, options=keys)), new)
        assert "error" not in place.ask(op="reload")
        calls = len(old.calls)
        writer.execute("insert into t values (1)")
        assert place.sync().split("/")[0] == generation
        assert len(old.calls) == calls
        assert new.visible


def test_a_storage_that_refuses_us_is_refused_and_one_that_is_away_is_not(place: Place) -> None:
    """Wrong credentials are found while the old ones still work. An outage is no reason to refuse."""
    settings, old, new = place.settings("app"), FakeStorage(), Elsewhere()
    source = (settings, old)

    def refuse(_call: Call) -> None:
        raise RefusedError("list: access denied")

    def away(_call: Call) -> None:
        raise TransientError("storage is away")

    with wal_database(place.database()), serving(settings, old, lambda: source):
        generation = place.sync().split("/")[0]
        source, new.before = (moved(settings), new), refuse
        assert "access denied" in place.ask(op="reload")["error"]
        assert place.sync().split("/")[0] == generation
        new.before = away
        assert "error" not in place.ask(op="reload")
        new.before = lambda _call: None
        assert place.sync().split("/")[0] != generation


def test_a_restart_with_another_storage_begins_anew_too(place: Place) -> None:
    """A database to which nothing is written any more begins again as well."""
    settings, new = place.settings("app"), Elsewhere()
    with wal_database(place.database()):
        with running(settings, FakeStorage()):
            generation = place.sync().split("/")[0]
        with running(moved(settings), new):
            assert place.sync().split("/")[0] != generation
        assert any("/base/" in key for key in new.visible)
        second = place.row().generation
        with running(moved(settings), new):
            assert place.sync().split("/")[0] == second


def is_all_compacted(place: Place) -> bool:
    with place.journal() as journal:
        return not journal.closed_epochs()


def test_a_reload_turns_deletion_off_and_on(place: Place) -> None:
    """Without deletion there is no pruning or compaction, and the clock renews bases.

    With deletion it is the reverse.
    """
    kept = place.settings("app")
    entries = tuple(replace(entry, snapshot_interval_s=0.2) for entry in kept.databases)
    kept = replace(kept, databases=entries)
    expiring = replace(kept, storage=replace(kept.storage, delete=False, expire_after_s=86_400.0))
    storage = FakeStorage()
    source = (kept, storage)

    def wholes() -> int:
        return len([key for key in storage.visible if "/whole/" in key])

    with (
        wal_database(place.database()) as writer,
        serving(kept, storage, lambda: source, limits=Limits(epoch_bytes=20_000, epoch_patience=1, upkeep_calm_s=0.0)),
    ):

        def fill_epochs() -> None:
            for _ in range(12):
                writer.execute("insert into t values (1)")
                place.sync()
            writer.execute("pragma wal_checkpoint(restart)", "insert into t values (2)")  # now a base can begin
            place.sync()

        fill_epochs()
        wait_for(lambda: wholes() and is_all_compacted(place))
        source = (expiring, storage)
        assert "error" not in place.ask(op="reload")
        assert "delete = false" in place.ask(op="prune", names=["app"])["error"]
        before = wholes()
        fill_epochs()
        base_key = place.row().base_key
        wait_for(lambda: place.row().base_key != base_key)  # nothing was committed since
        with place.journal() as journal:
            assert journal.closed_epochs() == []
        assert wholes() == before
        source = (kept, storage)
        assert "error" not in place.ask(op="reload")
        place.ask(op="prune", names=["app"])
        wait_for(lambda: "waiting" not in place.ask(op="pruned", name="app"))
        fill_epochs()
        wait_for(lambda: wholes() > before)
