"""Tests of replicas that another host has left: which are continued, and which are not."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.content.test_restored_files import MODES, bases, begun, bridges, remove, restore
from tests.engine.running import Place, running, wait_for
from walsyncd.adapters.journal.journal import DatabaseRow
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.cli import main
from walsyncd.core.follow.database_state import DatabaseState
from walsyncd.engine.daemon.daemon import Daemon
from walsyncd.engine.restore.planner import find_plan
from walsyncd.engine.ship import ownership
from walsyncd.engine.ship.ownership import Ownership, Release
from walsyncd.engine.upkeep import continuation
from walsyncd.engine.upkeep.drill import StoppedError
from walsyncd.engine.upkeep.replica_map import make_replica_map
from walsyncd.errors import CorruptError, TransientError


@dataclass
class Host(Place):
    """A machine with a state directory, databases and an id of its own, and the replica that all share."""

    @property
    def replica(self) -> Path:
        return self.folder.parent / "replica"

    def owner(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.replica / "app" / "owner.json").read_text())
        return found


@pytest.fixture
def hosts(tmp_path: Path) -> tuple[Host, Host]:
    """Return the host that writes the replica, and one that has never done so."""
    pair = Host(tmp_path / "a"), Host(tmp_path / "b")
    for host in pair:
        host.folder.mkdir()
    return pair


@contextmanager
def working(host: Host) -> Iterator[Daemon]:
    """Run a daemon on this host."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ownership, "machine_id", lambda: f"machine-{host.folder.name}")
        with running(host.settings("app")) as daemon:
            yield daemon


def content(host: Host, *options: str) -> bytes:
    """Return what a restore gives."""
    target = host.folder / "restored.db"
    assert main(["restore", "app", *host.config(), "-o", str(target), "--force", *options]) == 0
    return target.read_bytes()


def left(host: Host, mode: str = "WAL") -> tuple[str, str]:
    """Make a replica that ``host`` has left in order. Return its generation, and a position before the last one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ownership, "machine_id", lambda: f"machine-{host.folder.name}")
        return begun(host, mode)


def goes_on(host: Host, generation: str, *, bridged: int) -> None:
    host.sync()
    assert host.row().generation == generation
    with SqliteProcess(host.database()) as app:
        app.execute("UPDATE t SET y = randomblob(900) WHERE x = 300", "DELETE FROM t WHERE x > 890")
        host.sync()
        app.close()
    host.sync()
    assert (host.row().generation, bases(host), bridges(host)) == (generation, 1, bridged)
    assert content(host) == host.database().read_bytes()


@pytest.mark.parametrize("mode", MODES)
def test_a_new_host_goes_on_in_the_same_generation(hosts: tuple[Host, Host], mode: str) -> None:
    """The new host needs no base. All positions are restored exactly, and verify finds every chain whole."""
    old, new = hosts
    generation, before = left(old, mode)
    assert old.owner()["released"] == generation
    earlier, head = content(old, "--position", before), old.database().read_bytes()
    restore(new)
    assert new.database().read_bytes() == head
    with working(new):
        goes_on(new, generation, bridged=int(mode == "DELETE"))
        assert "released" not in new.owner()
        goes_on(new, generation, bridged=int(mode == "DELETE"))
    assert content(new, "--position", before) == earlier
    assert content(new) == new.database().read_bytes()
    assert main(["verify", "app", *new.config()]) == 0
    assert new.owner()["released"] == generation


def commit(host: Host, *rows: int) -> None:
    with SqliteProcess(host.database()) as app:
        app.execute(*(f"UPDATE t SET y = randomblob(900) WHERE x = {row}" for row in rows))
        host.sync()
        app.close()
    host.sync()


def is_sound(host: Host) -> bool:
    return main(["verify", "app", *host.config()]) == 0


def test_a_host_that_was_killed_is_not_succeeded(hosts: tuple[Host, Host]) -> None:
    """The killed host released nothing. Another host begins a generation, and the old one stays restorable."""
    old, new = hosts
    generation, before = left(old)
    file = old.replica / "app" / "owner.json"
    owner = old.owner()
    del owner["released"]
    file.write_text(json.dumps(owner))
    earlier = content(old, "--position", before)
    restore(new)
    with working(new):
        new.sync()
        assert new.row().generation != generation
        assert bases(new) == 2
        commit(new, 7)
    assert content(new) == new.database().read_bytes()
    assert content(new, "--position", before) == earlier
    assert is_sound(new)


def test_the_old_host_comes_back(hosts: tuple[Host, Host]) -> None:
    """The old host finds another owner, and no longer writes to the generation that another host continues."""
    old, new = hosts
    generation, _ = left(old)
    restore(new)
    with working(new):
        commit(new, 7)
        theirs, there = new.sync(), new.database().read_bytes()
        with working(old):
            commit(old, 8)
            assert old.row().generation != generation
            assert content(old) == old.database().read_bytes()
            commit(new, 9)  # it has not looked since, and its generation still counts as its own
            assert new.row().generation == generation
        assert content(new, "--position", theirs) == there
        assert content(new, "--position", new.sync()) == new.database().read_bytes()
    assert is_sound(new)


def waits_before_take(monkeypatch: pytest.MonkeyPatch, then: Any) -> None:
    """Call ``then`` between the reading of a replica and the claim of its folder."""
    take = Ownership.take

    def late(self: Ownership, database: DatabaseRow, release: Release) -> bool:
        then()
        return take(self, database, release)

    monkeypatch.setattr(Ownership, "take", late)


def test_the_old_host_starts_while_the_new_one_reads(hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch) -> None:
    """The old host has claimed its replica by then, so the new one begins a generation."""
    old, new = hosts
    generation, _ = left(old)
    restore(new)
    with working(old):
        waits_before_take(monkeypatch, lambda: commit(old, 8))
        with working(new):
            new.sync()
            assert old.row().generation == generation
            assert new.row().generation != generation
    assert is_sound(new)


def test_of_two_new_hosts_one_goes_on(
    hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both hosts have read the replica when the first one claims it."""
    old, new = hosts
    third = Host(tmp_path / "c")
    third.folder.mkdir()
    generation, _ = left(old)
    restore(new)
    restore(third)
    both = threading.Barrier(2)
    waits_before_take(monkeypatch, lambda: both.wait(120.0))
    with working(new), working(third):
        wait_for(lambda: new.row().generation and third.row().generation)
        assert [new.row().generation, third.row().generation].count(generation) == 1
        new.sync()
        third.sync()
    assert is_sound(new)


