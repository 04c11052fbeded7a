"""Tests of two daemons, or two journals, and one folder: no generation ever receives two histories.

Every daemon here is a real process with a state directory of its own. They share the storage.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from tests.e2e.daemon import Daemon, wait_until
from walsyncd.adapters.journal.database_table import _identity as file_identity
from walsyncd.core.stored.layout import SegmentKey, parse_key
from walsyncd.core.stored.position import is_generation, parse_position
from walsyncd.engine.ship.database_queue import LOOK_UPLOADS_MAX

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # several daemons start one after the other


@contextmanager
def application(file: Path) -> Iterator[sqlite3.Connection]:
    """Open a connection that stays open, with a table of numbers."""
    file.parent.mkdir()
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE IF NOT EXISTS t (x INTEGER)")
        yield connection


def host(tmp_path: Path, name: str, **options: list[str]) -> Daemon:
    """Return a daemon called ``name``, for the one database in the one storage."""
    folder = tmp_path / name
    folder.mkdir()
    database = {"path": str(tmp_path / "data/app.db"), "name": "app"}
    prefix = options.get("prefix", [])
    return Daemon(folder, [database], storage={"url": (tmp_path / "replica").as_uri()}, prefix=prefix)


@contextmanager
def two_hosts(tmp_path: Path) -> Iterator[tuple[sqlite3.Connection, Daemon, Daemon]]:
    """Return an application and two daemons, none of which runs yet."""
    with (
        application(tmp_path / "data/app.db") as connection,
        host(tmp_path, "one") as one,
        host(tmp_path, "two") as two,
    ):
        yield connection, one, two


def copy_state(source: Daemon, target: Daemon) -> None:
    """Copy the files that a clone of the disk has."""
    shutil.copytree(source.state, target.state, ignore=shutil.ignore_patterns("*.sock"))


def generations(tmp_path: Path) -> list[str]:
    """Return the generations in the storage."""
    folder = tmp_path / "replica" / "app"
    return sorted(path.name for path in folder.iterdir() if is_generation(path.name))


def listed_generations(daemon: Daemon) -> list[str]:
    """Return the generations that ``ls`` shows."""
    (database,) = json.loads(daemon.done("ls", "app", "--json"))["databases"]
    return sorted(generation["generation"] for generation in database["generations"])


def current_generation(daemon: Daemon) -> str:
    """Return the generation that the daemon writes now."""
    return parse_position(daemon.look("app")).generation


def assert_no_generation_has_two_histories(tmp_path: Path) -> None:
    """Assert that each segment begins where the one before in its epoch ended."""
    folder = tmp_path / "replica" / "app"
    keys = [parse_key(str(path.relative_to(folder))) for path in folder.rglob("*.wal.zst")]
    segments = sorted((k for k in keys if isinstance(k, SegmentKey)), key=lambda k: (k.generation, k.epoch, k.first))
    assert segments
    for before, after in pairwise(segments):
        if (before.generation, before.epoch) == (after.generation, after.epoch):
            assert after.first == before.last + 1, f"{before} and {after}"


def commit_until(event: str, daemon: Daemon, connection: sqlite3.Connection) -> int:
    """Commit until a daemon logs it. Returns how many objects it stored before: fewer than commits, if it is slow."""
    before = len(daemon.lines("object_stored"))

    def is_logged() -> bool:
        if daemon.lines(event):
            return True
        connection.execute("INSERT INTO t VALUES (0)")
        daemon.looked("app")
        return False

    wait_until(is_logged, f"{event} in the log")
    return len(daemon.lines("object_stored")) - before


def commit_until_it_gives_way(daemon: Daemon, connection: sqlite3.Connection) -> int:
    """Commit until a daemon gives way. Return how many objects it stored before it noticed."""
    return commit_until("database_taken", daemon, connection)


def test_two_daemons_by_mistake(tmp_path: Path) -> None:
    """The second one begins a generation.

    The first one stops within 64 uploads, says why, and continues when told to.
    """
    with two_hosts(tmp_path) as (connection, one, two):
        one.start().sync()
        first = current_generation(one)
        two.start().sync()
        second = current_generation(two)
        assert first != second
        assert commit_until_it_gives_way(one, connection) <= LOOK_UPLOADS_MAX
        taken = one.wait_for("database_taken")
        assert "another daemon writes" in taken["reason"]
        assert "walsyncd takeover app" in taken["remedy"]
        assert "another daemon writes" in one.status("app")["error"]
        two.sync()
        assert listed_generations(one) == [first, second]
        assert one.done("takeover", "app") == "app: a new generation begins here\n"
        wait_until(lambda: one.status("app")["position"], "it begins anew")
        one.sync()
        third = current_generation(one)
        assert listed_generations(one) == [first, second, third]
        assert_no_generation_has_two_histories(tmp_path)
        with closing(sqlite3.connect(one.restore("app"))) as restored:
            count = "SELECT count(*) FROM t"
            assert restored.execute(count).fetchall() == connection.execute(count).fetchall()
        assert commit_until_it_gives_way(two, connection) <= LOOK_UPLOADS_MAX


def test_a_cloned_host(tmp_path: Path) -> None:
    """A copy of the state directory owns nothing, even if nothing was shipped since it was made."""
    with two_hosts(tmp_path) as (connection, one, two):
        one.start().sync()
        copy_state(one, two)
        two.start()
        two.wait_for("state_dir_was_copied")
        two.sync()
        connection.execute("INSERT INTO t VALUES (1)")
        two.sync()
        commit_until_it_gives_way(one, connection)
        assert len(generations(tmp_path)) == 2
        assert_no_generation_has_two_histories(tmp_path)


def hide_the_copy(daemon: Daemon) -> None:
    """Make the journal's inode and birth time those of the original, as a block-level clone has them."""
    journal = daemon.state / "journal.db"
    with closing(sqlite3.connect(journal)) as connection, connection:
        changed = connection.execute(
            "UPDATE fact SET value = ? WHERE name = 'journal_file'", (file_identity(journal),)
        ).rowcount
    assert changed == 1


