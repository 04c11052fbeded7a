"""Tests of a daemon that was away for long, or whose state directory was lost or is an old one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.e2e.comparison import ask, assert_same
from tests.e2e.daemon import Daemon
from tests.e2e.workload import Writer, counted, create


def put_back(state: Path, saved: Path) -> None:
    shutil.rmtree(state)
    shutil.copytree(saved, state)


def delete(state: Path, _saved: Path) -> None:
    shutil.rmtree(state)


@pytest.mark.parametrize("lose", [put_back, delete], ids=["of long ago", "deleted"])
def test_the_journal(tmp_path: Path, lose: Callable[[Path, Path], None]) -> None:
    """Though the WAL would let it continue, a new generation begins. The old one keeps every position."""
    with Daemon(tmp_path, [tmp_path / "data/app.db"]) as daemon:
        file = create(daemon.data / "app.db", rows=20)
        with SqliteProcess(file) as app:
            app.execute(*counted())
            daemon.start().sync()
            assert daemon.stop() == 0
            saved = tmp_path / "saved"
            shutil.copytree(daemon.state, saved, ignore=shutil.ignore_patterns("*.sock"))
            app.execute(*counted(), *counted())
            old = daemon.start().sync()["app"]
            assert daemon.lines("generation_ended") == []
            daemon.kill()  # after an orderly stop the replica would be released to the next daemon
            lose(daemon.state, saved)
            app.execute(*counted())
            new = daemon.start().sync()["app"]
            assert new.split("/")[0] > old.split("/")[0]
            assert_same(daemon.restore("app"), file)
            assert ask(daemon.restore("app", "--position", old), "SELECT n FROM counter") == 3


def test_a_journal_that_is_corrupt(tmp_path: Path) -> None:
    """The daemon does not guess. It names the file and what to do, and then a new generation begins."""
    with Daemon(tmp_path, [tmp_path / "data/app.db"]) as daemon:
        file = create(daemon.data / "app.db", rows=20)
        old = daemon.start().sync()["app"]
        daemon.kill()  # after an orderly stop the replica would be released to the next daemon
        journal = daemon.state / "journal.db"
        for side in ("-wal", "-shm"):  # SQLite would find all of it in the WAL
            (daemon.state / f"journal.db{side}").unlink(missing_ok=True)
        journal.write_bytes(b"\xff" * 8192)
        result = daemon.walsyncd("run")
        assert result.code == 1
        assert str(journal) in result.stderr
        assert "hint" in result.stderr or "move" in result.stderr
        journal.rename(tmp_path / "broken.db")
        new = daemon.start().sync()["app"]
        assert new.split("/")[0] > old.split("/")[0]
        assert_same(daemon.restore("app"), file)
        assert_same(daemon.restore("app", "--position", old), file)


def test_many_restarts_of_the_wal_while_it_was_away(tmp_path: Path) -> None:
    """The gap is reported. Most of the database is new, so a new base costs less than a bridge. No position is lost."""
    with Daemon(tmp_path, [tmp_path / "data/app.db"]) as daemon:
        file = create(daemon.data / "app.db", rows=20)
        old = daemon.start().sync()["app"]
        daemon.wait_for("page_map_made", database="app")
        daemon.wait_for("base_copied", database="app")
        assert daemon.stop() == 0
        with Writer("module", file, seed=3, count=40) as writer:
            writer.finish()
            daemon.start().sync()
            assert len(daemon.lines("gap_found")) == len(daemon.lines("generation_ended")) == 1
            assert_same(daemon.restore("app"), file)
            assert ask(daemon.restore("app", "--position", old), "SELECT n FROM counter") == 0
