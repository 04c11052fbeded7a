"""Tests of closes of the wal-index, which may be those of killed writers: a young count is believed only if it must be
right.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.follow.test_wal_restart import fill, grown_twice
from tests.engine.following import CHECKPOINT, TRUNCATE, Following, insert
from walsyncd.adapters.files.inotify import Event, Kind
from walsyncd.adapters.files.source import Role
from walsyncd.core.follow.decision import CLOSE_LATE_MS
from walsyncd.engine.follow.source_reader import SourceReader
from walsyncd.engine.follow.step import Step
from walsyncd.engine.follow.wal_pairs import WalPairs


def closes_beside(follow: Following, app: SqliteProcess) -> None:
    """A process uses the database when we look, two commits come after that, and the process closes it."""
    with SqliteProcess(follow.path) as other:
        other.execute("SELECT * FROM t")
        follow.look()
        fill(app, 2, start=2000)
        other.close()


def recovers_two(follow: Following, app: SqliteProcess) -> None:
    assert not follow.look().gap
    assert follow.recovered() == [2]
    assert [step.proven_by for step in follow.steps if step.proven_by] == ["count_tail"]
    follow.proves(app)


def test_a_connection_that_closed_before_another_incarnation_behind(tmp_path: Path) -> None:
    """All that the old incarnation held is before a frame of a third one, so the count can be believed."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, Following(path, tmp_path / "f") as follow:
        grown_twice(app)
        follow.begin()
        closes_beside(follow, app)
        app.execute(CHECKPOINT, insert(1))
        recovers_two(follow, app)


def test_a_connection_that_closed_before_a_checkpoint_that_was_seen(app: SqliteProcess, follow: Following) -> None:
    """After that checkpoint the wal-index showed how far the old incarnation had come, and nothing was copied back
    since.
    """
    fill(app, 10)
    closes_beside(follow, app)
    app.execute(CHECKPOINT)
    follow.watch.drain()
    app.execute(insert(1))
    recovers_two(follow, app)


def test_a_connection_that_closed_and_the_end_of_the_file(app: SqliteProcess, follow: Following) -> None:
    """The file may have been cut right there, so a young counter is not believed."""
    fill(app, 10)
    closes_beside(follow, app)
    app.execute(CHECKPOINT, insert(1))
    follow.finds_gap("where the old one ended can't be seen")


