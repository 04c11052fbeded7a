"""Tests of ``walsyncd run`` as a process: signals and exit codes."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import wal_database
from tests.engine.running import Place, wait_for
from walsyncd.adapters.journal.journal_schema import JOURNAL_NAME
from walsyncd.adapters.system.control_socket import ask, socket_path


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@contextmanager
def process(place: Place) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "walsyncd", "run", *place.config()]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


def is_up(place: Place) -> bool:
    return ask(socket_path(place.state), {"op": "ping"}, timeout_s=10) is not None


def test_sigterm_ships_what_was_committed_last_and_exits_0(place: Place) -> None:
    """Nothing is left in the spool, and each line of the log is one JSON object with journald's prefix."""
    with wal_database(place.database()) as writer, process(place) as running:
        wait_for(lambda: is_up(place))
        place.sync()
        for value in range(1, 20):
            writer.execute(f"insert into t values ({value})")
        running.send_signal(signal.SIGTERM)
        _, log = running.communicate(timeout=60)
        assert running.returncode == 0
        events = [json.loads(line.removeprefix("<6>"))["event"] for line in log.splitlines()]
        assert "daemon_stopping" in events  # work that was under way may end, and log that, after it
        assert events[-1] == "daemon_stopped"
    row = place.row()
    assert row.spooled_bytes == 0
    assert (row.stored_epoch, row.stored_frame) == (1, 22)


def test_with_something_left_in_the_spool_it_exits_75(place: Place) -> None:
    """A host that is being retired must not look clean while storage is away."""
    with wal_database(place.database()) as writer, process(place) as running:
        wait_for(lambda: is_up(place))
        place.sync()
        (place.replica / "app").rename(place.replica / "moved")
        (place.replica / "app").symlink_to("nowhere/at/all")
        writer.execute("insert into t values (1)")
        running.send_signal(signal.SIGTERM)
        wait_for(lambda: running.poll() is not None or place.row().spooled_bytes)
        running.send_signal(signal.SIGTERM)
        _, log = running.communicate(timeout=60)
        assert running.returncode == 75, log


def test_a_second_daemon_is_refused(place: Place) -> None:
    """Two daemons can't share a state directory. The message names the process that has it."""
    with wal_database(place.database()), process(place) as first:
        wait_for(lambda: is_up(place))
        with process(place) as second:
            _, log = second.communicate(timeout=60)
        assert second.returncode == 2
        assert f"process {first.pid} has it" in log


def test_once_ships_everything_and_ends(place: Place) -> None:
    """It needs no signal. It exits with 0 after a base and every commit are stored, and nothing is left running."""
    with wal_database(place.database()) as writer:
        writer.execute("insert into t values (1)")
        done = subprocess.run(
            [sys.executable, "-m", "walsyncd", "run", "--once", *place.config()],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    row = place.row()
    assert row.base_key is not None
    assert row.spooled_bytes == 0
    assert not is_up(place)


def test_once_exits_75_and_names_what_is_left(place: Place) -> None:
    """The daemon could not read the database."""
    place.database().mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "walsyncd", "run", "--once", *place.config()],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 75, done.stderr
    lines = [json.loads(line[3:]) for line in done.stderr.splitlines()]
    assert "app" in {line["database"] for line in lines if line["event"] == "last_look_failed"}


def test_a_configuration_that_is_refused_leaves_nothing_behind(place: Place) -> None:
    """The state directory is inside a folder of databases, so the exit code is 2, and no state directory is created."""
    command = [sys.executable, "-m", "walsyncd", "run", *place.config()]
    file, state = Path(command[-1]), place.database().parent / "state"
    file.write_text(file.read_text().replace(str(place.state), str(state)))
    with wal_database(place.database()):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "daemon.state_dir" in done.stderr
    assert not state.exists()


def test_a_journal_that_is_damaged_while_it_runs_ends_the_process(place: Place) -> None:
    """No database is suspended for it. The log says what is damaged and what to do, and the exit code is 1."""
    place.database()  # the folder of ``walsyncd run``
    with process(place) as running:
        wait_for(lambda: is_up(place) and place.row().state == "missing")
        journal = place.state / JOURNAL_NAME
        with closing(sqlite3.connect(journal, isolation_level=None)) as other:
            # the pages that the daemon has cached are outdated now
            other.execute("INSERT INTO fact VALUES ('damage', 'begins')")
            (page_size,) = other.execute("PRAGMA page_size").fetchone()
            (root,) = other.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'generation'").fetchone()
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            with journal.open("r+b") as file:
                file.seek((root - 1) * page_size)
                file.write(b"\xff" * page_size)
            with wal_database(place.database()):  # the follower begins its first generation
                _, log = running.communicate(timeout=60)
    assert running.returncode == 1
    assert f"move {journal} away" in log
    assert '"failing"' not in log
