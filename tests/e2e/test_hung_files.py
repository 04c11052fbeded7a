"""Tests that a file system that does not answer affects only its own databases.

The mounts are real ones that hang (FUSE).
"""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.daemon import PROGRAM, Daemon, base_environment, wait_until
from tests.fuse_mount import Served, fuse_mount

IMPATIENT = [sys.executable, "-m", "tests.e2e.impatient"]

pytestmark = [pytest.mark.root, pytest.mark.slow]


def write(path: Path, value: int) -> None:
    """Write by a short connection of another process, because this one must not hold a file that hangs."""
    script = (
        f"import sqlite3; c = sqlite3.connect({str(path)!r}); c.execute('PRAGMA journal_mode=WAL');"
        f"c.execute('CREATE TABLE IF NOT EXISTS t (x)'); c.execute('INSERT INTO t VALUES ({value})'); c.commit()"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def rows(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        return [x for (x,) in connection.execute("SELECT x FROM t ORDER BY x")]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with fuse_mount(tmp_path) as served:
        write(served.files / "far.db", 1)
        yield served


def daemon_of(tmp_path: Path, served: Served, *more: str, **options: Any) -> Daemon:
    near = tmp_path / "data" / "near.db"
    near.parent.mkdir(exist_ok=True)
    write(near, 1)
    return Daemon(tmp_path, [near, served.files / "far.db", *more], prefix=IMPATIENT, **options)


def near_goes_on(daemon: Daemon, value: int) -> None:
    write(daemon.data / "near.db", value)
    daemon.sync("near")
    assert value in rows(daemon.restore("near"))


def is_silent(daemon: Daemon, name: str = "far") -> bool:
    return "does not answer" in daemon.status(name)["cause"]


def test_the_others_go_on_and_it_is_followed_again(tmp_path: Path, served: Served) -> None:
    """Status reports it, a reload ends in time, and afterwards the generation continues with everything in it."""
    with daemon_of(tmp_path, served).start() as daemon:
        daemon.sync()
        served.swallow()
        asked = subprocess.Popen(
            [*PROGRAM.arguments, "sync", "far", "--timeout", "5s", "--config", str(daemon.config)],
            env={**base_environment(), "PYTHONPATH": PROGRAM.path},
            stderr=subprocess.PIPE,
        )
        near_goes_on(daemon, 2)
        assert b"does not answer" in asked.communicate(timeout=60)[1]
        assert asked.returncode == 1
        wait_until(lambda: is_silent(daemon), "status says that it does not answer")
        daemon.done("reload")
        near_goes_on(daemon, 3)
        served.answer()
        wait_until(lambda: not daemon.status("far")["cause"], "it is followed again")
        write(served.files / "far.db", 2)
        daemon.sync("far")
        assert rows(daemon.restore("far")) == [1, 2]
        assert len(daemon.lines("generation_began")) == 2
        near_goes_on(daemon, 4)
        assert daemon.stop() == 0


def test_a_stop_is_bounded(tmp_path: Path, served: Served) -> None:
    """The others are stored completely, and the exit code says that something was not seen."""
    with daemon_of(tmp_path, served).start() as daemon:
        daemon.sync()
        write(daemon.data / "near.db", 2)
        served.hang()
        assert daemon.stop() == 75
        assert rows(daemon.restore("near")) == [1, 2]
        assert daemon.lines("last_look_failed")[0]["database"] == "far"


def test_a_start_is_bounded(tmp_path: Path, served: Served) -> None:
    """The others are followed from the start on, also those of a pattern.

    The one that hangs is followed when it answers.
    """
    pattern = str(tmp_path / "mount*" / "*.db")
    daemon = daemon_of(tmp_path, served, pattern)
    with daemon:
        served.hang()
        daemon.start()
        near_goes_on(daemon, 2)
        wait_until(lambda: is_silent(daemon), "status says that it does not answer")
        served.answer()
        daemon.wait_for("generation_began", database="far")
        daemon.sync("far")
        assert rows(daemon.restore("far")) == [1]
        assert daemon.stop() == 0


BUSY = """
import sqlite3, sys, time
count = 0
while True:
    connection = sqlite3.connect(sys.argv[1], timeout=60)
    connection.execute("PRAGMA wal_autocheckpoint=50")
    for _ in range(60):
        count += 1
        connection.execute("INSERT INTO t VALUES (?)", (1000 + count,))
        connection.commit()
        time.sleep(0.01)
    connection.close()
"""


def _is_newer(path: Path, before: int) -> bool:
    return path.stat().st_mtime_ns > before


def asking(daemon: Daemon, command: str) -> subprocess.Popen[bytes]:
    """Run a command about ``far`` that waits for its file system."""
    return subprocess.Popen(
        [*PROGRAM.arguments, command, "far", "--config", str(daemon.config)],
        env={**base_environment(), "PYTHONPATH": PROGRAM.path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("presence", [False, True])
def test_it_hangs_in_the_middle_of_anything(tmp_path: Path, served: Served, presence: bool) -> None:
    """Writers, a base and a scrub are under way. Whatever hangs, the restore is the database in the end."""
    near = tmp_path / "near" / "near.db"
    near.parent.mkdir()
    write(near, 1)
    far: dict[str, str | bool] = {"path": str(served.files / "far.db"), "name": "far", "presence": presence}
    databases: list[Path | dict[str, str | bool]] = [near, far]
    with Daemon(tmp_path, databases, prefix=IMPATIENT).start() as daemon:
        daemon.sync()
        for round_number in range(2):
            writer = subprocess.Popen([sys.executable, "-c", BUSY, str(served.files / "far.db")])
            asked = [asking(daemon, command) for command in ("snapshot", "scrub")]
            before = (served.files / "far.db").stat().st_mtime_ns
            wait_until(partial(_is_newer, served.files / "far.db", before), "it is written")
            served.hang()
            asked.append(asking(daemon, "sync"))  # all that was written may have been read just before
            write(near, 10 + round_number)
            daemon.sync("near")
            assert 10 + round_number in rows(daemon.restore("near"))
            wait_until(lambda: is_silent(daemon), "status says that it does not answer")
            served.answer()
            wait_until(lambda: not is_silent(daemon), "it is followed again")
            for process in (writer, *asked):
                process.send_signal(signal.SIGKILL)
                process.wait()
        write(served.files / "far.db", 2)
        daemon.sync("far")
        assert rows(daemon.restore("far")) == rows(served.files / "far.db")
        assert daemon.stop() == 0


def told(daemon: Daemon, *commands: tuple[str, ...]) -> list[tuple[int, str]]:
    """Return the exit codes of commands that may wait a second for a file system, and all that they printed."""
    processes = [
        subprocess.Popen(
            [*IMPATIENT, *PROGRAM.arguments, *words, "--config", str(daemon.config)],
            env={**base_environment(), "PYTHONPATH": PROGRAM.path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for words in commands
    ]
    texts = [process.communicate(timeout=120)[0] for process in processes]
    return [(process.returncode, text) for process, text in zip(processes, texts, strict=True)]


def test_commands_end_while_the_state_directory_hangs(tmp_path: Path) -> None:
    """A daemon waits there, too. Each command says what does not answer. The others need no state directory."""
    near = tmp_path / "near" / "near.db"
    near.parent.mkdir()
    write(near, 1)
    with fuse_mount(tmp_path) as served:
        state_dir = served.files / "state"
        with Daemon(tmp_path, [{"path": str(near), "name": "near"}], settings={"state_dir": str(state_dir)}) as daemon:
            daemon.control = state_dir / "control.sock"
            daemon.start()
            daemon.sync()
            served.hang()
            words = [
                ("status",),
                ("check",),
                ("sync",),
                ("reload",),
                ("prune", "--dry-run"),
                ("forget", "gone", "--yes"),
            ]
            for code, text in told(daemon, *words):
                assert code == 1, text
                assert f"{state_dir}" in text
                assert "file system does not answer" in text
            assert [code for code, _ in told(daemon, ("ls",), ("verify", "near"))] == [0, 0]
            served.answer()
            assert told(daemon, ("status",))[0][0] == 0


def test_commands_end_while_the_storage_hangs(tmp_path: Path) -> None:
    """The storage is a folder on a file system that does not answer."""
    near = tmp_path / "near" / "near.db"
    near.parent.mkdir()
    write(near, 1)
    with fuse_mount(tmp_path) as served:
        storage = {"url": (served.files / "replica").as_uri()}
        daemon = Daemon(tmp_path, [{"path": str(near), "name": "near"}], storage=storage)
        ((code, text),) = told(daemon, ("run", "--once"))
        assert code == 0, text
        served.hang()
        out = str(tmp_path / "out.db")
        for code, text in told(daemon, ("ls",), ("verify", "near"), ("check",), ("restore", "near", "-o", out)):
            assert code == 1, text
            assert "file system does not answer" in text
        served.answer()
        assert told(daemon, ("ls",))[0][0] == 0
