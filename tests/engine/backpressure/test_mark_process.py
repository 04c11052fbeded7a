"""Tests of walsyncd.engine.backpressure.mark_process: the lock does not outlive whichever process dies or stops."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.following import insert
from tests.engine.running import wait_for
from walsyncd.adapters.files.inotify import InotifyReader
from walsyncd.adapters.files.source import Role, side_path
from walsyncd.engine.backpressure import mark_process
from walsyncd.engine.backpressure.mark_process import MarkProcess

TAKE_S_MAX = 2.0  # seconds: a child on a busy machine may need a good part of it

# This acts as the daemon for the child: it names a database whose WAL it never copies, and answers.
_PARENT = """
import sys, threading
from pathlib import Path
from walsyncd.core.follow.decision import Cursor
from walsyncd.engine.backpressure.backpressure import Backpressure
from walsyncd.engine.backpressure.mark_hold import HoldTarget
backpressure = Backpressure()
thread = threading.Thread(target=backpressure.run)
thread.start()
backpressure.copied(1, Cursor((0, 0), None, 0, (0, 0)))
backpressure.want(1, HoldTarget(Path(sys.argv[1]), False, 1 << 28))
while backpressure.child_pid is None:
    pass
print(backpressure.child_pid, flush=True)
sys.stdin.read()
backpressure.stop()
thread.join()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


@pytest.fixture
def app(path: Path) -> Iterator[SqliteProcess]:
    with wal_database(path) as process:
        yield process


@contextmanager
def parent(path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process whose child holds a lock, and the pid of that child."""
    command = [sys.executable, "-c", _PARENT, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()


def is_locked(path: Path) -> bool:
    """Return whether anybody has an OFD lock on a read mark."""
    inode = side_path(path, Role.SHM).stat().st_ino
    lines = [line.split() for line in Path("/proc/locks").read_text(encoding="ascii").splitlines()]
    return any(line[1] == "OFDLCK" and line[5].endswith(f":{inode}") and 123 <= int(line[6]) <= 127 for line in lines)


def take(path: Path, app: SqliteProcess) -> None:
    """Restart the WAL and write until the child holds a lock. Its longest hold may just have ended."""

    def written() -> bool:
        app.execute("PRAGMA busy_timeout=5000", "PRAGMA wal_checkpoint(RESTART)", insert(1))
        deadline_s = time.monotonic() + TAKE_S_MAX
        while time.monotonic() < deadline_s:
            if is_locked(path):
                return True
            time.sleep(0.001)
        return False

    wait_for(written)


def is_gone(pid: int) -> bool:
    """Return whether there is no such process, or only its exit code.

    A process's files are closed when its last thread has ended.
    """
    process = Path(f"/proc/{pid}")
    try:
        state = (process / "stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
        return state == "Z" and len(list((process / "task").iterdir())) <= 1
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("is_permitted", [False, True])
def test_it_asks_to_run_before_ordinary_processes(monkeypatch: pytest.MonkeyPatch, *, is_permitted: bool) -> None:
    """Otherwise the kernel may let the child wait for tens of milliseconds on a busy machine.

    The child works without permission for this, too.
    """
    asked: list[tuple[int, int, int]] = []

    def set_scheduler(pid: int, policy: int, parameters: os.sched_param) -> None:
        asked.append((pid, policy, parameters.sched_priority))
        if not is_permitted:
            raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", set_scheduler)
    assert mark_process.ask_for_real_time() == is_permitted
    assert asked == [(0, os.SCHED_RR, 1)]


def test_killed_with_the_lock(path: Path, app: SqliteProcess) -> None:
    """The kernel releases the lock, and the WAL restarts."""
    with parent(path) as (_, child):
        take(path, app)
        os.kill(child, signal.SIGKILL)
        wait_for(lambda: not is_locked(path))
        assert app.execute("PRAGMA busy_timeout=10000", "PRAGMA wal_checkpoint(TRUNCATE)")[0][0] == 0


def test_the_daemon_is_killed(path: Path, app: SqliteProcess) -> None:
    """The child sees its socket close, and ends."""
    with parent(path) as (process, child):
        take(path, app)
        process.kill()
        wait_for(lambda: is_gone(child))
        assert not is_locked(path)


def test_the_daemon_stops_in_good_order(path: Path, app: SqliteProcess) -> None:
    """The daemon's child ends with it."""
    with parent(path) as (process, child):
        take(path, app)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0
        assert is_gone(child)
        assert not is_locked(path)


def test_the_daemon_is_stopped_by_a_signal(path: Path, app: SqliteProcess) -> None:
    """Nobody answers the child, so it ends when it would lock the next time. Later the daemon starts another child."""
    with parent(path) as (process, _):
        take(path, app)
        process.send_signal(signal.SIGSTOP)

        app.execute("PRAGMA busy_timeout=5000")

        def is_left_alone() -> bool:
            """Assert that nothing takes a lock, however often the WAL restarts.

            The child may be late, and lock once more.
            """
            for number in range(20):
                app.execute("PRAGMA wal_checkpoint(RESTART)", insert(number))
                time.sleep(0.01)
                if is_locked(path):
                    return False
            return True

        wait_for(is_left_alone)
        assert is_left_alone()
        assert app.execute("PRAGMA wal_checkpoint(RESTART)")[0][0] == 0
        process.send_signal(signal.SIGCONT)
        take(path, app)


@pytest.mark.slow
def test_a_child_that_is_silent_with_a_lock_is_ended(path: Path, app: SqliteProcess) -> None:
    """Nothing else would release the lock, and the WAL would grow without end. Another child is started."""
    with parent(path) as (_, child):
        while True:
            take(path, app)
            time.sleep(0.005)  # the child tells its parent just after it has the lock
            os.kill(child, signal.SIGSTOP)
            time.sleep(0.2)  # this ends a call that was under way
            if is_locked(path):
                break
            os.kill(child, signal.SIGCONT)
        wait_for(lambda: is_gone(child))
        assert not is_locked(path)
        take(path, app)


def test_signals_do_not_end_it(path: Path, app: SqliteProcess) -> None:
    """A terminal or a service manager sends signals to all processes.

    The daemon ends its child by closing the socket.
    """
    with parent(path) as (_, child):
        take(path, app)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(child, number)
        take(path, app)
        assert not is_gone(child)


def test_idle_costs_nothing(path: Path, app: SqliteProcess) -> None:
    """The child sleeps, without a context switch unless there is an event."""
    with parent(path) as (_, child):
        take(path, app)
        wait_for(lambda: not is_locked(path))

        def switches() -> int:
            lines = Path(f"/proc/{child}/status").read_text(encoding="ascii").splitlines()
            return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)

        def is_still() -> bool:
            before = switches()
            time.sleep(1)
            return switches() == before

        wait_for(is_still)


def test_each_lock_is_told_at_once() -> None:
    """A lock is reported however soon it follows the one before, as the daemon ends a silent child only if it may
    have a lock.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    with ours, theirs, InotifyReader() as watcher:
        process = MarkProcess(theirs, watcher)
        for now_ms in (1000, 1001):
            process._ask(now_ms)
            assert json.loads(ours.recv(1000)) == {"alive": True}
            process._take({"alive": True})
            process._ask(now_ms)
            with pytest.raises(BlockingIOError):
                ours.recv(1000)
            process._is_known_to_hold = False  # this is the state after ``free``
