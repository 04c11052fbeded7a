"""Tests of several storages: each database is in its own, and no storage delays another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import wal_database
from tests.engine.running import Given, Place, running, serving, wait_for
from tests.fakes import Call, FakeStorage
from walsyncd.config import Settings, StorageSettings
from walsyncd.errors import RefusedError, TransientError

DEFAULT, EU = "fake://default", "fake://eu"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def two(place: Place, **selected: str) -> Settings:
    """Return settings of databases, each in the storage that is given."""
    settings = place.settings(*selected)
    entries = tuple(replace(each, storage=selected[each.name or ""]) for each in settings.databases)
    return replace(
        settings, storage=StorageSettings(DEFAULT), others=(StorageSettings(EU, name="eu"),), databases=entries
    )


def folders(storage: FakeStorage) -> set[str]:
    """Return the databases that have an object in a storage."""
    return {key.split("/")[0] for key in storage.objects}


def away(_call: Call) -> None:
    raise TransientError("the line is down")


def refuse(_call: Call) -> None:
    raise RefusedError("access denied")


def test_each_database_is_in_the_storage_that_it_selects(place: Place) -> None:
    """The other storage has nothing of it, and the journal knows which one is used."""
    stores = {DEFAULT: FakeStorage(), EU: FakeStorage()}
    with (
        wal_database(place.database("a")),
        wal_database(place.database("b")),
        running(two(place, a="", b="eu"), stores),
    ):
        place.sync("a")
        place.sync("b")
        assert (place.row("a").place, place.row("b").place) == (DEFAULT, EU)
        shown = {each["name"]: each["storage"] for each in place.ask(op="status")["databases"]}
        assert shown == {"a": DEFAULT, "b": EU}
        assert place.ask(op="prune", names=["a", "b"])["names"] == ["a", "b"]
        wait_for(lambda: all("waiting" not in place.ask(op="pruned", name=name) for name in "ab"))
    assert (folders(stores[DEFAULT]), folders(stores[EU])) == ({"a"}, {"b"})


def test_a_storage_that_nobody_selects_is_left_alone(place: Place) -> None:
    """Such a storage is not opened, and gets no request."""
    with wal_database(place.database("a")), running(two(place, a=""), {DEFAULT: FakeStorage()}):
        place.sync("a")


@pytest.mark.parametrize(
    ("trouble", "words"), [(away, "storage eu is away: the line is down"), (refuse, "storage eu refuses")]
)
def test_a_storage_in_trouble_holds_no_other_back(place: Place, trouble: object, words: str) -> None:
    """The storage in trouble is named, and what waits for it is uploaded later."""
    stores = {DEFAULT: FakeStorage(), EU: FakeStorage()}
    settings = two(place, a="", b="eu")
    databases = [wal_database(place.database(name)) for name in "ab"]
    with databases[0] as first, databases[1] as second, running(settings, stores):
        place.sync("a")
        place.sync("b")
        stores[EU].before = trouble  # type: ignore[assignment]  # one of the two above
        second.execute("insert into t values (1)")
        wait_for(lambda: words in place.ask(op="status")["storage"])
        first.execute("insert into t values (1)")
        place.sync("a")
        stores[EU].before = lambda _call: None
        place.sync("b")
        wait_for(lambda: place.ask(op="status")["storage"] == "")


def test_a_database_moves_by_a_reload_and_only_that_one(place: Place) -> None:
    """A new generation with the reason begins there. The other database continues where it is."""
    stores = {DEFAULT: FakeStorage(), EU: FakeStorage()}
    settings = two(place, a="", b="")
    source: tuple[Settings, Given] = (settings, stores)
    databases = [wal_database(place.database(name)) for name in "ab"]
    with databases[0], databases[1] as writer, serving(settings, stores, lambda: source):
        before = {name: place.sync(name).split("/")[0] for name in "ab"}
        assert not stores[EU].calls
        source = (two(place, a="", b="eu"), stores)
        assert place.ask(op="reload")["changed"] == ["b"]
        kept = dict(stores[DEFAULT].objects)
        writer.execute("insert into t values (1)")
        assert place.sync("b").split("/")[0] != before["b"]
        assert place.sync("a").split("/")[0] == before["a"]
        with place.journal() as journal:
            begun = journal.generations(place.row("b").id)[-1].reason_begun
        assert f"the storage changed from {DEFAULT} to {EU}" in begun
        assert {key for key in stores[DEFAULT].objects if key.startswith("b/")} == {
            key for key in kept if key.startswith("b/")
        }
        source = (settings, stores)
        assert place.ask(op="reload")["changed"] == ["b"]
        place.sync("b")
        assert place.row("b").place == DEFAULT


def test_a_restart_finds_the_database_elsewhere(place: Place) -> None:
    """The journal says in which storage the database was."""
    stores = {DEFAULT: FakeStorage(), EU: FakeStorage()}
    with wal_database(place.database("a")):
        with running(two(place, a=""), stores):
            generation = place.sync("a").split("/")[0]
        with running(two(place, a="eu"), stores):
            assert place.sync("a").split("/")[0] != generation
            second = place.row("a").generation
        with running(two(place, a="eu"), stores):
            assert place.sync("a").split("/")[0] == second


def test_a_storage_that_refuses_us_changes_nothing(place: Place) -> None:
    """The whole reload is refused."""
    stores = {DEFAULT: FakeStorage(), EU: FakeStorage()}
    settings = two(place, a="")
    source: tuple[Settings, Given] = (settings, stores)
    with wal_database(place.database("a")), serving(settings, stores, lambda: source):
        generation = place.sync("a").split("/")[0]
        source, stores[EU].before = (two(place, a="eu"), stores), refuse
        assert "access denied" in place.ask(op="reload")["error"]
        assert place.sync("a").split("/")[0] == generation


def test_a_storage_that_is_removed_ends(place: Place) -> None:
    """The removed storage's database moves, and the storage gets no further request."""
    stores = {DEFAULT: FakeStorage(), EU: FakeStorage()}
    settings = two(place, a="eu")
    source: tuple[Settings, Given] = (settings, stores)
    with wal_database(place.database("a")) as writer, serving(settings, stores, lambda: source):
        place.sync("a")
        source = (replace(two(place, a=""), others=()), stores)
        assert place.ask(op="reload")["changed"] == ["a"]
        calls = len(stores[EU].calls)
        writer.execute("insert into t values (1)")
        place.sync("a")
        assert len(stores[EU].calls) == calls
        assert folders(stores[DEFAULT]) == {"a"}
