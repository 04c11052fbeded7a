"""Tests that a path is followed, not the file that it once named: links, folders and mounts that change meanwhile."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.running import Place, restored_values, serving, wait_for
from walsyncd.config import Found, Settings, find_databases
from walsyncd.engine.daemon.daemon import Daemon

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

ANOTHER = "another file was put in the database's place"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def releases(place: Place) -> Iterator[tuple[SqliteProcess, SqliteProcess]]:
    """Return two databases of the same name, with 1 and with 2 in them, and applications that have them open."""
    for number in (1, 2):
        (place.folder / "releases" / str(number)).mkdir(parents=True)
    with (
        wal_database(place.folder / "releases" / "1" / "app.db") as first,
        wal_database(place.folder / "releases" / "2" / "app.db") as second,
    ):
        first.execute("INSERT INTO t VALUES (1)")
        second.execute("INSERT INTO t VALUES (2)")
        yield first, second


def at(place: Place, path: str) -> Settings:
    """Return settings whose database ``app`` has this path."""
    settings = place.settings("app")
    return replace(settings, databases=(replace(settings.databases[0], path=f"{place.folder}/{path}"),))


def renamed_over(link: Path, target: str) -> None:
    new = link.with_name("new-link")
    new.symlink_to(target)
    new.rename(link)


def made_again(link: Path, target: str) -> None:
    link.unlink()
    link.symlink_to(target)


def is_followed(place: Place, path: str) -> bool:
    row = place.row()
    return row.path == str(place.folder / path) and row.generation is not None


@contextmanager
def switched(place: Place, settings: Settings, path: str, *, also: str = "") -> Iterator[Daemon]:
    """Let the daemon store the first file. Then it must follow the file at ``path``, whatever was done, and say
    why.

    ``also`` is what may be seen in addition if it takes two steps.
    """
    with serving(settings) as daemon:
        place.sync()
        assert restored_values(place) == [0, 1]
        with capture_logs() as logs:
            yield daemon
            wait_for(lambda: is_followed(place, path) and _is_stored(place, [0, 2]))
        told = [entry["reason"] for entry in logs if entry["event"] in {"generation_ended", "gap_found"}]
        in_steps = bool(also and told) and all(each == ANOTHER or also in each for each in told)
        assert told == [ANOTHER] or in_steps


def _is_stored(place: Place, values: list[int]) -> bool:
    """Return whether a restore of the head gives these values."""
    place.sync()
    return restored_values(place) == values


@pytest.mark.parametrize("switch", [renamed_over, made_again])
@pytest.mark.parametrize("link", ["current", "alias"])
@pytest.mark.usefixtures("releases")
def test_a_link_that_is_switched(place: Place, link: str, switch: Callable[[Path, str], None]) -> None:
    """Any link on the way may be switched, in any way, without a request."""
    (place.folder / "current").symlink_to("alias")
    (place.folder / "alias").symlink_to("releases/1")
    also = "does not exist" if switch is made_again else ""
    with switched(place, at(place, "current/app.db"), "releases/2/app.db", also=also):
        switch(place.folder / link, "releases/2")


@pytest.mark.usefixtures("releases")
def test_the_database_itself_is_a_link(place: Place) -> None:
    """SQLite keeps -wal and -shm where the file is."""
    (place.folder / "data").mkdir()
    (place.folder / "data" / "app.db").symlink_to("../releases/1/app.db")
    with switched(place, at(place, "data/app.db"), "releases/2/app.db"):
        renamed_over(place.folder / "data" / "app.db", "../releases/2/app.db")


@pytest.mark.usefixtures("releases")
def test_a_path_that_goes_up_again(place: Place) -> None:
    """After a link, .. is the parent of the folder to which it leads."""
    (place.folder / "current").symlink_to("releases/1")
    with switched(place, at(place, "current/../1/app.db"), "elsewhere/1/app.db"):
        (place.folder / "elsewhere" / "x").mkdir(parents=True)
        (place.folder / "releases" / "2").rename(place.folder / "elsewhere" / "1")
        renamed_over(place.folder / "current", "elsewhere/x")


@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_link_that_appears_after_the_start(
    place: Place, releases: tuple[SqliteProcess, SqliteProcess], what: str
) -> None:
    """The link appears in the place of the folder, or of the database itself."""
    path = "releases/1" if what == "folder" else "releases/1/app.db"
    with switched(place, at(place, "releases/1/app.db"), "releases/2/app.db", also="does not exist"):
        if what == "folder":
            releases[0].close()
            (place.folder / path).rename(place.folder / "moved")
            (place.folder / path).symlink_to(place.folder / path.replace("1", "2"))
        else:
            renamed_over(place.folder / path, "../2/app.db")


def test_a_link_from_a_file_at_rest_to_one_in_use(place: Place, releases: tuple[SqliteProcess, SqliteProcess]) -> None:
    """The first file has no WAL any more when the link is switched, and the second one has one."""
    (place.folder / "current").symlink_to("releases/1")
    with switched(place, at(place, "current/app.db"), "releases/2/app.db"):
        releases[0].close()
        place.sync()
        renamed_over(place.folder / "current", "releases/2")


@pytest.mark.usefixtures("releases")
def test_another_folder_in_the_folders_place(place: Place) -> None:
    """The folder is renamed, and another one is renamed to its name, without any link."""
    with switched(place, at(place, "releases/1/app.db"), "releases/1/app.db", also="does not exist"):
        (place.folder / "releases" / "1").rename(place.folder / "releases" / "old")
        (place.folder / "releases" / "2").rename(place.folder / "releases" / "1")


@needs_root
@pytest.mark.root
@pytest.mark.parametrize("what", ["folder", "parent"])
@pytest.mark.usefixtures("releases")
def test_a_mount_over_the_folder(place: Place, what: str) -> None:
    """The kernel's mount table shows the mount. No event of any file does."""
    over = place.folder / ("releases/1" if what == "folder" else "releases")
    source = place.folder / "releases" / "2"
    if what == "parent":
        source = place.folder / "others"
        source.mkdir()
        (place.folder / "releases" / "2").rename(source / "1")
    mounted = False
    try:
        with switched(place, at(place, "releases/1/app.db"), "releases/1/app.db"):
            subprocess.run(["mount", "--bind", source, over], check=True)
            mounted = True
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", over], check=True)


