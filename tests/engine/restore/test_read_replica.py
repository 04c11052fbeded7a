"""Tests of a copy that follows: readers see commits of the source, whatever happens to the process that writes it."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.replicas import NEXT_GENERATION, ReplicaMaker, counter_in, damage, make_replica
from walsyncd.adapters.files.target import follow_path
from walsyncd.core.stored.layout import format_key
from walsyncd.engine.restore.read_replica import FollowLimits, ReadReplica
from walsyncd.engine.restore.replica import Replica
from walsyncd.engine.restore.restorer import RestoreOptions
from walsyncd.errors import CorruptError, RefusedError, UsageError

WAIT_S = 120


DEFAULTS = FollowLimits()


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[ReplicaMaker]:
    with make_replica(tmp_path) as made:
        made.base()
        made.commit(2)
        made.ship()
        yield made


@contextmanager
def following(
    maker: ReplicaMaker, path: Path, *, force: bool = False, limits: FollowLimits = DEFAULTS
) -> Iterator[ReadReplica]:
    read_replica = ReadReplica(Replica(maker.storage, maker.name), path, RestoreOptions(force=force), limits)
    try:
        yield read_replica
    finally:
        read_replica.close()


def content(path: Path) -> tuple[int, int]:
    """Return the counter and the number of rows, as a reader sees them."""
    with closing(sqlite3.connect(path)) as connection:
        found: tuple[int, int] = connection.execute("SELECT (SELECT value FROM counter), count(*) FROM t").fetchone()
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    return found


@pytest.mark.parametrize("compacted", [False, True])
def test_copy_crosses_bridges(maker: ReplicaMaker, tmp_path: Path, *, compacted: bool) -> None:
    """For readers a bridge is one transaction, in a segment and at the beginning of a whole."""
    out = tmp_path / "copy.db"
    with following(maker, out) as read_replica:
        for lost in (1, 5):
            bridge = maker.bridge(lost=lost)
            if compacted:
                maker.commit()
                more = maker.ship()
                maker.close_epoch()
                maker.compact()
                for key in (bridge, *more):
                    maker.remove(key)
            moved = read_replica.look()
            assert moved is not None
            assert (moved.point.position, moved.rebuilt) == (maker.history[-1].position, "")
            assert content(out)[0] == maker.history[-1].counter


def test_copy_reaches_every_commit_that_is_stored(maker: ReplicaMaker, tmp_path: Path) -> None:
    """The copy follows segment by segment, across epochs and wholes, and when the database shrinks."""
    out = tmp_path / "copy.db"
    with following(maker, out) as read_replica:
        assert read_replica.look() is None
        for step in range(6):
            maker.commit(3, rows=1 + 40 * step)
            if step == 3:
                maker.connection.execute("DELETE FROM t WHERE id % 7")
                maker.connection.execute("VACUUM")
            keys = maker.ship(every=2)
            if step % 2:
                maker.close_epoch()
                maker.compact()
                for key in keys:
                    maker.remove(key)
            moved = read_replica.look()
            assert moved is not None
            assert moved.point.position.epoch == keys[-1].epoch
            assert content(out) == content(maker.path)
        assert read_replica.look() is None
    assert counter_in(out) == 20
    maker.checkpoint()
    with closing(sqlite3.connect(maker.path)) as one, closing(sqlite3.connect(out)) as other:
        assert list(one.iterdump()) == list(other.iterdump())


def test_what_is_damaged_is_taken_from_what_else_holds_it(maker: ReplicaMaker, tmp_path: Path) -> None:
    """For example, the segments of which a damaged whole was made are used."""
    out = tmp_path / "copy.db"
    with following(maker, out) as read_replica:
        maker.commit(6)
        maker.ship(every=2)
        maker.close_epoch()
        damage(maker.object_path(maker.compact()))
        assert read_replica.look() is None
        assert read_replica.look() is not None
        assert content(out) == content(maker.path)


def test_what_nothing_else_holds_is_an_error(maker: ReplicaMaker, tmp_path: Path) -> None:
    """The error names the object, and readers keep what they had."""
    out = tmp_path / "copy.db"
    with following(maker, out) as read_replica:
        before = content(out)
        maker.commit(6)
        (segment,) = maker.ship()
        damage(maker.object_path(segment))
        with pytest.raises(CorruptError, match=format_key(segment)):
            read_replica.look()
        assert content(out) == before


def test_reader_keeps_its_snapshot(maker: ReplicaMaker, tmp_path: Path) -> None:
    """An open transaction still sees the same, and the next one sees the update.

    Reader and follower do not wait for each other.
    """
    out = tmp_path / "copy.db"
    with (
        following(maker, out) as read_replica,
        closing(sqlite3.connect(out, isolation_level=None, timeout=0)) as reader,
    ):
        reader.execute("BEGIN")
        before = reader.execute("SELECT value FROM counter").fetchone()
        for _ in range(3):
            maker.commit(5, rows=20)
            maker.ship()
            assert read_replica.look()
            assert reader.execute("SELECT value FROM counter").fetchone() == before
        reader.execute("COMMIT")
        assert reader.execute("SELECT value FROM counter").fetchone() == (17,)
        assert reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_wal_of_the_copy_is_emptied(tmp_path: Path) -> None:
    """The WAL does not grow for ever, and begins again with other salts. Thousands of frames need more index blocks."""
    out = tmp_path / "copy.db"
    sizes = []
    with make_replica(tmp_path, page_size=512) as maker:
        maker.base()
        with following(maker, out, limits=FollowLimits(wal_bytes_max=5 << 20)) as read_replica:
            for _ in range(3):
                maker.commit(1, rows=6000)
                maker.ship()
                assert read_replica.look()
                assert content(out) == content(maker.path)
                sizes.append(Path(f"{out}-wal").stat().st_size)
                maker.commit(1)
                maker.ship()
                assert read_replica.look()
                assert content(out) == content(maker.path)
    assert 0 in sizes
    assert max(sizes) > 4062 * 536


def test_stopped_copy_goes_on_where_it_was(maker: ReplicaMaker, tmp_path: Path) -> None:
    """Nothing is restored again. Objects before the copy's position may be deleted."""
    out = tmp_path / "copy.db"
    with following(maker, out) as read_replica:
        maker.close_epoch()
        maker.commit(3)
        maker.ship()
        assert read_replica.look()
        assert read_replica.look() is None
    for path in sorted(maker.folder.rglob("*")):
        if path.is_file() and ("/base/" in str(path) or "/wal/00000001/" in str(path)):
            path.unlink()
    with following(maker, out) as read_replica:
        # the last transaction is applied again, because it might not have been whole
        assert read_replica.look() is not None
        maker.commit(4)
        maker.ship()
        assert read_replica.look()
    assert counter_in(out) == 9


