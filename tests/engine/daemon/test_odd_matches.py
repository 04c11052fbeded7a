"""Tests of what tenants put in their folders: each odd match is suspended by itself, and the others are not
affected.
"""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.following import closed_database
from tests.engine.running import Place, serving, wait_for
from tests.fakes import FakeStorage
from walsyncd.adapters.journal.journal import DatabaseRow
from walsyncd.cli import main
from walsyncd.config import Settings

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


class Tenants:
    """The patterns ``tenants/*/data.db`` and ``tenants/*/*.db``, with one tenant whose database is fine."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.folder = place.folder / "tenants"
        self.settings: Settings = place.settings(patterns=(f"{self.folder}/*/*.db",))
        self.add("good")

    def path(self, tenant: str, name: str = "data.db") -> Path:
        (self.folder / tenant).mkdir(parents=True, exist_ok=True)
        return self.folder / tenant / name

    def add(self, tenant: str) -> Path:
        path = self.path(tenant)
        closed_database(path)
        return path

    def name(self, tenant: str, name: str = "data.db") -> str:
        return str(self.path(tenant, name))[1:]

    def read(self) -> tuple[Settings, FakeStorage]:
        return self.settings, FakeStorage()

    def suspended(self) -> dict[str, str]:
        """Return the causes by tenant, as status has them."""
        rows = self.place.ask(op="status")["databases"]
        return {row["name"].split("/")[-2]: row["cause"] for row in rows if row["state"] == "suspended"}


@pytest.fixture
def tenants(place: Place) -> Tenants:
    return Tenants(place)


def put_link(tenants: Tenants) -> None:
    tenants.path("odd").symlink_to(tenants.path("good"))


def put_hard_link(tenants: Tenants) -> None:
    tenants.path("odd").hardlink_to(tenants.path("good"))


def put_fifo(tenants: Tenants) -> None:
    os.mkfifo(tenants.path("odd"))


def put_folder(tenants: Tenants) -> None:
    tenants.path("odd").mkdir()


def put_socket(tenants: Tenants) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tenants.path("odd")))


def put_newline(tenants: Tenants) -> None:
    tenants.add("good2").rename(tenants.path("odd", "a\nb.db"))


def put_bytes(tenants: Tenants) -> None:
    tenants.add("good2").rename(tenants.path("odd", os.fsdecode(b"\xff\xfe.db")))


def put_text(tenants: Tenants) -> None:
    tenants.path("odd").write_text("notes\n")


def put_leftover(tenants: Tenants) -> None:
    tenants.add("good2").rename(tenants.path("odd", "data.db-wal.before-restore-20261122.db"))


def put_generation(tenants: Tenants) -> None:
    tenants.add("good2").rename(tenants.path("odd", "data.db"))
    (tenants.folder / "odd").rename(tenants.folder / "20261122T105600Z-3f9c1a2b")


def put_linked_folder(tenants: Tenants) -> None:
    tenants.path("good")
    (tenants.folder / "odd").symlink_to("good")


ODD: list[tuple[Callable[[Tenants], None], str]] = [
    (put_link, "is a symbolic link"),
    (put_hard_link, "is the same file as"),
    (put_fifo, "is a FIFO, no file"),
    (put_folder, "is a folder, no file"),
    (put_socket, "is a socket, no file"),
    (put_newline, "has a control character"),
    (put_bytes, "is not UTF-8"),
    (put_text, "is no SQLite database"),
    (put_leftover, "was left there by a restore"),
    (put_generation, "which means something else in a replica"),
    (put_linked_folder, "is a symbolic link"),
]


@pytest.mark.parametrize(("put", "cause"), ODD, ids=[put.__name__ for put, _ in ODD])
def test_an_odd_match_stops_nobody(tenants: Tenants, place: Place, put: Callable[[Tenants], None], cause: str) -> None:
    """The daemon starts, reloads, and follows a tenant who comes later. Status has the reason."""
    put(tenants)
    with serving(tenants.settings, FakeStorage(), tenants.read):
        place.sync(tenants.name("good"))
        (found,) = tenants.suspended().values()
        assert cause in found
        assert "error" not in place.ask(op="reload")
        with wal_database(tenants.path("later")) as app:
            wait_for(lambda: tenants.name("later") in [row["name"] for row in place.ask(op="status")["databases"]])
            app.execute("INSERT INTO t VALUES (1)")
            place.sync(tenants.name("later"))
        (found,) = tenants.suspended().values()
        assert cause in found


def test_an_odd_match_that_comes_and_goes(tenants: Tenants, place: Place) -> None:
    """The match changes while the daemon runs. What takes its place is followed."""
    with serving(tenants.settings, FakeStorage(), tenants.read) as daemon:
        place.sync(tenants.name("good"))
        put_fifo(tenants)
        wait_for(lambda: tenants.suspended() == {"odd": "is a FIFO, no file"})
        complaints = daemon._observability._complaints()
        assert [(each.database, each.kind) for each in complaints or ()] == [(tenants.name("odd"), "suspended")]
        tenants.path("odd").unlink()
        tenants.add("new").rename(tenants.path("odd"))
        name = tenants.name("odd")
        wait_for(lambda: not tenants.suspended() and "databases" in place.ask(op="sync", names=[name]))
        place.sync(name)
        assert len([each for each in daemon.databases if each.name == tenants.name("odd")]) == 1


@pytest.mark.parametrize("target", ["victim", "secret"])
def test_a_tenant_who_switches_his_database_to_a_link(tenants: Tenants, place: Place, target: str) -> None:
    """The link's target is not stored under the tenant's name.

    The others continue, and so does he with a file again.
    """
    (place.folder / "secret").mkdir()
    (place.folder / "secret" / "data.db").write_text("root's\n" * 1000)
    storage = FakeStorage()
    other = tenants.folder / "victim" if target == "victim" else place.folder / "secret"
    odd = tenants.name("odd")
    with wal_database(tenants.path("victim")) as victim, serving(tenants.settings, storage, tenants.read):
        tenants.add("odd")
        wait_for(lambda: any(row.name == odd for row in _rows(place)))
        place.sync(odd)
        objects = {key for key in storage.objects if key.startswith(odd)}
        tenants.path("odd", "link").symlink_to(other / "data.db")
        tenants.path("odd", "link").rename(tenants.path("odd"))
        victim.execute("INSERT INTO t VALUES (42)")
        wait_for(lambda: tenants.suspended().get("odd") == "is a symbolic link")
        victim.execute("INSERT INTO t VALUES (43)")
        place.sync(tenants.name("victim"))
        assert place.row(odd).state == "suspended"
        assert {key for key in storage.objects if key.startswith(odd)} == objects
        assert "is suspended: is a symbolic link" in place.ask(op="sync", names=[odd])["error"]
        tenants.path("odd").unlink()
        tenants.add("new").rename(tenants.path("odd"))
        wait_for(lambda: not tenants.suspended())
        place.sync(odd)


def _rows(place: Place) -> list[DatabaseRow]:
    with place.journal() as journal:
        return [row for row in journal.databases() if row.generation]


@needs_root
@pytest.mark.root
def test_a_tenants_hard_link_to_somebody_elses_file_and_an_administrators_copy(tenants: Tenants, place: Place) -> None:
    """The link must not begin backups, and the copy must not end them."""
    good, secret = tenants.path("good"), place.folder / "secret.db"
    with closing(sqlite3.connect(secret)) as connection:
        connection.execute("CREATE TABLE t (x)")
    os.chown(good.parent, 5001, 5001)
    os.chown(good, 5001, 5001)
    os.chown(tenants.path("odd").parent, 5002, 5002)
    with serving(tenants.settings, FakeStorage(), tenants.read) as daemon:
        place.sync(tenants.name("good"))
        (place.folder / "copy.db").hardlink_to(good)
        tenants.path("odd").hardlink_to(secret)
        wait_for(lambda: "its owner is not its folder's owner" in tenants.suspended().get("odd", ""))
        with SqliteProcess(good) as app:
            app.execute("INSERT INTO t VALUES (1)")
            place.sync(tenants.name("good"))
        assert [each.name for each in daemon.databases] == [tenants.name("good")]
        assert place.row(tenants.name("good")).state == "following"


def test_what_is_excluded_is_left_alone(tenants: Tenants, place: Place) -> None:
    """A reload stops following what is excluded, and what was odd is no longer reported."""
    put_fifo(tenants)
    tenants.add("test-1")
    storage = FakeStorage()
    now = [tenants.settings]
    with serving(tenants.settings, storage, lambda: (now[0], storage)):
        place.sync(tenants.name("test-1"))
        exclude = (f"{tenants.folder}/test-*/*", f"{tenants.folder}/odd")
        entry = replace(tenants.settings.databases[0], exclude=exclude)
        now[0] = replace(tenants.settings, databases=(entry,))
        answer = place.ask(op="reload")
        assert answer["removed"] == [tenants.name("test-1")]
        assert not tenants.suspended()
        assert place.row(tenants.name("test-1")).state == "not configured"


def test_status_and_check_show_it_with_a_daemon_and_without(
    tenants: Tenants, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """A monitoring check fails because of it, and check says what to do."""
    put_fifo(tenants)
    file = place.folder / "config.toml"
    file.write_text(
        f'[storage]\nurl = "{place.replica.as_uri()}"\n[daemon]\nstate_dir = "{place.state}"\n'
        f'[[database]]\npath = "{tenants.folder}/*/*.db"\n'
    )
    place.replica.mkdir()

    def says(*command: str) -> tuple[int, str]:
        code = main([*command, "--config", str(file)])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    def seen() -> None:
        code, text = says("status", "--max-lag", "1ms")
        assert code == 1
        assert f"{tenants.name('odd')}: is a FIFO, no file (remove it, or exclude it)" in text
        assert f"{tenants.name('odd')} is behind by" in text

    seen()  # before the first run
    with serving(tenants.settings):
        place.sync(tenants.name("good"))
        seen()
        code, text = says("sync")
        assert code == 0, "it must not fail for what a tenant puts there"
        assert "walsyncd: 1 configured file can't be replicated: `walsyncd status` says which, and why" in text
        code, text = says("sync", tenants.name("good"))
        assert "replicated" not in text
    seen()
    code, text = says("check")
    assert code == 1
    assert f"problem database[1] {tenants.path('odd')}: is a FIFO, no file: it is suspended (hint: remove it" in text
