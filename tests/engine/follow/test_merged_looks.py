"""Tests of looks that are deferred until the next upload is due: from the events of real SQLite to the schedule."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.following import TRUNCATE, Following, insert
from tests.engine.running import wait_for
from walsyncd.core.follow.decision import Observation
from walsyncd.core.limits import Limits
from walsyncd.core.sqlite.walindex import IndexHeader
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.schedule import SLOW_LOOK_S, Schedule
from walsyncd.engine.follow.wal_pair import IndexReads
from walsyncd.engine.read_ahead.deferred_look import DeferredLook, DeferredReading
from walsyncd.file_calls import FILE_CALLS, FileCall, ThreadAbandonedError


@dataclass
class Daemon:
    """A follower driven by hand, whose events go to a schedule."""

    app: SqliteProcess
    follow: Following
    schedule: Schedule
    shown: IndexHeader | None = None

    @property
    def tracked(self) -> FollowedDatabase:
        return self.follow.tracked

    @property
    def deferred(self) -> DeferredLook:
        assert self.tracked.deferred is not None
        return self.tracked.deferred

    def look(self) -> None:
        """Look until it has caught up, and schedule the next look."""
        self.schedule.forget(self.tracked)
        step = self.follow.look()
        self.schedule.seen(self.tracked)
        self.schedule.look_again(self.tracked, step, self.follow.environment)

    def take_events(self, *, waits: bool = True) -> None:
        self.follow.watch._take_in(waits=waits)

    @property
    def due_in_s(self) -> float:
        """Return in how many seconds the next look is due."""
        due = self.schedule._due.get(self.follow.row_id)
        assert due is not None
        return due - time.monotonic()


@contextmanager
def running(tmp_path: Path, *, leaves_in_s: float = 9000.0) -> Iterator[Daemon]:
    """Return a daemon that has looked at its database, whose next upload is due long after the slow look."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, Following(path, tmp_path / "f").begin() as follow:
        schedule = Schedule()
        follow.environment = replace(
            follow.environment, leaves_in_s=lambda _row_id: leaves_in_s, limits=Limits(defer_s_max=9000.0)
        )
        follow.watch._wake, follow.watch._schedule = schedule.wake, schedule
        app.execute(insert(1), insert(2))
        daemon = Daemon(app, follow, schedule)
        daemon.look()
        yield daemon


def test_a_commit_is_read_at_its_event_and_looked_at_when_an_upload_is_due(tmp_path: Path) -> None:
    """What SQLite cuts off a moment later is not missed. Until the look the commit counts as unseen."""
    with running(tmp_path) as daemon:
        assert 0 < daemon.due_in_s < 2 * SLOW_LOOK_S  # nothing was written
        for number in range(3, 6):
            daemon.app.execute(insert(number))
            daemon.take_events()
        assert daemon.deferred.reading.size
        daemon.schedule._due.discard(daemon.follow.row_id)  # the slow look
        daemon.app.execute(insert(6))
        daemon.take_events()
        assert daemon.due_in_s > 2 * SLOW_LOOK_S
        assert daemon.follow.row_id in daemon.schedule.unseen_s()
        daemon.app.execute(TRUNCATE, *(insert(10 + number) for number in range(9)))
        daemon.look()
        assert not daemon.follow.steps[-1].gap
        daemon.follow.proves(daemon.app)
        daemon.look()
        assert daemon.follow.row_id not in daemon.schedule.unseen_s()


def test_what_is_read_shows_that_nothing_came_after_it(tmp_path: Path) -> None:
    """As after a look, the count holds although a process closes the wal-index soon after the restart."""
    with running(tmp_path) as daemon:
        daemon.app.execute(insert(3))
        daemon.take_events()
        daemon.app.execute(TRUNCATE, insert(4))
        daemon.take_events()
        daemon.look()
        assert daemon.tracked.evidence.provisional is None
        daemon.follow.sees_all(daemon.app)


