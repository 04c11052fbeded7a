"""Tests that a database that can't be followed does not affect the others, and is followed as soon as it can be."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.comparison import assert_same
from tests.e2e.daemon import Daemon, wait_until
from tests.e2e.workload import create


def test_a_missing_database_is_picked_up_when_it_appears(tmp_path: Path) -> None:
    """Missing is a state with a remedy. Neither its folder nor its file has to exist at the start."""
    late = tmp_path / "data/later/late.db"
    with Daemon(tmp_path, [tmp_path / "data/here.db", late]) as daemon:
        here = create(daemon.data / "here.db", rows=5)
        daemon.start()
        assert "it is picked up when it appears" in daemon.wait_for("database_suspended", database="late")["remedy"]
        assert daemon.status("late")["state"] == "missing"
        assert list(daemon.sync("here")) == ["here"]
        result = daemon.walsyncd("sync", "--timeout", "1s")
        assert (result.code, "late" in result.stderr) == (1, True)
        create(late, rows=3)
        daemon.wait_for("generation_began", database="late")
        daemon.sync()
        for file in (here, late):
            assert_same(daemon.restore(file.stem), file)


def test_a_database_that_vanishes_and_comes_back(tmp_path: Path) -> None:
    """Its old positions stay restorable.

    Another file in its place is bridged, or begins a generation if there is no map.
    """
    with Daemon(tmp_path, [tmp_path / "data/app.db"]) as daemon:
        file = create(daemon.data / "app.db", rows=5)
        daemon.start()
        before = daemon.sync()["app"]
        old = file.rename(tmp_path / "old.db")
        daemon.wait_for("database_suspended", database="app", state="missing")
        create(file, rows=9)
        wait_until(
            lambda: daemon.lines("gap_bridged") or len(daemon.lines("generation_began")) == 2,
            "a bridge, or a second generation",
        )
        daemon.sync()
        assert_same(daemon.restore("app"), file)
        assert_same(daemon.restore("app", "--position", before), old)


def test_files_that_are_no_databases(tmp_path: Path) -> None:
    """For a folder, a text, and a header that SQLite would refuse, check names each.

    A database beside them is followed.
    """
    names = ("folder", "text", "header", "app")
    with Daemon(tmp_path, [tmp_path / f"data/{name}.db" for name in names]) as daemon:
        folder, text, header, app = (daemon.data / f"{name}.db" for name in names)
        folder.mkdir()
        text.write_text("not a database" * 100)
        header.write_bytes(b"SQLite format 3\0" + bytes(4080))
        create(app, rows=5)
        result = daemon.walsyncd("check")
        assert result.code == 1
        assert f"problem database {folder}: open {folder}: not a regular file" in result.stdout
        assert f"problem database {text}: is not a SQLite database: 1400 bytes are not a whole" in result.stdout
        assert f"problem database {header}: has an impossible page size in its header" in result.stdout
        assert f"ok      database {app}: " in result.stdout
        daemon.start()
        assert daemon.wait_for("database_suspended", database="folder")["state"] == "failing"
        daemon.sync("app")
        assert_same(daemon.restore("app"), app)


def test_a_new_match_of_a_pattern_is_picked_up(tmp_path: Path) -> None:
    """The match appears while the daemon runs, in a folder that did not exist before."""
    pattern = tmp_path / "data/*/app.db"
    with Daemon(tmp_path, [pattern]) as daemon:
        first = create(daemon.data / "one/app.db", rows=2)
        daemon.start().sync()
        second = create(daemon.data / "two/app.db", rows=4)
        name = str(second).lstrip("/")
        daemon.wait_for("generation_began", database=name)
        daemon.sync()
        assert_same(daemon.restore(name), second)
        assert_same(daemon.restore(str(first).lstrip("/")), first)


def test_two_daemons_on_one_state_directory(tmp_path: Path) -> None:
    """The second is refused with an error that names the first; the first continues."""
    with Daemon(tmp_path, [tmp_path / "data/app.db"]) as daemon:
        create(daemon.data / "app.db")
        pid = daemon.start().pid
        result = daemon.walsyncd("run")
        assert result.code == 2
        assert f"lock state directory {daemon.state}: process {pid} has it" in result.stderr
        assert "hint: stop the other walsyncd" in result.stderr
        assert daemon.pid == pid
        daemon.sync()
