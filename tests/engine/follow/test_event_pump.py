"""Tests that events reach their databases, whichever thread drains the queue."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.adapters.files.sqlite_process import wal_database
from tests.engine.running import wait_for
from walsyncd.adapters.files.inotify import Event, InotifyReader, Kind
from walsyncd.adapters.files.source import Role, side_path
from walsyncd.config import DatabaseSpec, NewNames
from walsyncd.engine.follow.event_pump import QUICK_DRAINS, RECHECK_S, EventPump
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.wal_pairs import WalPairs


def tracked_at(path: Path, *, presence: bool = False) -> FollowedDatabase:
    spec = DatabaseSpec(path, "app", str(path), "database[1]", 1.0, 1.0, 1.0, presence=presence)
    return FollowedDatabase(spec, 1, WalPairs(path))


def test_a_new_wal_is_held_before_anybody_looks(tmp_path: Path) -> None:
    """The thread that reads inotify opens -wal and -shm at their CREATE, and wakes the database."""
    woken: list[FollowedDatabase] = []
    with InotifyReader() as watcher:
        watch = EventPump(watcher, woken.extend, lambda: None)
        tracked = tracked_at(tmp_path / "app.db")
        watch.add(tracked)
        thread = threading.Thread(target=watch.run)
        thread.start()
        try:
            with wal_database(tracked.path):
                wait_for(lambda: tracked.wal_pairs.current and tracked.wal_pairs.current.shm)
        finally:
            watch.stop()
            thread.join()
        assert tracked in woken
        tracked.wal_pairs.clear()


def test_only_writes_to_wals_may_be_left_in_the_queue(tmp_path: Path) -> None:
    """A checkpoint's writes and a WAL's creation may not be left there. Other files do not matter.

    While a database has no WAL, one may be created and deleted within a pause.
    """
    with InotifyReader() as watcher:
        watch = EventPump(watcher, lambda _databases: None, lambda: None)
        tracked = tracked_at(tmp_path / "app.db")
        watch.add(tracked)
        with wal_database(tracked.path) as app:
            assert not watch._take_in()
            app.execute("INSERT INTO t VALUES (0)")
            (tmp_path / "other.log").write_bytes(b"x")
            assert watch._take_in()
            assert watch._may_pause()
            app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            assert not watch._take_in()
            app.close()
            assert watch._may_pause()
            watch.drain()
            assert not watch._may_pause()
        watch.remove(tracked)
        tracked.wal_pairs.clear()


def test_a_stream_of_writes_is_left_in_the_queue_for_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses begin after several quick drains of nothing but writes, and end with the stream."""
    with InotifyReader() as watcher:
        pauses: list[int] = []
        drains = iter([False, *[True] * (QUICK_DRAINS + 2), False, True])
        watch = EventPump(watcher, lambda _databases: None, lambda: None, quick_s=60.0)
        monkeypatch.setattr(watcher, "wait", lambda _timeout: True)
        monkeypatch.setattr(watcher, "pause", lambda _timeout: pauses.append(1))

        def take_in(*, waits: bool) -> bool:
            assert waits
            only_writes = next(drains, None)
            if only_writes is None:
                watch.stop()
            return bool(only_writes)

        monkeypatch.setattr(watch, "_take_in", take_in)
        monkeypatch.setattr(watch, "_may_pause", lambda: True)
        watch.run()
        assert len(pauses) == 3


def test_presence_is_taken_before_anybody_looks(tmp_path: Path) -> None:
    """The thread that reads inotify takes presence while the application that opened the database still has it open."""
    with InotifyReader() as watcher:
        watch = EventPump(watcher, lambda _databases: None, lambda: None)
        tracked = tracked_at(tmp_path / "app.db", presence=True)
        watch.add(tracked)
        thread = threading.Thread(target=watch.run)
        thread.start()
        try:
            with wal_database(tracked.path) as app:
                wait_for(lambda: tracked.presence.held)
                app.close()
            assert side_path(tracked.path, Role.WAL).exists()
        finally:
            watch.stop()
            thread.join()
        tracked.presence.want(wanted=False)
        tracked.wal_pairs.clear()


class Scans:
    """The scans of a database in rollback mode, of which a transaction is under way until ``until_s``."""

    until_s = 0.0

    def in_transaction_until_s(self) -> float:
        return self.until_s

    def note(self, event: Event) -> None:
        pass


def test_a_transaction_wakes_its_database_once(tmp_path: Path) -> None:
    """The transaction's end or its long duration wakes the database. If another thread takes the events in, they do."""
    woken: list[FollowedDatabase] = []
    with InotifyReader() as watcher:
        watch = EventPump(watcher, woken.extend, lambda: None)
        tracked, scans = tracked_at(tmp_path / "app.db"), Scans()
        tracked.scans = scans  # type: ignore[assignment]
        watch.add(tracked)

        def write(until_s: float, *, waits: bool = True) -> int:
            woken.clear()
            scans.until_s = until_s
            (tmp_path / "app.db").write_bytes(b"x")
            watch._take_in(waits=waits)
            watch._wake_inside()
            return len(woken)

        later_s = time.monotonic() + 600
        assert write(0.0) == 1
        assert write(later_s) == 0
        assert watch._pause_s() == RECHECK_S
        assert write(later_s, waits=False) == 1
        assert write(0.0) == 1
        assert write(later_s) == 0
        watch._wake_inside()
        assert woken == []
        scans.until_s = time.monotonic() - 1.0
        watch._inside[tracked.row_id] = tracked, scans.until_s
        assert watch._pause_s() == 0.0
        watch._wake_inside()
        assert woken == [tracked]
        assert watch._pause_s() == RECHECK_S
        assert write(later_s) == 0
        scans.until_s = 0.0  # another thread has taken in the end
        watch._wake_inside()
        assert woken == []
        assert watch._pause_s() == RECHECK_S
        tracked.wal_pairs.clear()


