"""Tests of walsyncd.engine.backpressure.backpressure: one child if a database wants it, none otherwise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.adapters.files.sqlite_process import wal_database
from tests.engine.running import Place, restored_values, running, serving, wait_for
from tests.fuse_mount import fuse_mount
from walsyncd.config import Settings
from walsyncd.core.follow.decision import Cursor
from walsyncd.core.sqlite.walindex import parse_index_header
from walsyncd.engine.backpressure import backpressure as backpressure_module
from walsyncd.engine.backpressure.backpressure import Backpressure
from walsyncd.engine.backpressure.mark_hold import HoldTarget
from walsyncd.engine.daemon.daemon import Daemon
from walsyncd.engine.follow import follower as follower_module
from walsyncd.engine.follow.look import take_step
from walsyncd.engine.threads.supervisor import Supervisor

ATTEMPTS_MAX = 5
COMMITS = 2000  # commits of the writer, of two frames each
STALL_FRAMES = 1000  # frames of three restarts of the writer's WAL

_WRITER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("CREATE TABLE padding (number INTEGER PRIMARY KEY, content)")
connection.execute("PRAGMA synchronous=NORMAL")
connection.execute("PRAGMA wal_autocheckpoint=300")
began = time.monotonic()
number = 0
while number < int(sys.argv[2]):
    number += 1
    connection.execute("INSERT INTO t VALUES (?)", (number,))
    connection.execute("REPLACE INTO padding VALUES (?, randomblob(1000))", (number % 1000,))
    if number % 20 == 0:
        time.sleep(max(0, began + number / 600 - time.monotonic()))
print(number)
connection.execute("PRAGMA busy_timeout=60000")
sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@contextmanager
def started(**limits: float) -> Iterator[Backpressure]:
    backpressure = Backpressure(**limits)
    thread = threading.Thread(target=backpressure.run)
    thread.start()
    try:
        yield backpressure
    finally:
        backpressure.stop()
        thread.join()
        assert backpressure.child_pid is None


def events(log: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what was logged, apart from what depends on whether real-time scheduling is permitted here."""
    return [line["event"] for line in log if line["event"] != "backpressure_process_not_real_time"]


def wanting(settings: Settings, *, wanted: bool = True) -> Settings:
    entries = tuple(replace(entry, backpressure=wanted) for entry in settings.databases)
    return replace(settings, databases=entries)


def test_one_child_for_all_and_none_for_nobody(tmp_path: Path) -> None:
    """The child is started with the first database and ended with the last."""
    target = HoldTarget(tmp_path / "app.db", own_only=False, wal_bytes_max=1 << 28)
    other = replace(target, path=tmp_path / "other.db")
    with started() as backpressure:
        backpressure.copied(1, Cursor((1, 2), None, 0, (0, 0)))
        assert backpressure.child_pid is None
        backpressure.want(1, target)
        wait_for(lambda: backpressure.child_pid is not None)
        first = backpressure.child_pid
        backpressure.want(2, other)
        backpressure.forget(1)
        backpressure.copied(2, None)
        assert backpressure.child_pid == first
        backpressure.forget(2)
        wait_for(lambda: backpressure.child_pid is None)
        backpressure.want(2, other)
        wait_for(lambda: backpressure.child_pid is not None)
        assert backpressure.child_pid != first


def test_nothing_is_followed_before_the_child_watches_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fast writer restarts its WAL several times while a process starts. The log warns that it may be too slow."""
    monkeypatch.setattr(backpressure_module, "MODULE", "tests.engine.backpressure.slow_mark_process")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    begin = Backpressure.begin
    watching: list[bool] = []
    threads: list[str] = []

    def recorded(backpressure: Backpressure, start_thread: Callable[[str, Callable[[], None]], object]) -> None:
        begin(backpressure, start_thread)
        watching.append(is_watching(backpressure.child_pid))
        threads.extend(thread.name for thread in threading.enumerate())

    monkeypatch.setattr(Backpressure, "begin", recorded)
    with wal_database(place.database()), capture_logs() as log, running(wanting(place.settings("app"))):
        assert watching == [True]
        assert "follower" not in threads
        assert [line["event"] for line in log].count("backpressure_process_not_real_time") == 1


def begun(tmp_path: Path, watching_s_max: float) -> set[str]:
    """Wait until the start is over, and return what the log says of it."""
    backpressure = Backpressure(watching_s_max=watching_s_max)
    threads = Supervisor()
    with capture_logs() as log:
        backpressure.want(1, HoldTarget(tmp_path / "app.db", own_only=False, wal_bytes_max=1 << 28))
        backpressure.begin(threads.start)
        said = {line["event"] for line in log}
        backpressure.stop()
    return said


def test_a_child_that_does_not_start_keeps_nobody_from_following(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log reports that nothing slows the writers."""
    monkeypatch.setattr(backpressure_module, "MODULE", "tests.engine.backpressure.slow_mark_process")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    assert "backpressure_process_late" in begun(tmp_path, 0.01)


