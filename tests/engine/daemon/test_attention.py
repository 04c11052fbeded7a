"""Tests of databases that nobody has looked at, although a look is due."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.engine.running import WAIT_S_MAX, wait_for
from walsyncd.config import DatabaseSpec
from walsyncd.engine.daemon.attention import Attention
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.schedule import Schedule
from walsyncd.engine.follow.wal_pairs import WalPairs
from walsyncd.engine.threads.stall_detector import StallDetector


def followed(name: str, row_id: int) -> FollowedDatabase:
    path = Path(f"/srv/{name}.db")
    return FollowedDatabase(
        DatabaseSpec(path, name, str(path), "database[1]", 1, 1, 1, presence=False), row_id, WalPairs(path)
    )


@contextmanager
def working(stalls: StallDetector, name: str) -> Iterator[None]:
    """Start a worker of this name that never ends."""
    begun, end = threading.Event(), threading.Event()

    def work() -> None:
        with stalls.work():
            begun.set()
            assert end.wait(WAIT_S_MAX)

    thread = threading.Thread(target=work, name=name)
    thread.start()
    assert begun.wait(WAIT_S_MAX)
    try:
        yield
    finally:
        end.set()
        thread.join()


def test_a_database_is_unseen_from_when_its_look_is_due_until_one_has_seen_all() -> None:
    """Beginning a look is not enough. A database whose look is due later is not unseen."""
    schedule, app, later = Schedule(), followed("app", 1), followed("later", 2)
    attention = Attention(schedule, StallDetector(), lambda: [app, later])
    schedule.at(later, 3600)
    assert {name: each.unseen_s for name, each in attention.waits().items()} == {"app": 0, "later": 0}
    schedule.wake([app])
    assert schedule.take() == [app]
    wait_for(lambda: attention.waits()["app"].unseen_s > 0.05)
    schedule.at(app, 3600)
    before = attention.waits()["app"].unseen_s
    time.sleep(0.01)
    assert attention.waits()["app"].unseen_s > before
    schedule.seen(app)
    assert {name: each.unseen_s for name, each in attention.waits().items()} == {"app": 0, "later": 0}


def test_while_the_watcher_hangs_no_database_is_seen() -> None:
    """No events reach the follower."""
    stalls, app = StallDetector(), followed("app", 1)
    attention = Attention(Schedule(), stalls, lambda: [app])
    with working(stalls, "watcher"):
        wait_for(lambda: attention.waits()["app"].unseen_s > 0.05)
