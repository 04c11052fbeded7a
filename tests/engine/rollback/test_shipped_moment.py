"""Tests of walsyncd.engine.rollback.shipped_moment, in a whole daemon: the file is what a known position restores."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.following import Following
from tests.engine.rollback.rollback_replicas import TABLE, filled, restored
from tests.engine.running import Place, running
from walsyncd.core.follow.follow_state import FollowState
from walsyncd.core.limits import Limits
from walsyncd.core.restore.plan import AtPosition
from walsyncd.engine.content.page_maps import PageMaps
from walsyncd.engine.content.scan_queue import ScanQueue
from walsyncd.engine.daemon.daemon import Daemon
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.schedule import Schedule
from walsyncd.engine.rollback.database_scans import DatabaseScans
from walsyncd.engine.rollback.scanning import ScanTools
from walsyncd.engine.rollback.shipped_moment import ShippedMoments
from walsyncd.errors import TransientError


def read(daemon: Daemon) -> tuple[FollowState, bytes]:
    """Read all of the one database at such a moment."""
    (tracked,) = daemon.databases
    moments = ShippedMoments(daemon._environment, daemon.follower.request)
    return moments.read_now(tracked, 4096, lambda file: file.pread(0, file.size()), time.sleep)


def test_what_is_read_beside_a_writer_is_what_its_position_restores(tmp_path: Path) -> None:
    """Each reading equals the restore, byte for byte."""
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


def test_an_open_transaction_is_waited_for_and_not_for_ever(tmp_path: Path) -> None:
    """The error says what prevents it."""
    place = Place(tmp_path)
    with (
        SqliteProcess(place.database()) as app,
        running(place.settings("app"), limits=Limits(shipped_moment_s=0.2)) as daemon,
    ):
        app.execute(*TABLE, filled(200))
        place.sync()
        app.execute("PRAGMA cache_size=3", "BEGIN", "UPDATE t SET y = randomblob(3000)")
        with pytest.raises(TransientError, match="was not shipped within"):
            read(daemon)


@pytest.mark.parametrize("watched", [True, False])
def test_what_only_the_next_base_will_hold_is_not_shipped(tmp_path: Path, watched: bool) -> None:
    """Without a page map a look notes the change, and wants a base.

    Until that base is stored no position has the change.
    """
    path = tmp_path / "app.db"
    with SqliteProcess(path) as app, Following(path, tmp_path / "f") as follow:
        app.execute(*TABLE, filled(5))
        tracked = follow.begin().tracked
        tracked.scans = DatabaseScans(
            ScanTools(follow.journal, follow.environment, Schedule(), ScanQueue(), PageMaps(follow.journal)), tracked
        )
        tracked.wal_pairs.watched = watched
        follow.settled()
        app.execute("UPDATE t SET y = 1 WHERE x = 3")
        follow.settled()
        assert tracked.base.wanted

        def request(tracked: FollowedDatabase, then: Callable[[FollowedDatabase], object]) -> Future[Any]:
            answer = Future[Any]()
            answer.set_result(then(tracked))
            return answer

        with pytest.raises(TransientError, match="only its next base"):
            ShippedMoments(follow.environment, request).read_now(tracked, 4096, lambda file: file.size(), time.sleep)
