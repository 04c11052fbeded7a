"""Tests of the real daemon with ``presence = true`` beside applications that open and close the database for every
commit.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.e2e.comparison import assert_same
from tests.e2e.daemon import Daemon
from tests.e2e.workload import create

APPLICATION_S_MAX = 110

CYCLES = """
import contextlib, sqlite3, sys, time
for number in range(int(sys.argv[2])):
    with contextlib.closing(sqlite3.connect(sys.argv[1], timeout=60)) as connection, connection:
        connection.execute("INSERT INTO note (said) VALUES (hex(randomblob(8000)))")
    if not number:
        print("begun", flush=True)
    time.sleep(float(sys.argv[3]))
"""

FOR_HIMSELF = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
connection.execute("PRAGMA locking_mode=EXCLUSIVE")
connection.execute("INSERT INTO note (said) VALUES ('alone')")
connection.close()
"""


@contextmanager
def application(script: str, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """Run an application, which must end without an error."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.wait(APPLICATION_S_MAX) == 0


def present(tmp_path: Path) -> Daemon:
    return Daemon(tmp_path, [tmp_path / "data/app.db"], defaults={"presence": True})


def test_cycles_have_no_gap(tmp_path: Path) -> None:
    """The WAL outlives every close and restarts now and then.

    One generation holds everything, and equals the database.
    """
    with present(tmp_path) as daemon:
        file = create(daemon.data / "app.db")
        with SqliteProcess(file) as first:
            first.execute("SELECT * FROM note")
            daemon.start().sync()
            daemon.wait_for("presence_taken")
            with application(CYCLES, file, "400", "0.01") as cycles:
                assert cycles.stdout is not None
                assert cycles.stdout.readline() == "begun\n"
                first.close()
        daemon.sync()
        assert daemon.lines("generation_ended") == []
        assert_same(daemon.restore("app"), file)
        assert daemon.stop() == 0
        assert [line["reason"] for line in daemon.lines("presence_given_up")] == ["it is turned off"]


def test_killed_while_it_is_held(tmp_path: Path) -> None:
    """The application notices nothing. What it commits while the daemon is away is in the next replica, too."""
    with present(tmp_path) as daemon:
        file = create(daemon.data / "app.db")
        daemon.start().sync()
        with application(CYCLES, file, "300", "0"):
            daemon.wait_for("presence_taken")
            daemon.kill()
        daemon.start().sync()
        assert_same(daemon.restore("app"), file)


def test_who_wants_the_database_for_himself_is_let_in(tmp_path: Path) -> None:
    """An application in exclusive mode waits until nobody else has been seen for ten seconds."""
    with present(tmp_path) as daemon:
        file = create(daemon.data / "app.db")
        daemon.start().sync()
        with application(CYCLES, file, "20", "0.05"):
            daemon.wait_for("presence_taken")
        with application(FOR_HIMSELF, file):
            pass
        daemon.wait_for("presence_given_up", reason="no other process has been seen for 10 s")
        daemon.sync()
        assert_same(daemon.restore("app"), file)
