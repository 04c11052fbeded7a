"""Tests of walsyncd.engine.rollback.shipped_moment, in a whole daemon: the file is what a known position restores."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.rollback.rollback_replicas import TABLE, filled, restored
from tests.engine.running import Place, running
from walsyncd.core.follow.follow_state import FollowState
from walsyncd.core.restore.plan import AtPosition
from walsyncd.engine.daemon.daemon import Daemon
from walsyncd.engine.rollback import shipped_moment
from walsyncd.engine.rollback.shipped_moment import ShippedMoments
from walsyncd.errors import TransientError


def read(daemon: Daemon) -> tuple[FollowState, bytes]:
    """Read all of the one database at such a moment."""
    (tracked,) = daemon.databases
    moments = ShippedMoments(daemon._environment, daemon.follower.request)
    return moments.read_now(tracked, 4096, lambda file: file.pread(0, file.size()), time.sleep)


def test_what_is_read_beside_a_writer_is_what_its_position_restores(tmp_path: Path) -> None:
    """Each time, byte for byte."""
    place = Place(tmp_path)
    stop = threading.Event()
    with SqliteProcess(place.database()) as app, running(place.settings("app")) as daemon:
        app.execute(*TABLE, filled(50))
        place.sync()

        def write() -> None:
            while not stop.wait(0.02):
                app.execute("UPDATE t SET y = randomblob(3000) WHERE x % 10 = 1")

        writer = threading.Thread(target=write)
        writer.start()
        try:
            found = [read(daemon) for _ in range(5)]
        finally:
            stop.set()
            writer.join()
        place.sync()
    for state, content in found:
        assert restored(place, AtPosition(state.stream.position)) == content


def test_an_open_transaction_is_waited_for_and_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what is in the way."""
    monkeypatch.setattr(shipped_moment, "PATIENCE_S", 0.2)
    place = Place(tmp_path)
    with SqliteProcess(place.database()) as app, running(place.settings("app")) as daemon:
        app.execute(*TABLE, filled(200))
        place.sync()
        app.execute("PRAGMA cache_size=3", "BEGIN", "UPDATE t SET y = randomblob(3000)")
        with pytest.raises(TransientError, match="was not shipped within"):
            read(daemon)
