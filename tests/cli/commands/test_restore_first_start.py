"""Tests of ``walsyncd restore --if-missing --if-replica``, as a service runs it before each of its starts."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.replicas import ReplicaMaker, counter_in, make_replica
from walsyncd.cli import main
from walsyncd.engine.restore.replica import Replica
from walsyncd.errors import TransientError

FLAGS = ("--if-missing", "--if-replica")


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[ReplicaMaker]:
    with make_replica(tmp_path) as made:
        yield made


def restore(folder: Path, *arguments: str, name: str = "srv/app.db", out: str = "new/below/out.db") -> int:
    config = folder / "config.toml"
    config.write_text(
        f'[storage]\nurl = "file://{folder}/replica"\n[daemon]\nstate_dir = "{folder}/state"\n'
        '[[database]]\npath = "/srv/app.db"\n'
    )
    return main(["restore", "--config", str(config), name, "-o", str(folder / out), *arguments])


def store(maker: ReplicaMaker) -> None:
    maker.base()
    maker.commit(5)
    maker.ship()


def test_first_deploy_succeeds_without_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """There is no replica yet, and perhaps no folder for one. The database's folder is made for the application."""
    assert restore(tmp_path, *FLAGS) == 0
    assert "there is no replica yet" in capsys.readouterr().out
    assert list((tmp_path / "new" / "below").iterdir()) == []
    assert restore(tmp_path, *FLAGS, "--json") == 0
    assert json.loads(capsys.readouterr().out)["restored"] is False
    assert restore(tmp_path, "--if-missing") == 3


def test_wrong_name_is_still_an_error(tmp_path: Path) -> None:
    """Otherwise a typing error would start an application with an empty database."""
    assert restore(tmp_path, *FLAGS, name="srv/ap.db") == 2


def test_replica_without_a_whole_base_is_still_an_error(maker: ReplicaMaker, tmp_path: Path) -> None:
    """Commits are stored that need a base, and an empty database would hide them."""
    maker.commit(1)
    maker.ship()
    assert restore(tmp_path, *FLAGS) == 3


def test_storage_that_is_away_is_still_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not known whether there is a replica."""

    def away(_replica: Replica) -> list[str]:
        raise TransientError("list: no answer")

    monkeypatch.setattr(Replica, "generations", away)
    assert restore(tmp_path, *FLAGS) == 1


def test_replica_is_restored_into_a_new_folder(maker: ReplicaMaker, tmp_path: Path) -> None:
    """On a new machine there is no folder yet. --dry-run makes none, and without these options it is an error."""
    store(maker)
    assert restore(tmp_path) == 2
    assert restore(tmp_path, *FLAGS, "--dry-run") == 0
    assert not (tmp_path / "new").exists()
    assert restore(tmp_path, *FLAGS) == 0
    assert counter_in(tmp_path / "new/below/out.db") == 5


def test_file_of_no_bytes_is_missing(maker: ReplicaMaker, tmp_path: Path) -> None:
    """SQLite makes such a file before the first commit.

    With anything in its -wal it is a database, and is left alone.
    """
    store(maker)
    out, wal = tmp_path / "out.db", tmp_path / "out.db-wal"
    for content in (None, b""):
        out.write_bytes(b"")
        if content is not None:
            wal.write_bytes(content)
        assert restore(tmp_path, *FLAGS, out="out.db") == 0
        assert counter_in(out) == 5
    out.write_bytes(b"")
    wal.write_bytes(b"frames")
    assert restore(tmp_path, *FLAGS, out="out.db") == 0
    assert (out.read_bytes(), wal.read_bytes()) == (b"", b"frames")


def test_empty_file_that_an_application_uses_is_refused(maker: ReplicaMaker, tmp_path: Path) -> None:
    """The application would continue writing to the replaced file."""
    store(maker)
    script = (
        "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('BEGIN IMMEDIATE')\nprint('ready', flush=True)\nsys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "out.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert restore(tmp_path, *FLAGS, out="out.db") == 1
        assert (tmp_path / "out.db").stat().st_size == 0
        process.communicate("")


def test_link_in_the_place_of_the_file_is_refused(maker: ReplicaMaker, tmp_path: Path) -> None:
    """A link that leads nowhere does not count as a missing file."""
    store(maker)
    (tmp_path / "out.db").symlink_to(tmp_path / "victim")
    assert restore(tmp_path, *FLAGS, out="out.db") == 1
    assert not (tmp_path / "victim").exists()


def test_options_that_contradict_each_other(tmp_path: Path) -> None:
    """Each is a usage error that gives the reason."""
    for arguments in (("--follow", "--if-missing"), ("--follow", "--if-replica"), ("--follow", "--dry-run")):
        assert restore(tmp_path, *arguments) == 2
    for arguments in (("--all", "--if-replica"), ("--all", "--confine")):
        assert restore(tmp_path, *arguments) == 2


def test_confined_restore_gives_the_same_file(maker: ReplicaMaker, tmp_path: Path) -> None:
    """It runs in its own process, since confinement can't be undone. The folder is made before."""
    store(maker)
    out = tmp_path / "new" / "out.db"
    command = [sys.executable, "-m", "walsyncd", "restore", f"file://{tmp_path}/replica/srv/app.db"]
    environment = os.environ | {"WALSYNCD_CONFIG": "/dev/null"}
    done = subprocess.run(
        [*command, "-o", str(out), *FLAGS, "--confine"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert counter_in(out) == 5
    assert stat.S_IMODE(out.stat().st_mode) in {0o600, 0o640}
    with closing(sqlite3.connect(out)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