def test_a_connection_that_closed_beside_an_old_counter(tmp_path: Path) -> None:
    """If the count had been rebuilt, there would be no room for the commits that were counted before."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, Following(path, tmp_path / "f") as follow:
        app.execute("PRAGMA synchronous=OFF", "PRAGMA wal_autocheckpoint=100")
        fill(app, 4100)
        follow.begin()
        closes_beside(follow, app)
        assert follow.tracked.evidence.mark is not None
        assert follow.tracked.evidence.mark.ichange > 4062
        app.execute(CHECKPOINT, insert(1))
        recovers_two(follow, app)


def test_a_connection_that_closed_after_our_last_commit(app: SqliteProcess, follow: Following) -> None:
    """Nothing was written to the WAL before the checkpoint, so nothing came after our frame, which is overwritten."""
    follow.look()
    with SqliteProcess(follow.path) as other:
        other.execute("SELECT * FROM t")
        follow.look()
        other.close()
    app.execute(CHECKPOINT)
    fill(app, follow.cursor.frames + 1)
    assert not follow.look().gap
    assert [step.proven_by for step in follow.steps if step.proven_by] == ["count_tail"]
    follow.proves(app)


def tear_header(path: Path) -> None:
    """Make what a writer leaves that is killed between the two copies of the header. The next reader rebuilds it."""
    with torn_header(path):
        pass


@contextmanager
def torn_header(path: Path) -> Iterator[None]:
    """Leave the same torn header for a writer that has lost its locks, and has not closed the wal-index yet."""
    with Path(f"{path}-shm").open("r+b") as file:
        with mmap.mmap(file.fileno(), 136) as shm:
            shm[8] ^= 1
        yield


@pytest.mark.parametrize("more", [0, 3])
def test_a_counter_rebuilt_in_place_is_a_gap(app: SqliteProcess, follow: Following, more: int) -> None:
    """The counter is ``more`` ahead of its old value, but there is no reason to believe the counter."""
    fill(app, 5)
    follow.look()
    assert follow.tracked.evidence.mark is not None
    ichange, index_rebuilds = follow.tracked.evidence.mark.ichange, follow.tracked.evidence.mark.index_rebuilds
    tear_header(follow.path)
    fill(app, ichange + more, start=2000)
    app.execute(CHECKPOINT, insert(1))
    follow.finds_gap("where the old one ended can't be seen")
    assert follow.tracked.wal_pairs.current is not None
    assert follow.tracked.wal_pairs.current.index_rebuilds == index_rebuilds, "no event tells of it"


def test_a_counter_rebuilt_in_place_whose_commits_were_cut_off_is_a_gap(tmp_path: Path) -> None:
    """The journal_size_limit leaves no frame after ours, and the count fits.

    The wal-index was read after a checkpoint and showed nothing after ours, but another checkpoint followed.
    """
    path = tmp_path / "app.db"
    with wal_database(path) as app, SqliteProcess(path) as other, Following(path, tmp_path / "f") as follow:
        app.execute("CREATE TABLE u (x)")
        fill(app, 5)
        other.execute("BEGIN", "SELECT * FROM t")  # this keeps the WAL from restarting
        app.execute(CHECKPOINT)
        follow.begin().look()
        assert follow.tracked.evidence.mark is not None
        ichange, frames = follow.tracked.evidence.mark.ichange, follow.cursor.frames
        app.execute(f"PRAGMA journal_size_limit={32 + frames * (24 + 4096)}")
        tear_header(path)
        app.execute(*(f"INSERT INTO u VALUES ({value})" for value in range(ichange)))
        other.close()
        app.execute(CHECKPOINT, insert(1))
        assert path.with_name("app.db-wal").stat().st_size == 32 + frames * (24 + 4096)
        follow.finds_gap("where the old one ended can't be seen")


def test_a_counter_rebuilt_in_place_whose_commits_were_overwritten_is_a_gap(
    app: SqliteProcess, follow: Following
) -> None:
    """The count fits, and nothing is left that could contradict it."""
    fill(app, 5)
    follow.look()
    assert follow.tracked.evidence.mark is not None
    ichange, frames = follow.tracked.evidence.mark.ichange, follow.cursor.frames
    tear_header(follow.path)
    fill(app, ichange, start=2000)
    app.execute(CHECKPOINT)
    fill(app, frames + ichange + 1, start=3000)
    assert follow.gap()


def test_a_counter_rebuilt_in_place_in_an_incarnation_between_is_a_gap(tmp_path: Path) -> None:
    """The count fits, and our frame still exists with nothing after it.

    Salt 1 shows that everything was lost in between.
    """
    path = tmp_path / "app.db"
    with wal_database(path) as app, SqliteProcess(path) as other, Following(path, tmp_path / "f").begin() as follow:
        app.execute("BEGIN", *("INSERT INTO t VALUES (hex(zeroblob(2000)))" for _ in range(20)), "COMMIT")
        other.execute("SELECT count(*) FROM t")
        follow.look()
        assert follow.tracked.evidence.mark is not None
        ichange = follow.tracked.evidence.mark.ichange
        app.execute(CHECKPOINT)
        fill(app, 1)
        tear_header(path)
        fill(app, ichange, start=2000)
        other.close()
        app.execute(CHECKPOINT, insert(1))
        follow.finds_gap("more than once")


def test_a_killed_writer_whose_close_comes_late_is_a_gap(app: SqliteProcess, follow: Following) -> None:
    """A killed writer's locks are released before its files are closed, so others may have rebuilt the count before
    an event comes.
    """
    fill(app, 5)
    follow.look()
    assert follow.tracked.evidence.mark is not None
    ichange, frames = follow.tracked.evidence.mark.ichange, follow.cursor.frames
    with torn_header(follow.path):
        fill(app, ichange, start=2000)
        app.execute(CHECKPOINT)
        fill(app, frames + ichange + 1, start=3000)
        assert not follow.look().gap
    follow.finds_gap("right after the WAL restarted")


def test_a_killed_writer_whose_close_comes_late_in_a_new_wal_is_a_gap(follow: Following) -> None:
    """The first commit was truncated away, and the rebuilt count fits what came after it."""
    path = follow.path
    follow.look()
    with SqliteProcess(path) as app, SqliteProcess(path) as other:
        app.execute("SELECT * FROM t")
        follow.watch.drain()
        app.execute(insert(1), TRUNCATE)
        with torn_header(path):
            other.execute(insert(2))
            assert not follow.look().gap
        follow.finds_gap("right after the WAL restarted")


@contextmanager
def used_by_two(tmp_path: Path) -> Iterator[tuple[SqliteProcess, SqliteProcess, Following]]:
    """Return an application that commits and was noticed, another one that has the database open, and the follower."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, SqliteProcess(path) as other, Following(path, tmp_path / "f").begin() as follow:
        other.execute("SELECT * FROM t")
        fill(app, 5)
        follow.look()
        yield app, other, follow


def closes_without_a_gap(app: SqliteProcess, other: SqliteProcess, follow: Following) -> None:
    other.close()
    follow.sees_all(app)


def test_a_close_long_after_a_restart(tmp_path: Path) -> None:
    """No process takes that long to die, so the close revokes nothing."""
    with used_by_two(tmp_path) as (app, other, follow):
        app.execute(insert(1), CHECKPOINT, insert(2))
        assert not follow.look().gap
        assert follow.tracked.evidence.provisional is not None
        follow.ahead_ms += CLOSE_LATE_MS
        assert not follow.look().gap
        closes_without_a_gap(app, other, follow)