@pytest.mark.parametrize("mode", MODES)
def test_restored_to_an_earlier_moment(hosts: tuple[Host, Host], mode: str) -> None:
    """The bridge leads back to that moment, and what was committed after it can still be restored."""
    old, new = hosts
    generation, before = left(old, mode)
    head = old.database().read_bytes()
    with old.journal() as journal:
        row = journal.databases()[0]
    last = f"{generation}/{row.stored_epoch:08x}/{row.stored_frame:08x}"
    restore(new, "--position", before)
    with working(new):
        goes_on(new, generation, bridged=1)
    assert content(new, "--position", last) == head
    assert content(new) == new.database().read_bytes()
    assert is_sound(new)


def test_written_before_the_daemon_starts(hosts: tuple[Host, Host]) -> None:
    """The bridge has what was written before the start."""
    old, new = hosts
    generation, _ = left(old)
    restore(new)
    with SqliteProcess(new.database()) as app:
        app.execute("UPDATE t SET y = randomblob(900) WHERE x BETWEEN 200 AND 203")
        with working(new):
            new.sync()
            app.close()
            goes_on(new, generation, bridged=1)


def test_there_and_back_again(hosts: tuple[Host, Host]) -> None:
    """The first host knows the generation as it was when that host left."""
    old, new = hosts
    generation, _ = left(old)
    for here, there in (old, new), (new, old), (old, new):
        remove(there)
        restore(there)
        with working(there):
            commit(there, 7, 8)
            assert there.row().generation == generation
        remove(here)
    assert bases(old) == 1
    assert content(old) == new.database().read_bytes()
    assert is_sound(old)


def test_a_database_that_is_restored_beside_the_daemon(hosts: tuple[Host, Host]) -> None:
    """Storage is not asked before the database exists."""
    old, new = hosts
    generation, _ = left(old)
    with working(new):
        wait_for(lambda: new.row().state is DatabaseState.MISSING)
        restore(new)
        goes_on(new, generation, bridged=0)