@pytest.mark.parametrize(
    ("program", "event"),
    [
        (sys.executable, "backpressure_process_ended"),
        ("/no/such/program", "work_failed"),
    ],
)
def test_nobody_waits_for_a_child_that_has_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, event: str
) -> None:
    """Waiting for a dead child would make each start of the daemon longer."""
    monkeypatch.setattr(backpressure_module, "MODULE", "walsyncd.no_such_module")
    monkeypatch.setattr(sys, "executable", program)
    said = begun(tmp_path, 30)
    assert event in said
    assert "backpressure_process_late" not in said


def test_a_child_that_dies_is_started_again(tmp_path: Path) -> None:
    """The log reports the start."""
    with started() as backpressure, capture_logs() as log:
        backpressure.want(1, HoldTarget(tmp_path / "app.db", own_only=False, wal_bytes_max=1 << 28))
        wait_for(lambda: backpressure.child_pid is not None)
        first = backpressure.child_pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: backpressure.child_pid not in {None, first})
    assert events(log) == ["backpressure_process_ended"]


def test_a_child_that_keeps_ending_is_started_less_and_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child is started at most once a minute, because a start costs tenths of a second of a core, and a line of
    the log.
    """
    assert [backpressure_module.start_again_s(failures) for failures in (0, 1, 2, 3, 6, 7, 10**6)] == [
        *(1, 1, 2, 4, 32),
        *(60, 60),
    ]
    asked: list[int] = []

    def start_again_s(failures: int) -> float:
        asked.append(failures)
        return 0.01

    monkeypatch.setattr(backpressure_module, "MODULE", "walsyncd.no_such_module")
    monkeypatch.setattr(backpressure_module, "start_again_s", start_again_s)
    with started() as backpressure, capture_logs():
        backpressure.want(1, HoldTarget(tmp_path / "app.db", own_only=False, wal_bytes_max=1 << 28))
        wait_for(lambda: len(asked) > 3)
    assert [each for each in asked if each] == list(range(1, max(asked) + 1))


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize("can_be_killed", [True, False])
def test_a_file_that_hangs_costs_its_own_database_only(tmp_path: Path, *, can_be_killed: bool) -> None:
    """The child ends, another one serves the rest, and the database is included again when its file system answers."""
    near = HoldTarget(tmp_path / "near.db", own_only=False, wal_bytes_max=1 << 28)
    with fuse_mount(tmp_path) as served, started(hung_s=2.0, killed_s_max=1.0) as backpressure, capture_logs() as log:
        far = replace(near, path=served.files / "far" / "far.db")
        far.path.parent.mkdir()
        backpressure.want(1, near)
        wait_for(lambda: is_watching(backpressure.child_pid))
        first = backpressure.child_pid
        (served.hang if can_be_killed else served.swallow)()
        backpressure.want(2, far)
        wait_for(lambda: backpressure.child_pid != first and is_watching(backpressure.child_pid))
        assert events(log)[0] == "backpressure_process_hung"
        assert can_be_killed or "backpressure_process_not_ended" in events(log)
        assert backpressure.hindrance(2) == backpressure_module.HUNG
        assert backpressure.hindrance(1) == ""
        served.answer()
        wait_for(lambda: not backpressure.hindrance(2))
        wait_for(lambda: all(child.poll() is not None for child in backpressure._left))


def test_a_limit_is_logged_once(tmp_path: Path) -> None:
    """Nobody copies, so the lock is given up after its longest time, each time that it is taken."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, started() as backpressure, capture_logs() as log:
        backpressure.copied(1, Cursor((0, 0), None, 0, (0, 0)))
        backpressure.want(1, HoldTarget(path, own_only=False, wal_bytes_max=1 << 28))

        def is_logged() -> bool:
            app.execute("PRAGMA wal_checkpoint(RESTART)", "INSERT INTO t VALUES (1)")
            return bool(events(log))

        wait_for(is_logged)
        (limit,) = [line for line in log if line["event"] == "backpressure_limit_reached"]
        assert limit["path"] == str(path)
        until_s = time.monotonic() + 2  # enough time for several
        while time.monotonic() < until_s:
            is_logged()
    assert events(log) == ["backpressure_limit_reached"]