def test_a_clone_of_the_disk_with_the_same_machine_id(tmp_path: Path) -> None:
    """Neither can distinguish itself from the other. The one that claimed first stops within 64 uploads and says why.

    The other one finds what was written meanwhile beside its own, and begins a generation of its own.
    """
    with two_hosts(tmp_path) as (connection, one, two):
        one.start().sync()
        connection.execute("INSERT INTO t VALUES (1)")
        one.sync()
        first = current_generation(one)
        copy_state(one, two)
        hide_the_copy(two)
        original = one.pid
        os.kill(original, signal.SIGSTOP)  # otherwise it may store the next commit before its copy does
        two.start()
        connection.execute("INSERT INTO t VALUES (2)")
        two.sync()
        assert two.lines("state_dir_was_copied") == []
        assert current_generation(two) == first
        os.kill(original, signal.SIGCONT)
        assert commit_until_it_gives_way(one, connection) <= LOOK_UPLOADS_MAX
        assert "another daemon writes" in one.wait_for("database_taken")["reason"]
        assert "walsyncd takeover app" in one.status("app")["remedy"]
        commit_until("generation_lost", two, connection)
        assert "a copy of this one wrote" in two.wait_for("generation_lost")["reason"]
        two.sync()
        assert current_generation(two) != first
        with closing(sqlite3.connect(two.restore("app"))) as restored:
            count = "SELECT count(*) FROM t"
            assert restored.execute(count).fetchall() == connection.execute(count).fetchall()


def test_a_golden_image(tmp_path: Path) -> None:
    """Each of two machines made from one image begins a generation, and the last to begin continues."""
    with application(tmp_path / "data/app.db") as connection, host(tmp_path, "image") as image:
        image.start().sync()
        image.stop()
        with host(tmp_path, "one") as one, host(tmp_path, "two") as two:
            for number, clone in enumerate((one, two)):
                copy_state(image, clone)
                clone.start()
                connection.execute("INSERT INTO t VALUES (?)", (number,))  # it claims the database at its first write
                clone.sync()
            commit_until_it_gives_way(one, connection)
            assert len(generations(tmp_path)) == 3
            assert_no_generation_has_two_histories(tmp_path)