def test_the_count_of_a_write_wakes_nobody(tmp_path: Path) -> None:
    """The write itself has woken the database."""
    woken: list[FollowedDatabase] = []
    with InotifyReader() as watcher:
        watch = EventPump(watcher, woken.extend, lambda: None)
        tracked = tracked_at(tmp_path / "app.db")
        watch.add(tracked)
        watch._events.extend(Event(tracked.path, Role.JOURNAL, kind) for kind in (Kind.COUNTED, Kind.UNCOUNTED))
        watch.drain()
        assert woken == []
        watch._events.append(Event(tracked.path, Role.JOURNAL, Kind.MODIFY))
        watch.drain()
        assert woken == [tracked]


def test_a_database_that_was_removed_is_not_woken(tmp_path: Path) -> None:
    """The removed database's events belong to no database any more."""
    woken: list[FollowedDatabase] = []
    with InotifyReader() as watcher:
        watch = EventPump(watcher, woken.extend, lambda: None)
        tracked = tracked_at(tmp_path / "app.db")
        watch.add(tracked)
        watch.remove(tracked)
        with wal_database(tracked.path):
            watch.drain()
        assert woken == []


def test_new_names_in_a_folder_of_a_pattern_are_told(tmp_path: Path) -> None:
    """After a new name the patterns are searched again. Folders that are no longer wanted are released."""
    told: list[bool] = []

    def appeared() -> None:
        told.append(True)

    def nobody(_databases: Iterable[Any]) -> None:
        return None

    with InotifyReader() as watcher:
        watch = EventPump(watcher, nobody, appeared)
        assert watch.watch_folders({tmp_path: frozenset({NewNames(str(tmp_path), frozenset({"*.db"}))})})
        for number in range(100):
            (tmp_path / f"etilqs_{number}").touch()
        watch.drain()
        assert not told, "no pattern matches these"
        (tmp_path / "a.db").touch()
        watch.drain()
        assert told
        told.clear()
        wanted = {NewNames(str(tmp_path), frozenset({"*.db"})), NewNames(str(tmp_path), frozenset(), frozenset({"*"}))}
        assert not watch.watch_folders({tmp_path: frozenset(wanted)}), "the folder was watched before"
        (tmp_path / "tenant").mkdir()
        watch.drain()
        assert told
        watch.watch_folders({})
        watch.drain()
        told.clear()
        (tmp_path / "another").mkdir()
        watch.drain()
        assert told == []


@pytest.mark.parametrize("what", ["write", "replace", "remove", "folder"])
def test_another_file_in_a_databases_place_is_told(tmp_path: Path, what: str) -> None:
    """A link may have come, so the paths are resolved again. A write does not cause that."""
    told: list[bool] = []
    path = tmp_path / "data" / "app.db"
    path.parent.mkdir()
    path.write_bytes(b"x")
    (path.parent / "other").touch()
    with InotifyReader() as watcher:
        watch = EventPump(watcher, lambda _databases: None, lambda: told.append(True))
        watch.add(tracked_at(path))
        watch.drain()
        told.clear()
        match what:
            case "write":
                path.write_bytes(b"y")
            case "replace":
                (path.parent / "other").rename(path)
            case "remove":
                path.unlink()
            case _:
                path.parent.rename(tmp_path / "moved")
        watch.drain()
        assert bool(told) is (what != "write")


def test_a_burst_is_of_writes_alone(tmp_path: Path) -> None:
    """Writes to files that are held open can wait in the queue a little. A file that comes or goes can't."""
    with InotifyReader() as watcher:
        watch = EventPump(watcher, lambda _databases: None, lambda: None)
        tracked = tracked_at(tmp_path / "app.db")
        watch.add(tracked)
        with wal_database(tracked.path) as writer:
            assert not watch._take_in(), "-wal and -shm were created"
            writer.execute("INSERT INTO t VALUES (1)")
            assert watch._take_in()
            writer.close()
            assert not watch._take_in(), "they were deleted"
        tracked.wal_pairs.clear()


def test_databases_that_no_events_tell_of_are_looked_at_by_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These databases are beyond the limit of watches.

    The follower knows this, and the log reports it once, with the cause.
    """
    with InotifyReader() as watcher:
        watch = EventPump(watcher, lambda _databases: None, lambda: None)
        monkeypatch.setattr(watcher, "is_watched", lambda _path: False)
        monkeypatch.setattr(watcher, "unwatched", lambda: {tmp_path / "app.db": "no more watches: raise the limit"})
        tracked = tracked_at(tmp_path / "app.db")
        watch.add(tracked)
        assert not tracked.wal_pairs.watched
        with capture_logs() as logs:
            watch._recheck()
            watch._recheck()
    assert [(line["event"], line["count"]) for line in logs] == [("databases_unwatched", 1)]
    assert "raise the limit" in logs[0]["cause"]
