"""Tests of a command with a daemon beside it, as real processes."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.engine.running import Place, restored_values, wait_for
from walsyncd.adapters.system.control_socket import ask, socket_path
from walsyncd.cli.supervised_command import _has_content
from walsyncd.errors import TransientError

END_S_MAX = 100.0

# An application that commits until it gets SIGTERM, commits once more, and ends with code 3.
WRITER = """
import signal, sqlite3, sys, time
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("pragma journal_mode=wal")
db.execute("create table if not exists t (x integer)")
print("begun", flush=True)
while not stopped:
    db.execute("insert into t values (1)")
    time.sleep(0.02)
db.execute("insert into t values (777)")
sys.exit(3)
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def command(place: Place, *words: str) -> list[str]:
    return [sys.executable, "-m", "walsyncd", "exec", *place.config(), "--", *words]


def writer(place: Place) -> tuple[str, ...]:
    return sys.executable, "-c", WRITER, str(place.database())


@contextmanager
def started(place: Place, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Return the command, with stderr in a file."""
    with (
        (place.folder / "err").open("w") as err,
        subprocess.Popen(command(place, *words), stdout=subprocess.PIPE, stderr=err, text=True) as process,
    ):
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(END_S_MAX)
                finally:
                    process.kill()


def said(place: Place) -> str:
    return (place.folder / "err").read_text()


def daemon_pid(place: Place) -> int | None:
    try:
        answer = ask(socket_path(place.state, {}), {"op": "ping"}, timeout_s=10)
    except TransientError:  # the command was killed in the middle
        return None
    return None if answer is None else int(answer["pid"])


def test_it_ends_with_the_command_after_everything_is_shipped(place: Place) -> None:
    """The command gets SIGTERM. Its last commit is in the replica when ``walsyncd exec`` ends with its exit code."""
    with started(place, *writer(place)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        wait_for(lambda: place.row().base_key)
        process.send_signal(signal.SIGTERM)
        assert process.wait(END_S_MAX) == 3, said(place)
    assert 777 in restored_values(place)
    assert daemon_pid(place) is None


def test_what_is_missing_is_restored_before_the_command_starts(place: Place) -> None:
    """The second container begins with what the first one committed, and continues the same history."""
    with started(place, *writer(place)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(END_S_MAX) == 3
    shutil.rmtree(place.database().parent)
    reader = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('select max(x) from t').fetchone()[0])"
    done = subprocess.run(
        command(place, sys.executable, "-c", reader, str(place.folder / "data/app/app.db")),
        capture_output=True,
        text=True,
        timeout=END_S_MAX,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "777"), done.stderr


def test_a_restore_that_fails_keeps_the_command_from_starting(place: Place) -> None:
    """Otherwise it would begin with an empty database."""
    with started(place, *writer(place)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(END_S_MAX) == 3
    shutil.rmtree(place.database().parent)
    for base in place.replica.rglob("*.db.zst"):
        base.write_bytes(b"damaged")
    with started(place, "touch", str(place.folder / "started")) as process:
        assert process.wait(END_S_MAX) == 1
    assert not (place.folder / "started").exists()
    assert "could not be restored, so touch was not started" in said(place)


def test_the_command_goes_on_when_the_daemon_fails(place: Place) -> None:
    """The failure is reported, the daemon starts again, and what was committed meanwhile is shipped."""
    with started(place, *writer(place)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        wait_for(lambda: place.row().base_key)
        first = daemon_pid(place)
        assert first is not None
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: daemon_pid(place) not in {None, first})
        assert process.poll() is None
        assert "the daemon ended with exit code 137" in said(place)
        process.send_signal(signal.SIGTERM)
        assert process.wait(END_S_MAX) == 3
    assert 777 in restored_values(place)


def test_a_daemon_that_can_not_start_keeps_no_command_from_running(place: Place) -> None:
    """Another daemon has the state directory. This is reported, at the end too, and the exit code is the command's."""
    words = place.config()
    with closing(sqlite3.connect(place.database())) as connection:
        connection.execute("create table t (x)")
    with subprocess.Popen([sys.executable, "-m", "walsyncd", "run", *words], stderr=subprocess.DEVNULL) as other:
        wait_for(lambda: daemon_pid(place))
        with started(place, "sh", "-c", "sleep 1; exit 5") as process:
            assert process.wait(END_S_MAX) == 5
        other.terminate()
    assert "the daemon ended with exit code 2: sh goes on" in said(place)
    assert "not everything was shipped" in said(place)


@pytest.mark.parametrize(
    ("words", "code"), [(["/no/such/program"], 127), (["/etc"], 126), (["sh", "-c", "kill -9 $$"], 137)]
)
def test_exit_codes_are_a_shells(place: Place, words: list[str], code: int) -> None:
    """The cases are: not found, not executable, ended by a signal."""
    with started(place, *words) as process:
        assert process.wait(END_S_MAX) == code, said(place)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="makes a pid namespace")
def test_as_pid_1_it_takes_signals_and_reaps_orphans(place: Place) -> None:
    """In a container the kernel gives PID 1 only the signals that it handles, and makes it the parent of
    every orphan.
    """
    pids = " ".join(str(place.folder / f"orphan-{number}") for number in (1, 2))
    orphan = (
        f"for pid in {pids}; do (sh -c 'echo $$ > \"$0\"' $pid &); done;"
        f"for pid in {pids}; do until [ -s $pid ] && [ ! -e /proc/$(cat $pid) ]; do sleep 0.05; done; done; echo reaped"
    )
    inner = [*command(place, "sh", "-c", orphan)]
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", *inner],
        capture_output=True,
        text=True,
        timeout=END_S_MAX,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "reaped\n"), done.stderr
    with (
        (place.folder / "err").open("w") as err,
        subprocess.Popen(
            ["unshare", "--pid", "--fork", "--mount-proc", *command(place, *writer(place))],
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGTERM)
        assert process.wait(END_S_MAX) == 3, said(place)
    assert 777 in restored_values(place)


def test_a_file_of_0_bytes_may_be_missing(tmp_path: Path) -> None:
    """``restore --if-missing`` decides whether it is missing."""
    (tmp_path / "empty").touch()
    (tmp_path / "full").write_bytes(b"x")
    assert [_has_content(tmp_path / name) for name in ("absent", "empty", "full")] == [False, False, True]


def test_the_daemon_is_ready_before_the_command_starts(place: Place) -> None:
    """It has looked at all databases, so that none of the command's first writes is missed."""
    with closing(sqlite3.connect(place.database())) as connection:
        connection.execute("pragma journal_mode=wal")
        connection.execute("create table t (x)")
        with started(place, sys.executable, "-c", "print('up', flush=True); input()") as process:
            assert process.stdout is not None
            process.stdout.readline()
            assert place.row().name == "app"
            wait_for(lambda: place.row().generation)