@pytest.mark.parametrize("how", ["copied back", "written over"])
def test_a_journal_restored_from_yesterday(tmp_path: Path, how: str) -> None:
    """The bucket is ahead of the journal, so the generation does not continue, even if the restored files keep their
    inodes.
    """
    with application(tmp_path / "data/app.db") as connection, host(tmp_path, "one") as one:
        one.start().sync()
        one.stop()
        shutil.copytree(one.state, tmp_path / "yesterday", ignore=shutil.ignore_patterns("*.sock"))
        one.start()
        connection.execute("INSERT INTO t VALUES (1)")
        one.sync()
        one.stop()
        before = generations(tmp_path)
        if how == "copied back":
            shutil.rmtree(one.state)
            shutil.copytree(tmp_path / "yesterday", one.state)
        else:
            for path in (tmp_path / "yesterday").glob("journal.db*"):
                (one.state / path.name).write_bytes(path.read_bytes())
        one.start()
        connection.execute("INSERT INTO t VALUES (2)")
        one.sync()
        assert len(generations(tmp_path)) == len(before) + 1
        assert_no_generation_has_two_histories(tmp_path)


@pytest.mark.parametrize("storage", ["seaweedfs", "rclone"], indirect=True)
def test_a_host_that_is_replaced(tmp_path: Path, storage: dict[str, str], request: pytest.FixtureRequest) -> None:
    """A generation that it ended in order continues without a base if the store honours conditions.

    After a kill it needs one.
    """
    honours = "rclone" not in request.node.name
    old, new, last = (tmp_path / name / "data/app.db" for name in ("old", "new", "last"))
    hosts = []
    for file in (old, new, last):
        file.parent.mkdir(parents=True)
        hosts.append(Daemon(file.parents[1], [{"path": str(file), "name": "app"}], storage=storage))
    with closing(sqlite3.connect(old, isolation_level=None)) as connection, hosts[0]:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (x INTEGER)")
        hosts[0].start().sync()
        connection.execute("INSERT INTO t VALUES (1)")
        hosts[0].sync()
        first = current_generation(hosts[0])
        assert hosts[0].stop() == 0
    hosts[1].done("restore", "app", "-o", new)
    with closing(sqlite3.connect(new, isolation_level=None)) as connection, hosts[1]:
        hosts[1].start()
        connection.execute("INSERT INTO t VALUES (2)")
        hosts[1].sync()
        second = current_generation(hosts[1])
        assert (second == first) is honours
        hosts[1].kill()
    hosts[2].done("restore", "app", "-o", last)
    with closing(sqlite3.connect(last, isolation_level=None)) as connection, hosts[2]:
        hosts[2].start()
        connection.execute("INSERT INTO t VALUES (3)")
        hosts[2].sync()
        assert current_generation(hosts[2]) != second
        assert len(listed_generations(hosts[2])) == (2 if honours else 3)
        hosts[2].done("verify", "app")
        with closing(sqlite3.connect(hosts[2].restore("app"))) as restored:
            assert restored.execute("SELECT x FROM t").fetchall() == [(1,), (2,), (3,)]


@pytest.mark.root
def test_a_container_that_is_made_again(tmp_path: Path) -> None:
    """The same state directory is used under another machine id, on a machine that was not booted since,
    and continues.
    """
    (tmp_path / "machine-id").write_text("f" * 32 + "\n")
    elsewhere = ["unshare", "-m", "sh", "-c", f'mount --bind {tmp_path}/machine-id /etc/machine-id; exec "$@"', "sh"]
    with application(tmp_path / "data/app.db") as connection, host(tmp_path, "one") as one:
        one.start().sync()
        one.stop()
        with host(tmp_path, "two", prefix=elsewhere) as two:
            one.state.rename(two.state)
            two.start()
            connection.execute("INSERT INTO t VALUES (1)")
            two.sync()
            assert len(generations(tmp_path)) == 1
            assert two.lines("generation_lost") == []
            assert_no_generation_has_two_histories(tmp_path)
            with closing(sqlite3.connect(two.restore("app"))) as restored:
                assert restored.execute("SELECT x FROM t").fetchall() == [(1,)]