def test_events_while_it_is_read_count_for_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the reading a commit is copied back and overwritten, so the reading does not show all."""
    with running(tmp_path) as daemon:
        read = DeferredLook.read

        def read_and_go_on(self: DeferredLook, index_header: bytes | None = None) -> None:
            read(self, index_header)
            if self.reading.shown is None:
                return
            monkeypatch.undo()
            wal_pair = daemon.tracked.wal_pairs.current
            assert wal_pair is not None
            daemon.shown = self.reading.shown.header
            for tell in (IndexReads.wal_written, IndexReads.database_written, IndexReads.wal_written):
                tell(wal_pair.index_reads)

        monkeypatch.setattr(DeferredLook, "read", read_and_go_on)
        daemon.app.execute(insert(3))
        daemon.take_events()
        wal_pair = daemon.tracked.wal_pairs.current
        assert wal_pair is not None
        assert daemon.shown is not None
        assert daemon.shown not in wal_pair.index_reads.last(followed=True)


def test_anything_but_a_write_to_the_wal_is_looked_at_at_once(tmp_path: Path) -> None:
    """What was committed before such an event is read first."""
    with running(tmp_path) as daemon:
        daemon.app.execute(insert(3), "PRAGMA wal_checkpoint")
        daemon.take_events()
        assert daemon.due_in_s < SLOW_LOOK_S / 2
        assert daemon.deferred.reading.size


def test_an_upload_that_is_due_puts_nothing_off(tmp_path: Path) -> None:
    """A commit on a quiet database is sent at once."""
    with running(tmp_path, leaves_in_s=0.0) as daemon:
        assert daemon.tracked.deferred is None
        daemon.app.execute(insert(3))
        daemon.take_events()
        assert daemon.due_in_s < SLOW_LOOK_S / 2


@pytest.mark.parametrize("what", ["backpressure", "base wanted", "base", "no count", "fast", "moved", "unwatched"])
def test_what_needs_promptness_is_not_put_off(tmp_path: Path, what: str) -> None:
    """Some client waits for the look, or only a look can find out what there is."""
    with running(tmp_path) as daemon:
        tracked = daemon.tracked
        tracked.drop_reading()
        match what:
            case "backpressure":
                tracked.spec = replace(tracked.spec, backpressure=True)
            case "base wanted":
                tracked.note_base(wanted="it is due")
            case "base":
                tracked.note_base(under_way=True)
            case "no count":
                tracked.belief = replace(tracked.belief, evidence=replace(tracked.evidence, mark=None))
            case "fast":
                tracked.hastens_until_s = time.monotonic() + 3600
            case "moved":
                tracked.belief = replace(tracked.belief, evidence=replace(tracked.evidence, believe_index=False))
            case _:
                tracked.wal_pairs.watched = False
        daemon.schedule.look_again(tracked, daemon.follow.steps[-1], daemon.follow.environment)
        assert tracked.deferred is None


def test_what_was_written_during_a_look_is_read_after_it(tmp_path: Path) -> None:
    """Such a write needs no look of its own."""
    with running(tmp_path) as daemon:
        daemon.schedule.forget(daemon.tracked)
        step = daemon.follow.look()
        daemon.app.execute(insert(3))
        daemon.take_events()
        assert daemon.due_in_s < SLOW_LOOK_S / 2
        daemon.schedule.look_again(daemon.tracked, step, daemon.follow.environment)
        assert daemon.deferred.reading.size
        assert daemon.due_in_s > 2 * SLOW_LOOK_S


@pytest.mark.parametrize("is_first", [False, True])
def test_what_else_happened_during_a_look_is_looked_at(tmp_path: Path, *, is_first: bool) -> None:
    """No reading has such an event, whether it came before a write or after it."""
    with running(tmp_path) as daemon:
        daemon.schedule.forget(daemon.tracked)
        step = daemon.follow.look()
        wakes = [daemon.schedule.wake, daemon.schedule.written]
        for wake in wakes if is_first else reversed(wakes):
            wake([daemon.tracked])
        daemon.schedule.look_again(daemon.tracked, step, daemon.follow.environment)
        assert daemon.due_in_s < SLOW_LOOK_S / 2


def test_a_commit_that_is_not_published_is_read_by_the_thread_that_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other event may come. If another thread took the event in, the database is looked at."""
    with running(tmp_path) as daemon:
        daemon.schedule._due.discard(daemon.follow.row_id)
        monkeypatch.setattr(DeferredReading, "is_moving", lambda _self: True)
        daemon.app.execute(insert(3))
        daemon.take_events()
        assert daemon.due_in_s > 2 * SLOW_LOOK_S
        assert daemon.follow.watch._pause_s() <= 0.001
        daemon.app.execute(insert(4))
        daemon.take_events(waits=False)
        assert daemon.due_in_s < SLOW_LOOK_S / 2


