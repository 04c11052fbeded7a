"""Tests of following if events are many, lost, or not available."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import wal_database
from tests.e2e.comparison import assert_same
from tests.e2e.daemon import Daemon
from tests.e2e.workload import Writer, create
from tests.engine.following import insert
from tests.engine.keeping import Keeping

NOISE = """
import os, sys
for number in range(int(sys.argv[2])):
    name = os.path.join(sys.argv[1], "noise-%d" % (number % 7))
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
    os.unlink(name)
"""


def noise(folder: Path, count: int) -> subprocess.Popen[bytes]:
    """Run another program that makes three events at a time in the database's folder."""
    return subprocess.Popen([sys.executable, "-c", NOISE, str(folder), str(count)])


@pytest.mark.parametrize("read", [True, False])
def test_hundreds_of_thousands_of_events(tmp_path: Path, *, read: bool) -> None:
    """The events are read as they come, or lost to an overflow of the queue. Nothing is missed, and there is no gap."""
    folder = tmp_path / "data"
    folder.mkdir()
    path = folder / "app.db"
    with wal_database(path) as app, Keeping(path, tmp_path / "f") as keeping:
        keeping.note()
        assert not keeping.watch_over(app, insert(0))
        value = 1
        with noise(folder, 60_000) as neighbour:
            while neighbour.poll() is None:
                if read:
                    assert not keeping.watch_over(app, insert(value))
                    value += 1
                else:
                    neighbour.wait()
        for value in (-1, -2, -3):
            app.execute(insert(value))
            keeping.note()
        assert not keeping.keep_up()
        assert not keeping.watch_over(app, "PRAGMA wal_checkpoint", insert(-4))


def test_beyond_the_limit_of_watches(tmp_path: Path) -> None:
    """The kernel grants no watches. The daemon reports this with the remedy, and looks by the clock instead."""
    lower = 'echo 2 > /proc/sys/user/max_inotify_watches && exec "$@"'
    prefix = ["unshare", "--user", "--map-root-user", "sh", "-c", lower, "sh"]
    try:
        allowed = subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        pytest.skip("no user namespace with a limit of its own can be had here")
    with Daemon(tmp_path, [tmp_path / "data/app.db"], prefix=prefix) as daemon:
        file = create(daemon.data / "app.db", rows=5)
        daemon.start()
        said = daemon.wait_for("databases_unwatched", count=1)
        assert "fs.inotify.max_user_watches" in said["cause"]
        with Writer("module", file, seed=1, only_counted=True, count=3) as writer:
            writer.finish()
            daemon.wait_for("object_stored", database="app")
            daemon.sync()
            assert_same(daemon.restore("app"), file)
        assert "Traceback" not in daemon.text()
