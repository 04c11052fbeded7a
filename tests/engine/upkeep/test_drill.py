"""Tests of one drill, without a daemon: what it says of a replica, and what it finds at fault."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import apsw
import pytest

from tests.replicas import ReplicaMaker, make_replica
from walsyncd.adapters.files.source import open_file
from walsyncd.core.follow.follow_state import FileFacts, FollowState, Stream
from walsyncd.core.stored.layout import SegmentKey
from walsyncd.engine.restore.replica import Replica
from walsyncd.engine.upkeep.drill import DamagedReplicaError, NoRoomError, Rehearsal, StoppedError, rehearse


class Follower:
    """A daemon that is at the replica's head, with no WAL left."""

    def __init__(self, maker: ReplicaMaker) -> None:
        at = maker.position
        stream = Stream(at.generation, at.epoch, at.frame)
        self.state: FollowState | None = FollowState(stream, None, at.epoch, at.frame, FileFacts(0, 0, None, ""))
        self.room = 1 << 30
        self.stops_after = 1 << 30
        self.missed = 0

    def gaps(self) -> int:
        return self.missed

    def check(self) -> None:
        self.stops_after -= 1
        if self.is_stopped():
            raise StoppedError

    def is_stopped(self) -> bool:
        return self.stops_after < 0

    def look(self) -> FollowState | None:
        return self.state

    def wait_stored(self) -> bool:
        return True

    def room_bytes(self) -> int:
        return self.room

    def read_shipped(self, _page_size: int, _read: object) -> tuple[FollowState, Any]:
        raise AssertionError("it has a WAL")


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[ReplicaMaker]:
    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(5, rows=20)
        maker.ship(every=2)
        maker.checkpoint()
        yield maker


def drill(maker: ReplicaMaker, live: Path, follower: Follower | None = None) -> Rehearsal:
    replica = Replica(maker.storage, maker.name)
    scratch = maker.path.with_name("scratch.db")
    return rehearse(replica, maker.generation, lambda: open_file(live), scratch, follower or Follower(maker))


def copy_of(maker: ReplicaMaker, *, page: int = 0) -> Path:
    """Copy the live file away from its application. One of its pages is damaged."""
    live = maker.path.with_name("live.db")
    shutil.copy(maker.path, live)
    if page:
        with live.open("r+b") as file:
            file.seek((page - 1) * maker.page_size)
            file.write(b"x" * 200)
    return live


def test_sound_replica_passes(maker: ReplicaMaker) -> None:
    """The result says what was compared, and which base that proves."""
    done = drill(maker, copy_of(maker))
    assert (done.problem, done.position) == ("", maker.position)
    assert done.detail.endswith("pages compared with the live file; integrity_check: ok")
    assert (maker.root / maker.name / done.manifest_key).exists()


def test_page_that_differs_is_the_replicas_fault(maker: ReplicaMaker) -> None:
    """No frame explains the difference."""
    done = drill(maker, copy_of(maker, page=4))
    assert (done.problem.partition(" from ")[0], done.is_replicas) == ("1 page differs", True)


def test_page_written_meanwhile_is_explained(maker: ReplicaMaker) -> None:
    """The live file is ahead of what was restored.

    Pages in frames after the restored position do not count as different.
    """
    follower, state = Follower(maker), Follower(maker).state
    assert state is not None
    reached = maker.position
    maker.commit(1)
    behind = copy_of(maker)
    (key,) = maker.ship()
    kept = maker.object_path(key).read_bytes()
    maker.remove(key)
    maker.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(maker.path, behind)

    def look() -> FollowState:
        """Return what a look sees. The first look comes before that commit, the second after it."""
        if maker.object_path(key).exists():
            return replace(state, stream=replace(state.stream, frame=key.last))
        maker.object_path(key).write_bytes(kept)
        return state

    follower.look = look  # type: ignore[method-assign]
    done = drill(maker, behind, follower)
    assert (done.problem, done.position) == ("", reached)
    assert "more were written meanwhile" in done.detail


def test_damaged_database_is_not_the_replicas_fault(maker: ReplicaMaker) -> None:
    """Both files are equal, and SQLite finds them damaged."""
    root = maker.connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 't'").fetchone()[0]
    with maker.path.open("r+b") as file:
        file.seek((root - 1) * maker.page_size)
        file.write(bytes(100))
    maker.close_epoch()  # the frames still hold the page as it was
    maker.base()
    done = drill(maker, copy_of(maker))
    assert done.problem.endswith("the database itself is damaged, and the replica holds what it is")
    assert not done.is_replicas


