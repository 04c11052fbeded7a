"""Tests of what the child is told to be copied: what is durable or read, up to where the next restart can be proven."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.files.sqlite_process import wal_database
from tests.engine.backpressure.test_backpressure import wanting
from tests.engine.running import Place, running, wait_for
from walsyncd.core.follow.decision import Cursor
from walsyncd.engine.backpressure.backpressure import Backpressure
from walsyncd.engine.backpressure.mark_hold import HoldTarget
from walsyncd.engine.follow.followed_database import FollowedDatabase


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_it_is_not_told_what_could_not_be_counted_across_a_restart(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is kept until a look after the growth of the wal-index, so that the next restart can be proven."""
    told: list[Cursor | None] = []
    withheld: list[bool] = []
    monkeypatch.setattr(Backpressure, "copied", lambda _self, _database_id, cursor, _read: told.append(cursor))
    with wal_database(place.database()) as app, running(wanting(place.settings("app"))) as daemon:
        app.execute("INSERT INTO t VALUES (1)")
        place.sync()

        def grow(tracked: FollowedDatabase) -> None:
            assert tracked.evidence.mark is not None
            assert tracked.wal_pairs.current is not None
            tracked.wal_pairs.current.index_rebuilds += 1
            before = len(told)
            daemon._databases.tell_copied([tracked])
            withheld.append(len(told) == before)
            tracked.wal_pairs.watched = False  # no look could make them countable again
            daemon._databases.tell_copied([tracked])
            tracked.wal_pairs.watched = True
            withheld.append(len(told) == before)
            told.clear()

        daemon.follower.interrupt(daemon.databases[0], grow)
        wait_for(lambda: withheld and told)
    assert withheld == [True, False]


OLD, NEW = (1, 2), (2, 9)
FIRST_BLOCK = 4062  # frames of the first block of a wal-index


def at(salts: tuple[int, int], frames: int) -> Cursor:
    return Cursor(salts, None, frames, (0, 0))


@pytest.mark.parametrize(
    ("durable", "read", "told"),
    [
        (at(NEW, 5), at(NEW, 9), at(NEW, 9)),
        (at(NEW, 0), at(NEW, FIRST_BLOCK), at(NEW, FIRST_BLOCK)),
        # the wal-index grows, and no restart can be proven in the meantime
        (at(NEW, 5), at(NEW, FIRST_BLOCK + 1), None),
        (at(OLD, 5), at(NEW, 9), None),  # the restart before it is not proven yet
        (at(NEW, 9), at(NEW, 5), None),  # the follower read the rest from the file
        (None, at(NEW, 9), None),
    ],
)
def test_what_is_read_counts_as_copied_if_little_of_it_is_to_be_proven(
    tmp_path: Path, durable: Cursor | None, read: Cursor, told: Cursor | None
) -> None:
    """The thread that reads ahead may report it, or the follower together with what is durable."""
    backpressure = Backpressure()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.setblocking(False)
        backpressure.want(1, HoldTarget(tmp_path / "app.db", own_only=False, wal_bytes_max=1 << 28))
        backpressure._channel = ours

        def message() -> tuple[object, int]:
            fields = json.loads(theirs.recv(1000))
            return fields["salts"], fields["frames"]

        def of(cursor: Cursor | None) -> tuple[object, int]:
            return (None, 0) if cursor is None else (list(cursor.salts), cursor.frames)

        backpressure.copied(1, durable)
        assert message() == of(durable)
        backpressure.read(1, read)
        if told is not None:
            assert message() == of(told)
        with pytest.raises(BlockingIOError):
            theirs.recv(1000)
        backpressure.copied(1, durable, read)
        assert message() == of(told or durable)


def test_the_thread_that_reads_ahead_tells_how_far_it_is(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The follower reports the position again with what is durable."""
    told: list[tuple[Any, ...]] = []
    for method in ("read", "copied"):
        monkeypatch.setattr(Backpressure, method, lambda _self, *arguments: told.append(arguments))
    with wal_database(place.database()) as app, running(wanting(place.settings("app"))) as daemon:
        app.execute("INSERT INTO t VALUES (1)")
        place.sync()
        environment = daemon._environment
        done: list[tuple[Any, ...]] = []

        def read(tracked: FollowedDatabase) -> None:
            wal_pair, state = tracked.wal_pairs.current, tracked.state
            assert wal_pair is not None
            assert state is not None
            assert state.cursor is not None
            before = state.cursor
            reading = environment.read_ahead.begin(tracked.row_id, wal_pair, before, environment.monotonic_ms)
            tracked.reading = reading
            app.execute("INSERT INTO t VALUES (2)")
            wait_for(lambda: told[-1] == (tracked.row_id, reading.cursor) and reading.cursor != before)
            daemon._databases.tell_copied([tracked])
            done.append((tracked.row_id, before, reading.cursor))

        daemon.follower.interrupt(daemon.databases[0], read)
        wait_for(lambda: done and done[0] in told)