def test_another_database_of_that_name(hosts: tuple[Host, Host]) -> None:
    """The other database is shipped like any other file in the database's place, and the old one stays restorable."""
    old, new = hosts
    _, before = left(old)
    head, earlier = content(old), content(old, "--position", before)
    with SqliteProcess(new.database()) as app:
        app.execute("PRAGMA journal_mode = WAL", "CREATE TABLE other (x)", "INSERT INTO other VALUES (1)")
        with working(new):
            new.sync()
            app.close()
            new.sync()
    assert content(new) == new.database().read_bytes() != head
    assert content(new, "--position", before) == earlier
    assert is_sound(new)


@pytest.mark.parametrize("error", [TransientError("away"), CorruptError("damaged"), ValueError("a bug")])
def test_what_can_not_be_continued_begins_as_ever(
    hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A generation begins, whatever fails."""
    old, new = hosts
    generation, _ = left(old)
    restore(new)

    def fails(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr(continuation, "manifest_of", fails)
    with working(new):
        new.sync()
        assert new.row().generation != generation
    assert content(new) == new.database().read_bytes()


def test_a_stop_meanwhile_begins_nothing(hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run continues the replica."""
    old, new = hosts
    generation, _ = left(old)
    restore(new)
    reading, made = threading.Event(), make_replica_map

    def waits(*arguments: Any, **names: Any) -> Any:
        reading.set()
        while True:
            names["read"](1 << 20)

    monkeypatch.setattr(continuation, "make_replica_map", waits)
    with working(new):
        wait_for(reading.is_set)
    assert new.row().generation is None
    monkeypatch.setattr(continuation, "make_replica_map", made)
    with working(new):
        goes_on(new, generation, bridged=0)


def test_a_death_after_the_folder_was_taken(hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch) -> None:
    """A generation begins. Nobody else can have written to the old one since, and nobody will."""
    old, new = hosts
    generation, _ = left(old)
    restore(new)
    died, take = threading.Event(), Ownership.take

    def dies(self: Ownership, database: DatabaseRow, release: Release) -> bool:
        assert take(self, database, release)
        died.set()
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(Ownership, "take", dies)
        with working(new):
            wait_for(died.is_set)
    assert new.row().generation is None
    assert new.row().last_generation == generation  # so the next one is newer, even if the clock is behind
    with working(new):
        new.sync()
        assert new.row().generation != generation
    assert content(new) == new.database().read_bytes()
    assert is_sound(new)


def test_a_store_without_conditional_writes(hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two daemons might both believe that the replica is theirs, so each begins a generation."""
    old, new = hosts
    generation, _ = left(old)
    restore(new)
    monkeypatch.setattr(DirectoryStorage, "honours_conditions", False)
    with working(new):
        new.sync()
        assert new.row().generation != generation
    assert "released" not in new.owner()


def test_a_folder_that_other_machines_may_write_to(hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock on a file of NFS does not show at once what another machine wrote, so two machines might both take the
    replica.
    """
    old, new = hosts
    generation, _ = left(old)
    restore(new)
    monkeypatch.setattr(ownership, "read_mounts", lambda: {Path("/"): "ext4", old.replica.parent.resolve(): "nfs4"})
    with working(new):
        new.sync()
        assert new.row().generation != generation
    assert "released" not in new.owner()
    assert is_sound(new)


@pytest.mark.parametrize("is_planned", [False, True])
def test_something_newer_than_the_head_ends_it(
    hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch, is_planned: bool
) -> None:
    """What comes after a hole can't be restored, and what comes after the plan was not read, so nothing is
    added to it.
    """
    old, new = hosts
    generation, _ = left(old)
    restore(new)
    segment = max((old.replica / "app" / generation / "wal").rglob("*.wal.zst"))

    def appear() -> None:
        folder = segment.parent.parent / "000000ff"
        folder.mkdir()
        shutil.copy(segment, folder / "00000001-00000002.1795344960000.00000001.wal.zst")

    def plans(*arguments: Any, **names: Any) -> Any:
        plan = find_plan(*arguments, **names)
        appear()
        return plan

    if is_planned:
        monkeypatch.setattr(continuation, "find_plan", plans)
    else:
        appear()
    with working(new):
        new.sync()
        assert new.row().generation != generation