def test_more_databases_than_a_socket_holds_messages(tmp_path: Path) -> None:
    """A child that is only starting is told of all of them."""
    with started() as backpressure:
        for number in range(600):
            path = tmp_path / f"{number}.db"
            backpressure.want(number, HoldTarget(path, own_only=False, wal_bytes_max=1 << 28))
        pid = backpressure.child_pid
        time.sleep(0.5)
        assert pid is None or backpressure.child_pid == pid


def test_a_reload_turns_it_on_and_off(place: Place) -> None:
    """A reload turns backpressure on and off without a new generation. Status says whether it is on."""
    settings = place.settings("app")
    now = settings

    def words(daemon: Daemon) -> str:
        (database,) = place.ask(op="status")["databases"]
        assert (daemon.databases[0].spec.backpressure) == (database["backpressure"] == "on")
        return str(database["backpressure"])

    with wal_database(place.database()), serving(settings, source=lambda: (now, None)) as daemon:
        place.sync()
        generation = daemon.databases[0].generation
        backpressure = daemon._databases.backpressure
        assert (words(daemon), backpressure.child_pid) == ("off", None)
        now = wanting(settings)
        assert list(place.ask(op="reload")["changed"]) == ["app"]
        wait_for(lambda: backpressure.child_pid is not None)
        place.sync()
        assert words(daemon) == "on"
        now = settings
        place.ask(op="reload")
        wait_for(lambda: backpressure.child_pid is None)
        place.sync()
        assert words(daemon) == "off"
        assert daemon.databases[0].generation == generation


def wait_for_frames(place: Place, count: int, is_over: threading.Event) -> None:
    """Wait until so many frames were written, in any incarnations of the WAL, or the writer has ended."""
    shm = place.database().with_name("app.db-shm")
    seen, written = parse_index_header(shm.read_bytes()), 0
    while written < count and not is_over.wait(0.001):
        index = parse_index_header(shm.read_bytes())
        if index is not None and seen is not None:
            written += index.max_frame - (seen.max_frame if index.salts == seen.salts else 0)
        seen = index or seen


def is_watching(pid: int | None) -> bool:
    """Return whether a child has started and knows a database."""
    if pid is None:
        return False
    with suppress(FileNotFoundError):  # the descriptor was closed meanwhile
        return any("inotify wd:" in each.read_text() for each in Path(f"/proc/{pid}/fdinfo").iterdir())
    return False


def followed_slowly(place: Place, monkeypatch: pytest.MonkeyPatch, *, wanted: bool) -> int:
    """Return the number of gaps beside a writer, with a follower that stalls while the WAL could restart
    three times.
    """
    is_over, stalled_s = threading.Event(), [0.0]

    def stalling(*arguments: object) -> object:
        if time.monotonic() - stalled_s[0] > 0.5:
            wait_for_frames(place, STALL_FRAMES, is_over)
            stalled_s[0] = time.monotonic()
        return take_step(*arguments)  # type: ignore[arg-type]

    with wal_database(place.database()), running(wanting(place.settings("app"), wanted=wanted)) as daemon:
        place.sync()
        tracked = daemon.databases[0]
        generation = tracked.generation
        wait_for(lambda: not wanted or is_watching(daemon._databases.backpressure.child_pid))
        monkeypatch.setattr(follower_module, "take_step", stalling)
        command = [sys.executable, "-c", _WRITER, str(place.database()), str(COMMITS)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            assert int(writer.stdout.readline()) == COMMITS
            is_over.set()
            place.sync()
            gaps = tracked.gaps + (tracked.generation != generation)
            writer.communicate()
        assert restored_values(place) == list(range(COMMITS + 1))
    return gaps


@pytest.mark.slow
def test_a_slow_reader_beside_a_fast_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without backpressure there are gaps, and the replica is right anyway. With backpressure there are none.

    The lock is held here without a limit of time. The lock comes too late if the machine keeps the child from running
    while the WAL restarts, so there are several attempts.
    """
    assert followed_slowly(Place(tmp_path / "without"), monkeypatch, wanted=False)
    monkeypatch.setattr(backpressure_module, "MODULE", "tests.engine.backpressure.patient_mark_process")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    gaps: list[int] = []
    while len(gaps) < ATTEMPTS_MAX and (not gaps or gaps[-1]):
        monkeypatch.setattr(follower_module, "take_step", take_step)
        gaps.append(followed_slowly(Place(tmp_path / f"with{len(gaps)}"), monkeypatch, wanted=True))
    assert not gaps[-1], gaps
