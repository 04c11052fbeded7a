"""Tests of walsyncd.engine.backpressure.backpressure: one child if a database asks for it, none otherwise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.adapters.files.sqlite_process import wal_database
from tests.engine.running import Place, restored_values, running, serving, wait_for
from walsyncd.config import Settings
from walsyncd.core.follow.decision import Cursor
from walsyncd.engine.backpressure import backpressure as backpressure_module
from walsyncd.engine.backpressure.backpressure import Backpressure
from walsyncd.engine.backpressure.mark_hold import HoldTarget
from walsyncd.engine.daemon.daemon import Daemon
from walsyncd.engine.follow import follower as follower_module
from walsyncd.engine.follow.look import take_step

ATTEMPTS_MAX = 5

_WRITER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("CREATE TABLE padding (number INTEGER PRIMARY KEY, content)")
connection.execute("PRAGMA synchronous=NORMAL")
connection.execute("PRAGMA wal_autocheckpoint=300")
began = time.monotonic()
deadline = began + float(sys.argv[2])
number = 0
while time.monotonic() < deadline:
    number += 1
    connection.execute("INSERT INTO t VALUES (?)", (number,))
    connection.execute("REPLACE INTO padding VALUES (?, randomblob(1000))", (number % 1000,))
    if number % 20 == 0:
        time.sleep(max(0, began + number / 1500 - time.monotonic()))
print(number)
connection.execute("PRAGMA busy_timeout=60000")
sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@contextmanager
def started() -> Iterator[Backpressure]:
    backpressure = Backpressure()
    thread = threading.Thread(target=backpressure.run)
    thread.start()
    try:
        yield backpressure
    finally:
        backpressure.stop()
        thread.join()
        assert backpressure.child_pid is None


def wanting(settings: Settings, *, wanted: bool = True) -> Settings:
    entries = tuple(replace(entry, backpressure=wanted) for entry in settings.databases)
    return replace(settings, databases=entries)


def test_one_child_for_all_and_none_for_nobody(tmp_path: Path) -> None:
    """It is started with the first database and ended with the last."""
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


def test_a_child_that_dies_is_started_again(tmp_path: Path) -> None:
    """And the log says so."""
    with started() as backpressure, capture_logs() as log:
        backpressure.want(1, HoldTarget(tmp_path / "app.db", own_only=False, wal_bytes_max=1 << 28))
        wait_for(lambda: backpressure.child_pid is not None)
        first = backpressure.child_pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: backpressure.child_pid not in {None, first})
    assert [line["event"] for line in log] == ["backpressure_process_ended"]


def test_more_databases_than_a_socket_holds_messages(tmp_path: Path) -> None:
    """All of them are told to a child that is only starting."""
    with started() as backpressure:
        for number in range(600):
            path = tmp_path / f"{number}.db"
            backpressure.want(number, HoldTarget(path, own_only=False, wal_bytes_max=1 << 28))
        pid = backpressure.child_pid
        time.sleep(0.5)
        assert pid is None or backpressure.child_pid == pid


def test_a_reload_turns_it_on_and_off(place: Place) -> None:
    """Without a new generation; status says whether it is on."""
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


def followed_slowly(place: Place, monkeypatch: pytest.MonkeyPatch, *, wanted: bool) -> tuple[int, int]:
    """How many rows a writer made beside a follower that stalls, and how many gaps there were."""
    stalled_s = [0.0]

    def stalling(*arguments: object) -> object:
        if time.monotonic() - stalled_s[0] > 1.0:
            time.sleep(0.15)
            stalled_s[0] = time.monotonic()
        return take_step(*arguments)  # type: ignore[arg-type]

    with wal_database(place.database()), running(wanting(place.settings("app"), wanted=wanted)) as daemon:
        place.sync()
        tracked = daemon.databases[0]
        generation = tracked.generation
        wait_for(lambda: not wanted or daemon._databases.backpressure.child_pid is not None)
        time.sleep(1.0)  # a child needs some time to start, and has nothing to answer
        monkeypatch.setattr(follower_module, "take_step", stalling)
        command = [sys.executable, "-c", _WRITER, str(place.database()), "4"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            commits = int(writer.stdout.readline())
            place.sync()
            gaps = tracked.gaps + (tracked.generation != generation)
            writer.communicate()
        assert restored_values(place) == list(range(commits + 1))
    return commits, gaps


@pytest.mark.slow
def test_a_slow_reader_beside_a_fast_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it there are gaps, and the replica is right anyway; with it there is none.

    Nothing is promised after a hold of half a second. The follower may need that here if the machine is busy; so a gap
    may come after each such limit, and not otherwise.
    """
    _, gaps = followed_slowly(Place(tmp_path / "without"), monkeypatch, wanted=False)
    assert gaps > 0
    for attempt in range(ATTEMPTS_MAX):
        monkeypatch.undo()
        monkeypatch.setattr(backpressure_module, "LIMIT_LOG_S", 0.0)
        with capture_logs() as log:
            rows, gaps = followed_slowly(Place(tmp_path / f"with{attempt}"), monkeypatch, wanted=True)
        assert rows > 100
        assert gaps <= sum(line["event"] == "backpressure_limit_reached" for line in log)
        if not gaps:
            return
    raise AssertionError("there was a gap each time")