def test_new_generation_is_taken_over_without_replacing_the_file(maker: ReplicaMaker, tmp_path: Path) -> None:
    """The copy takes it over as soon as it has a base. Readers that have the file open see one transaction."""
    out = tmp_path / "copy.db"
    with following(maker, out) as read_replica, closing(sqlite3.connect(out, isolation_level=None)) as reader:
        maker.begin_generation(NEXT_GENERATION)
        maker.commit(2, rows=300)
        maker.ship()
        assert read_replica.look() is None
        maker.base()
        moved = read_replica.look()
        assert moved is not None
        assert NEXT_GENERATION in moved.rebuilt
        assert reader.execute("SELECT value FROM counter").fetchone() == (4,)
        assert reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        maker.commit()
        maker.ship()
        assert read_replica.look()
        assert reader.execute("SELECT value FROM counter").fetchone() == (5,)
    assert not list(tmp_path.glob(".*next*"))


def test_hole_that_stays_is_gone_around(maker: ReplicaMaker, tmp_path: Path) -> None:
    """The copy waits for a missing segment, and then takes a later base."""
    out = tmp_path / "copy.db"
    with following(maker, out, limits=FollowLimits(holes_max=2)) as read_replica:
        maker.commit(4)
        keys = maker.ship(every=2)
        maker.remove(keys[0])
        maker.commit(1)
        maker.base()
        assert [read_replica.look() for _ in range(2)] == [None, None]
        moved = read_replica.look()
        assert moved is not None
        assert "missing" in moved.rebuilt
    assert counter_in(out) == 7