def test_a_gap_meanwhile_explains_what_no_frame_does(maker: ReplicaMaker) -> None:
    """A page was written in the gap, and written back before the bridge, so the bridge does not hold the page."""
    follower = Follower(maker)
    state = follower.state

    def look() -> FollowState | None:
        """The second look finds that commits were missed, and a bridge was made of them."""
        follower.missed += len(looks) > 0
        looks.append(1)
        return state

    looks: list[int] = []
    follower.look = look  # type: ignore[method-assign]
    done = drill(maker, copy_of(maker, page=4), follower)
    assert (done.problem, "commits were missed meanwhile" in done.detail) == ("", True)


def test_what_cannot_be_compared_is_said(maker: ReplicaMaker) -> None:
    """Without a live file, or with another history, there is only SQLite's verdict."""
    follower = Follower(maker)
    assert "it is not there" in drill(maker, maker.path.with_name("nothing.db"), follower).detail
    follower.state = None
    done = drill(maker, copy_of(maker, page=4), follower)
    assert (done.problem, "its history ended meanwhile" in done.detail) == ("", True)


def test_lost_segment_is_damage(maker: ReplicaMaker) -> None:
    """No other object replaces it, and the head can't be restored."""
    listed = [each.key for each in Replica(maker.storage, maker.name).objects(maker.generation)]
    maker.remove(next(key for key in listed if isinstance(key, SegmentKey)))
    with pytest.raises(DamagedReplicaError, match="missing in epoch"):
        drill(maker, copy_of(maker))


def test_no_room_and_no_time(maker: ReplicaMaker) -> None:
    """Neither lack says anything about the replica."""
    follower = Follower(maker)
    follower.room = 100
    with pytest.raises(NoRoomError, match="100 can be spared"):
        drill(maker, copy_of(maker), follower)
    for steps in range(4):
        follower = Follower(maker)
        follower.stops_after = steps
        with pytest.raises(StoppedError):
            drill(maker, copy_of(maker), follower)


class Encrypted:
    """A connection of SQLite3 Multiple Ciphers that answers like sqlite3's, as far as the maker needs it."""

    def __init__(self, path: Path, cipher: str) -> None:
        self._connection = apsw.Connection(str(path))
        for statement in (f"PRAGMA cipher = '{cipher}'", "PRAGMA key = 'secret'", "PRAGMA page_size = 4096"):
            self.execute(statement)

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        return list(self._connection.execute(statement))

    def close(self) -> None:
        self._connection.close()


@pytest.mark.parametrize("harm", ["none", "page that a frame holds", "page that no frame holds"])
@pytest.mark.parametrize("cipher", ["chacha20", "sqlcipher", "ascon128", "aegis", "aes256cbc", "aes128cbc", "rc4"])
def test_encrypted_databases_raise_no_false_alarm(tmp_path: Path, cipher: str, harm: str) -> None:
    """No alarm comes even if each checkpoint encrypts the pages again. Other differences are found as usual."""
    with closing(Encrypted(tmp_path / "app.db", cipher)) as connection:
        for statement in (
            "PRAGMA journal_mode = WAL",
            "PRAGMA wal_autocheckpoint = 0",
            "CREATE TABLE old (payload BLOB)",
            "INSERT INTO old SELECT randomblob(300) FROM json_each('[" + ",".join(["1"] * 200) + "]')",
            "CREATE TABLE counter (value INTEGER)",
            "INSERT INTO counter VALUES (0)",
            "CREATE TABLE t (id INTEGER PRIMARY KEY, payload BLOB)",
            "PRAGMA wal_checkpoint(TRUNCATE)",
        ):
            connection.execute(statement)
        maker = ReplicaMaker(tmp_path, cast("sqlite3.Connection", connection), 4096, "srv/app.db")
        maker.base()
        maker.commit(5, rows=20)
        maker.ship(every=2)
        maker.checkpoint()
        page = {"none": 0, "page that a frame holds": 20, "page that no frame holds": 4}[harm]
        done = drill(maker, copy_of(maker, page=page))
    encrypts_again = cipher in {"chacha20", "sqlcipher", "ascon128", "aegis"}
    if harm == "none":
        assert done.problem == ""
        assert ("encrypts again at each checkpoint" in done.detail) == encrypts_again
    elif harm == "page that no frame holds" or not encrypts_again:
        assert "differ" in done.problem