def test_a_close_that_may_be_among_lost_events_revokes_a_proof(app: SqliteProcess, follow: Following) -> None:
    """It is unknown whether such a close came."""
    fill(app, 5)
    follow.look()
    app.execute(insert(1), CHECKPOINT, insert(2))
    assert not follow.look().gap
    assert follow.tracked.evidence.provisional is not None
    follow.tracked.wal_pairs.note(Event(follow.path, Role.DATABASE, Kind.OVERFLOW))
    follow.finds_gap("right after the WAL restarted")


def test_a_close_while_a_count_is_judged_revokes_the_proof(app: SqliteProcess, follow: Following) -> None:
    """The watcher's thread may read events at any moment of a step."""
    app.execute(insert(1))
    follow.look()
    assert follow.tracked.wal_pairs.current is not None
    reader = SourceReader(follow.tracked, follow.environment, follow.tracked.wal_pairs.current)
    follow.tracked.wal_pairs.note(Event(follow.path, Role.SHM, Kind.CLOSE_WRITE))
    reader.accept_provisionally()
    follow.tracked.apply(Step(evidence=reader.evidence))
    follow.finds_gap("right after the WAL restarted")


def test_a_close_after_a_restart_that_needed_no_provisional_proof(tmp_path: Path) -> None:
    """The restart is proven whether anybody closed or not."""
    with used_by_two(tmp_path) as (app, other, follow):
        app.execute(CHECKPOINT, insert(1))
        assert not follow.look().gap
        closes_without_a_gap(app, other, follow)


def test_a_close_after_an_emptied_wal_began_with_other_salts(tmp_path: Path) -> None:
    """A process that has never checkpointed draws other salts. There was a single look at the empty WAL."""
    with used_by_two(tmp_path) as (app, other, follow):
        app.execute("PRAGMA wal_checkpoint(PASSIVE)")
        follow.watch.drain()
        app.execute(TRUNCATE)
        follow.step()
        emptied = follow.cursor
        assert emptied.header is None
        other.execute(insert(1))
        assert not follow.look().gap
        assert follow.cursor.salts[0] != emptied.salts[0]
        assert follow.tracked.evidence.provisional is None
        closes_without_a_gap(app, other, follow)


@pytest.mark.parametrize("looks", [1, 5])
def test_a_commit_that_an_emptied_wal_was_begun_with_is_not_missed(tmp_path: Path, looks: int) -> None:
    """At the look the commit's frames are there with salts of their own.

    Then its writer is killed, and the count rebuilt.
    """
    path = tmp_path / "app.db"
    with wal_database(path) as app:
        fill(app, 5)
        app.kill()
    with SqliteProcess(path) as app, SqliteProcess(path) as other, Following(path, tmp_path / "f").begin() as follow:
        for each in (app, other):
            each.execute("SELECT * FROM t")  # recovers: the count begins at 0
        follow.look()
        app.execute("PRAGMA wal_checkpoint(PASSIVE)")
        follow.watch.drain()
        app.execute(TRUNCATE)
        with Path(f"{path}-shm").open("r+b") as file, mmap.mmap(file.fileno(), 136) as shm:
            before = shm[:96]
            other.execute(insert(777))
            after, shm[:96] = shm[:96], before  # this is the state while the commit is on its way to the disk
            follow.watch.drain()
            for _ in range(looks):
                follow.step()
            shm[:96] = before[:48] + after[48:]
        other.kill()
        app.execute("SELECT * FROM t", CHECKPOINT, insert(888))
        assert follow.gap()


def test_index_reads_after_writes_to_the_database(tmp_path: Path) -> None:
    """Without a write to the database the wal-index is not read for this.

    Earlier reads are forgotten when events are lost, and a stale wal-index shows nothing.
    """
    path = tmp_path / "app.db"
    wal_pairs = WalPairs(path)
    commit, checkpoint = Event(path, Role.WAL, Kind.MODIFY), Event(path, Role.DATABASE, Kind.MODIFY)

    def shown() -> list[int]:
        return [index.max_frame for index in wal_pairs.queue[-1].index_reads.last(followed=False)]

    with wal_database(path) as app:
        wal_pairs.look_around()
        (before,) = shown()
        app.execute(insert(1))
        wal_pairs.note(commit)
        wal_pairs.index_read()
        assert shown() == [before]
        wal_pairs.note(checkpoint)
        assert shown() == []
        wal_pairs.index_read()
        assert shown() == [before + 1]
        wal_pairs.note(Event(path, Role.DATABASE, Kind.OVERFLOW))
        assert shown() == []
        app.kill()
        wal_pairs.index_read()
        assert shown() == []
    wal_pairs.clear()