def test_copy_that_others_wrote_to_is_not_written_to(maker: ReplicaMaker, tmp_path: Path) -> None:
    """The copy can't contain both the changes of others and the source's."""
    out = tmp_path / "copy.db"
    with following(maker, out) as read_replica, closing(sqlite3.connect(out, isolation_level=None)) as other:
        other.execute("UPDATE counter SET value = 99")
        maker.commit()
        maker.ship()
        with pytest.raises(RefusedError, match="another process has written"):
            read_replica.look()
        assert other.execute("SELECT value FROM counter").fetchone() == (99,)


def test_copy_of_something_else_is_refused(maker: ReplicaMaker, tmp_path: Path) -> None:
    """A file that exists and follows nothing, or follows another replica, needs force."""
    out = tmp_path / "copy.db"
    with following(maker, out):
        pass
    point = follow_path(out)
    point.write_text(point.read_text().replace("srv", "other"))
    with pytest.raises(UsageError, match="it follows"), following(maker, out):
        pass
    point.unlink()
    with pytest.raises(UsageError, match="exists"), following(maker, out):
        pass
    with following(maker, out, force=True):
        pass
    assert counter_in(out) == 2


READER = """
import sqlite3, sys
last = checks = 0
connection = None
print("ready", flush=True)
while not sys.stdin.closed:
    if connection is None or checks % 50 == 0:
        if connection: connection.close()
        connection = sqlite3.connect("file:{path}?mode=rw", uri=True, isolation_level=None, timeout=30)
    connection.execute("BEGIN")
    counter, = connection.execute("SELECT value FROM counter").fetchone()
    rows, = connection.execute("SELECT count(*) FROM t").fetchone()
    verdict = connection.execute("PRAGMA integrity_check").fetchall()
    connection.execute("COMMIT")
    if verdict != [("ok",)] or rows != 3 * counter or counter < last:
        print("WRONG", verdict, rows, counter, last, flush=True)
        sys.exit(1)
    last, checks = counter, checks + 1
    if counter >= {goal}:
        print("done", checks, flush=True)
        sys.exit(0)
"""

FOLLOWER = """
import sys, time
from pathlib import Path
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.engine.restore import read_replica
from walsyncd.engine.restore.replica import Replica
from walsyncd.engine.restore.restorer import RestoreOptions
replica = Replica(DirectoryStorage(Path("{root}")), "{name}")
limits = read_replica.FollowLimits(wal_bytes_max=100_000)
follower = read_replica.ReadReplica(replica, Path("{path}"), RestoreOptions(), limits)
print("following", flush=True)
while True:
    follower.look()
    time.sleep(0.002)
"""


@pytest.mark.slow
@pytest.mark.timeout(300)  # seconds: nine processes, one after the other, on a machine that may be busy
def test_readers_see_only_commits_while_the_follower_is_killed_again_and_again(tmp_path: Path) -> None:
    """Three processes read and check without pause. Every state is one of the source's, and no later state is older."""
    goal = 30
    out = tmp_path / "copy.db"
    source = random.Random(4)
    with make_replica(tmp_path) as maker:
        maker.commit(1, rows=3)
        maker.ship()
        maker.base()
        follower = FOLLOWER.format(root=maker.root, name=maker.name, path=out)
        with running(follower, "following") as process:
            readers = [start(READER.format(path=out, goal=goal), "ready") for _ in range(3)]
            process.kill()
        try:
            while maker.history[-1].counter < goal:
                with running(follower, "following") as process:
                    for _ in range(source.randrange(2, 9)):
                        maker.commit(source.randrange(1, 5), rows=3)
                        maker.ship(every=source.randrange(1, 4))
                        if source.random() < 0.2:
                            maker.close_epoch()
                        time.sleep(source.random() * 0.03)
                    process.kill()
            with running(follower, "following"):
                told = [reader.communicate(timeout=WAIT_S)[0] for reader in readers]
        finally:
            for reader in readers:
                reader.kill()
                reader.wait()
    assert [reader.returncode for reader in readers] == [0, 0, 0], told
    assert counter_in(out) >= goal


@contextmanager
def running(program: str, first_line: str) -> Iterator[subprocess.Popen[str]]:
    """Run a Python program that has printed its first line. It is killed at the end."""
    process = start(program, first_line)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def start(program: str, first_line: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == f"{first_line}\n"
    return process