def test_a_sync_right_after_the_switch(place: Place, releases: tuple[SqliteProcess, SqliteProcess]) -> None:
    """Whatever events are still to come, what is stored then is the file to which the path leads."""
    (place.folder / "current").symlink_to("releases/1")
    with serving(at(place, "current/app.db")):
        place.sync()
        for number in range(2, 5):
            renamed_over(place.folder / "current", f"releases/{1 + number % 2}")
            releases[(number + 1) % 2].execute("SELECT 1")
            releases[number % 2].execute(f"INSERT INTO t VALUES ({number * 10})")
            place.sync()
            assert number * 10 in restored_values(place)


def test_a_link_that_leads_nowhere_for_a_while(place: Place) -> None:
    """The database is missing, and followed when it exists."""
    (place.folder / "current").symlink_to("releases/1")
    with serving(at(place, "current/app.db")):
        wait_for(lambda: place.row().state == "missing")
        (place.folder / "releases" / "1").mkdir(parents=True)
        with wal_database(place.folder / "releases" / "1" / "app.db") as app:
            app.execute("INSERT INTO t VALUES (7)")
            place.sync()
        assert restored_values(place) == [0, 7]


def test_a_link_in_the_fixed_part_of_a_pattern(place: Place) -> None:
    """Another disk takes the place of the first. Its tenants are followed, and the same names continue there."""
    for disk, values in (("disk1", {"a": 1, "b": 2}), ("disk2", {"a": 3, "c": 4})):
        for tenant, value in values.items():
            (place.folder / disk / tenant).mkdir(parents=True)
            with closing(sqlite3.connect(place.folder / disk / tenant / "app.db")) as connection:
                connection.executescript(f"CREATE TABLE t (x); INSERT INTO t VALUES ({value})")
    link = place.folder / "tenants"
    link.symlink_to("disk1")
    names = [f"{link}/{tenant}/app.db"[1:] for tenant in "abc"]
    with serving(place.settings(patterns=(f"{link}/*/app.db",))) as daemon:
        for name in names[:2]:
            place.sync(name)
        renamed_over(link, "disk2")
        wait_for(
            lambda: {each.name: each.path.parent.parent.name for each in daemon.databases}.get(names[2]) == "disk2"
        )
        wait_for(lambda: place.row(names[0]).path == str(place.folder / "disk2" / "a" / "app.db"))
        place.sync(names[0])
        place.sync(names[2])


def test_a_storm_of_temporary_files_costs_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is listed and holds databases. Only names that a pattern matches are examined."""
    looks = []
    folder = place.folder / "data" / "dbs"
    folder.mkdir(parents=True)
    for number in range(20):
        with closing(sqlite3.connect(folder / f"{number}.db")) as connection:
            connection.execute("CREATE TABLE t (x)")

    def count(*each: Any, **how: Any) -> Found:
        looks.append(1)
        return find_databases(*each, **how)

    monkeypatch.setattr("walsyncd.engine.daemon.databases.find_databases", count)
    with serving(place.settings(patterns=(f"{folder}/*.db",))) as daemon:
        wait_for(lambda: len(daemon.databases) == 20)
        place.sync(f"{folder}/0.db"[1:])
        wait_for(lambda: len(looks) >= 2)  # by the start, and right after it
        before = len(looks)
        for number in range(2000):
            (folder / f"etilqs_{number}").touch()
            (folder / f"etilqs_{number}").unlink()
        daemon._events.drain()
        place.sync(f"{folder}/0.db"[1:])
        assert len(looks) == before
        with wal_database(folder / "new.db"):
            wait_for(lambda: len(daemon.databases) == 21)
