"""Tests of the order in which the replicas of another host are taken over, and in which their databases continue."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.engine.content.test_restored_files import restore
from tests.engine.following import spec_of
from tests.engine.running import WAIT_S_MAX, running, wait_for
from tests.engine.upkeep.test_continuation import Host, commit, left, working
from walsyncd.core.follow.database_state import DatabaseState
from walsyncd.core.limits import Limits
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.wal_pairs import WalPairs
from walsyncd.engine.ship import ownership
from walsyncd.engine.threads.examination import AWAITS_TURN, Examination
from walsyncd.engine.upkeep.continuation import Continuations
from walsyncd.engine.upkeep.drill import StoppedError


def test_the_generation_is_known_before_the_database_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the follower might begin another generation first."""
    old, new = Host(tmp_path / "a"), Host(tmp_path / "b")
    for host in (old, new):
        host.folder.mkdir()
    generation, _ = left(old)
    restore(new)
    end, ended, goes = Examination.end, threading.Event(), threading.Event()

    def ends(self: Examination) -> None:
        end(self)
        ended.set()
        goes.wait(WAIT_S_MAX)

    monkeypatch.setattr(Examination, "end", ends)
    with working(new):
        try:
            wait_for(ended.is_set)
            commit(new, 7)
        finally:
            goes.set()
        new.sync()
        assert new.row().generation == generation


def continuations() -> Continuations:
    """Return continuations that reach nothing."""

    def interrupt(_tracked: FollowedDatabase, _then: object) -> None:
        """Interrupt nobody."""

    none: Any = None
    return Continuations(none, none, none, map_writer=none, interrupt=interrupt, resume=none, boot_id="boot")


def test_thousands_of_databases_are_added_without_asking_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries that are over are dropped now and then. The others are known at the stop."""
    asked, asks, is_over = continuations(), list[Examination](), vars(Examination)["is_over"].fget

    def counted(self: Examination) -> bool:
        asks.append(self)
        return bool(is_over(self))

    monkeypatch.setattr(Examination, "is_over", property(counted))
    path = tmp_path / "app.db"
    over = []
    for number in range(1000):
        tracked = FollowedDatabase(spec_of(path), number, WalPairs(path))
        asked.examine(tracked)
        assert tracked.examination is not None
        if number % 2:
            tracked.examination.end()
            over.append(tracked.examination)
    assert len(asks) < 4000
    assert len(asked._open) < 1000
    asked.stop()
    assert all(each.is_stopped for each in asks if each not in over)


def test_small_databases_have_their_turn_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large database would keep all others waiting.

    Of databases of equal size, the one that came first is first. Each turn moves the queue.
    """
    order: list[int] = []
    moved: list[float] = []
    asked = continuations()

    def answer(_self: Continuations, tracked: FollowedDatabase, _examination: Examination) -> bool:
        order.append(tracked.row_id)
        moved.append(asked._moved_s)
        return False

    monkeypatch.setattr(Continuations, "_continue", answer)
    waiting = []
    for row_id, size in enumerate((9000, 100, 5000, 100, 8000)):
        path = tmp_path / f"{row_id}.db"
        path.write_bytes(bytes(size))
        tracked = FollowedDatabase(spec_of(path), row_id, WalPairs(path))
        asked.examine(tracked)
        assert tracked.awaits_examination() == tracked.report
        waiting.append(tracked)
    thread = threading.Thread(target=asked.run)
    thread.start()
    wait_for(lambda: not any(tracked.awaits_examination() for tracked in waiting))
    asked.stop()
    thread.join(WAIT_S_MAX)
    assert order == [1, 3, 2, 4, 0]
    assert moved[0] == 0.0
    assert 0.0 not in moved[1:]
    began_s = time.monotonic()
    with pytest.raises(StoppedError):
        asked._pause(0)
    assert asked._moved_s >= began_s, "what is read moves the queue, too"


@pytest.mark.slow
def test_many_databases_that_are_moved_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All continue without a base, though it takes longer than a database waits for an answer.

    The state says who waits.
    """
    names = [f"db{number}" for number in range(14)]
    old, new = Host(tmp_path / "a"), Host(tmp_path / "b")
    for name in names:
        with closing(sqlite3.connect(old.database(name))) as connection:
            connection.executescript("PRAGMA journal_mode = WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1);")
    generations, machine = {}, ["machine-a"]
    monkeypatch.setattr(ownership, "machine_id", lambda: machine[0])
    with running(old.settings(*names)):
        for name in names:
            old.sync(name)
            generations[name] = old.row(name).generation
    for name in names:
        shutil.copyfile(old.database(name), new.database(name))
    take, taken = Continuations._take, list[str]()

    def slowly(self: Continuations, tracked: FollowedDatabase, *arguments: Any) -> Any:
        taken.append(tracked.name)
        time.sleep(1.0)
        if len(taken) == len(names) - 1:
            (last,) = set(names) - set(taken)
            wait_for(lambda: (new.row(last).state, new.row(last).cause) == (DatabaseState.DEGRADED, AWAITS_TURN))
        return take(self, tracked, *arguments)

    monkeypatch.setattr(Continuations, "_take", slowly)
    machine[0] = "machine-b"
    with running(new.settings(*names), limits=Limits(answer_s_max=10.0, begin_look_s=0.2)):
        for name in names:
            new.sync(name)
            assert new.row(name).generation == generations[name]
    assert len(list(new.replica.glob("*/*/base/*.json.zst"))) == len(names), "nobody took another base"