def test_the_thread_reads_again_until_it_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If that takes long, the thread leaves the database to the follower."""
    with running(tmp_path) as daemon:
        daemon.schedule._due.discard(daemon.follow.row_id)
        monkeypatch.setattr(DeferredReading, "is_moving", lambda _self: True)
        daemon.app.execute(insert(3))
        thread = threading.Thread(target=daemon.follow.watch.run)
        thread.start()
        try:
            wait_for(lambda: daemon.schedule._due.get(daemon.follow.row_id) and daemon.due_in_s < SLOW_LOOK_S / 2)
        finally:
            daemon.follow.watch.stop()
            thread.join()
        assert daemon.deferred.is_due


def test_a_restart_that_is_found_after_a_look_is_looked_at(tmp_path: Path) -> None:
    """The restart's events may have come before."""
    with running(tmp_path) as daemon:
        daemon.schedule.forget(daemon.tracked)
        step = daemon.follow.look()
        daemon.app.execute(insert(3), "PRAGMA wal_checkpoint", insert(4))
        daemon.schedule.look_again(daemon.tracked, step, daemon.follow.environment)
        assert daemon.due_in_s < SLOW_LOOK_S / 2
        daemon.follow.sees_all(daemon.app)


def test_readings_end_with_their_wal(tmp_path: Path) -> None:
    """A database without a WAL has no reading."""
    with running(tmp_path) as daemon:
        daemon.app.execute(insert(3))
        daemon.take_events()
        daemon.app.close()
        daemon.look()
        daemon.look()
        assert daemon.tracked.reading is None


def test_a_database_that_nobody_has_open_is_not_looked_at_again_and_again(tmp_path: Path) -> None:
    """The database's processes were killed, and nothing can be read from a wal-index that nobody uses."""
    with running(tmp_path) as daemon:
        daemon.app.kill()
        daemon.look()
        daemon.look()
        assert daemon.due_in_s > SLOW_LOOK_S / 2
        assert daemon.tracked.deferred is None


def test_what_is_found_due_after_a_look_has_not_been_due_for_long(tmp_path: Path) -> None:
    """The database is not reported as overdue or lagging."""
    with running(tmp_path) as daemon:
        daemon.schedule.forget(daemon.tracked)
        step = daemon.follow.look()
        daemon.app.execute(insert(3), "PRAGMA wal_checkpoint", insert(4))
        before_s = time.monotonic()
        daemon.schedule.look_again(daemon.tracked, step, daemon.follow.environment)
        due_s = daemon.schedule._due.get(daemon.follow.row_id)
        assert due_s is not None
        assert before_s <= due_s < before_s + SLOW_LOOK_S / 2


def test_another_thread_may_add_to_what_is_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The follower takes events in while this thread asks how long to wait for the next ones."""
    with running(tmp_path) as daemon:
        watch, tracked = daemon.follow.watch, daemon.tracked

        def pause_s(_look: DeferredLook) -> float:
            watch._unread[len(watch._unread) + 100] = tracked
            return 0.5

        monkeypatch.setattr(DeferredLook, "pause_s", property(pause_s, lambda _look, _pause_s: None), raising=False)
        watch._unread = {1: tracked, 2: tracked}
        assert watch._pause_s() == 0.5


def test_a_read_that_hangs_is_left_to_a_successor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that takes the events in is given up. The next thread needs nothing that the hanging thread holds."""
    with running(tmp_path) as daemon:
        begun, released = threading.Event(), threading.Event()

        def hang(_self: DeferredReading) -> Observation:
            with FileCall(daemon.follow.path, "read"):
                begun.set()
                released.wait(60)
            raise AssertionError("it was given up")

        def take_events() -> None:
            with suppress(ThreadAbandonedError):
                daemon.take_events()
            FILE_CALLS.ended(threading.get_ident())

        monkeypatch.setattr(DeferredReading, "_observe", hang)
        daemon.app.execute(insert(3))
        thread = threading.Thread(target=take_events)
        thread.start()
        try:
            assert begun.wait(60)
            call = next(call for call, ident in FILE_CALLS.lasting.copy().items() if ident == thread.ident)
            assert FILE_CALLS.abandon(call)
            daemon.take_events()
            assert daemon.due_in_s < SLOW_LOOK_S / 2
            daemon.tracked.end_deferral()
        finally:
            released.set()
            thread.join()
        FILE_CALLS.take_answered()
        monkeypatch.undo()
        daemon.look()
        daemon.follow.sees_all(daemon.app)
