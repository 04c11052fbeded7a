"""Tests that the head of the replica is the application's database, whatever the application does."""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.e2e.comparison import assert_same, counter_of, file_of
from tests.e2e.daemon import Daemon, wait_until
from tests.e2e.workload import KINDS, SETTINGS, Writer, counted, create, insertion

STORAGES = ("directory", "moto", "rclone", "seaweedfs")
PAGE_SIZES = (512, 4096, 65536)
COUNT = 60


@pytest.mark.slow
def test_the_head_equals_the_source(tmp_path: Path, storage: dict[str, str], request: pytest.FixtureRequest) -> None:
    """Three applications write at once, one of each kind. Every page of the restored file is the source's."""
    drain = STORAGES.index(request.node.callspec.params["storage"])
    page_sizes = {kind: PAGE_SIZES[(number + drain) % 3] for number, kind in enumerate(KINDS)}
    files = {kind: tmp_path / f"data/{kind}/{kind}.db" for kind in KINDS}
    with Daemon(tmp_path, list(files.values()), storage=storage) as daemon, ExitStack() as stack:
        for kind, file in files.items():
            create(file, page_size=page_sizes[kind])
        daemon.start()
        writers = [
            stack.enter_context(Writer(kind, file, seed=10 * drain + number, count=COUNT, calm=daemon.control))
            for number, (kind, file) in enumerate(files.items())
        ]
        for writer in writers:
            writer.finish()
        daemon.sync()
        # the connections of the applications are open
        assert_same(daemon.restore(KINDS[drain % 3]), files[KINDS[drain % 3]])
        for writer in writers:
            writer.close()
        daemon.sync()
        for kind, file in files.items():
            restored = daemon.restore(kind)
            assert_same(restored, file)
            assert counter_of(restored) > COUNT / 3
        assert "all of it is sound" in daemon.done("verify", KINDS[drain % 3])
        assert daemon.lines("generation_ended") == []
        assert daemon.stop() == 0


def test_commits_after_a_base_of_a_quiet_database(tmp_path: Path, storage: dict[str, str]) -> None:
    """Only the listing shows that there is more than the base, which is whole by itself."""
    with Daemon(tmp_path, [tmp_path / "data/app.db"], storage=storage) as daemon:
        file = create(daemon.data / "app.db")
        daemon.start().sync()
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            for statement in counted():
                connection.execute(statement)
            daemon.sync()
            assert_same(daemon.restore("app"), file)


@pytest.mark.parametrize("kind", KINDS)
def test_an_application_that_is_killed(tmp_path: Path, kind: str) -> None:
    """The end of its WAL has rolled back and uncommitted frames, which are not replicated."""
    with Daemon(tmp_path, [tmp_path / "data/app.db"]) as daemon:
        file = create(daemon.data / "app.db", page_size=1024)
        daemon.start()
        with Writer(kind, file, seed=7, calm=daemon.control) as writer:
            writer.wait_for(40)
            writer.kill()
        daemon.sync()
        assert_same(daemon.restore("app"), file)


def test_a_spilled_rollback_is_no_gap(tmp_path: Path) -> None:
    """Frames that a rolled back transaction left after the last commit can't be missing commits."""
    with Daemon(tmp_path, [tmp_path / "data/app.db"]) as daemon:
        file = create(daemon.data / "app.db")
        daemon.start()
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            for statement in (*SETTINGS, *counted(), "BEGIN IMMEDIATE", insertion(100, 1000), "ROLLBACK"):
                connection.execute(statement).fetchall()
            daemon.sync()
            for statement in ("PRAGMA wal_checkpoint(RESTART)", *counted()):
                connection.execute(statement).fetchall()
            daemon.sync()
            assert_same(daemon.restore("app"), file)
        assert daemon.lines("generation_ended") == []


def test_a_checkpoint_of_a_new_wal_is_no_gap(tmp_path: Path) -> None:
    """TRUNCATE raises the checkpoint sequence even in a WAL without frames, so the first commit is not in
    sequence 0.
    """
    with Daemon(tmp_path, [tmp_path / "data/app.db"]) as daemon:
        file = create(daemon.data / "app.db")
        daemon.start().sync()
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            for statement in ("PRAGMA wal_checkpoint(TRUNCATE)", *counted()):
                connection.execute(statement).fetchall()
            daemon.sync()
            assert_same(daemon.restore("app"), file)
        assert daemon.lines("generation_ended") == []


def test_commits_that_sqlite_wrote_without_checksums(tmp_path: Path) -> None:
    """SQLite 3.40 does this after ROLLBACK TO in a spilled transaction. A crash loses such commits, and no replica has
    them.

    The daemon reports this with the remedy, and follows the database again as soon as the WAL has restarted.
    """
    with Daemon(tmp_path, [tmp_path / "data/app.db"]) as daemon:
        file = create(daemon.data / "app.db")
        daemon.start().sync()
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            undone = ["SAVEPOINT inner", insertion(14, 3000), "ROLLBACK TO inner", "RELEASE inner"]
            for statement in (*SETTINGS, *counted(), *counted(insertion(2, 50), *undone)):
                connection.execute(statement).fetchall()
            (tmp_path / "crashed.db").write_bytes(file_of(file))
            if counter_of(tmp_path / "crashed.db") == 2:
                pytest.skip(f"SQLite {sqlite3.sqlite_version} does not")
            cause = daemon.wait_for("generation_ended", database="app")["reason"]
            assert "without salts and checksum" in cause
            wait_until(lambda: daemon.status("app")["state"] == "degraded", "status says so")
            assert "3.50.2" in daemon.status("app")["remedy"]
            for statement in (*counted(), *counted()):
                connection.execute(statement).fetchall()
            for statement in ("PRAGMA wal_checkpoint(TRUNCATE)", *counted()):
                connection.execute(statement).fetchall()
            daemon.sync()
            assert_same(daemon.restore("app"), file)
            assert len(daemon.lines("generation_ended")) == 1
