"""Tests of walsyncd.engine.follow.source_reader: what is read of a database's files, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.following import CHECKPOINT, TRUNCATE, Following, insert
from walsyncd.adapters.files.inotify import Event, Kind
from walsyncd.adapters.files.source import Role
from walsyncd.core.follow.decision import Cursor, DmsHolder
from walsyncd.core.limits import Limits
from walsyncd.engine.follow.source_reader import SourceReader


def eyes_of(follow: Following) -> SourceReader:
    wal_pair = follow.tracked.wal_pairs.current
    assert wal_pair is not None
    return SourceReader(follow.tracked, follow.environment, wal_pair)


@pytest.mark.usefixtures("app")
def test_a_live_database(follow: Following) -> None:
    """Holder, wal-index and WAL header are those of one incarnation."""
    seen = eyes_of(follow).observe()
    assert seen.holder is DmsHolder.LIVE
    assert seen.index is not None
    assert seen.wal is not None
    assert seen.index.salts == seen.wal.salts
    assert seen.wal_bytes == seen.wal.offset_of(seen.index.max_frame + 1)


def test_a_killed_writer_leaves_a_stale_index(app: SqliteProcess, follow: Following) -> None:
    """Nobody uses the stale wal-index, so what it says does not count."""
    app.kill()
    seen = eyes_of(follow).observe()
    assert (seen.holder, seen.index) == (DmsHolder.NONE, None)


def test_between_the_two_deletions_of_a_last_close(app: SqliteProcess, follow: Following) -> None:
    """The -shm is gone and the -wal still exists.

    Nothing is believed or scanned, because uncommitted frames could be taken.
    """
    follow.look()
    app.kill()
    follow.path.with_name("app.db-shm").unlink()
    seen = eyes_of(follow).observe()
    assert seen.holder is DmsHolder.LEAVING
    assert seen.index is None
    assert follow.step().is_shortly


def test_the_queue_is_drained_before_anything_is_believed(app: SqliteProcess, follow: Following) -> None:
    """An event that came before the headers were read is noted when the observation is complete."""
    follow.look()
    reader = eyes_of(follow)
    app.close()
    reader.observe()
    assert reader.wal_pair.orderly


@pytest.mark.usefixtures("app")
def test_a_wal_index_whose_creation_was_not_seen(follow: Following) -> None:
    """The reader searches for such a wal-index, so that a live WAL is never scanned."""
    wal_pair = follow.tracked.wal_pairs.current
    assert wal_pair is not None
    assert wal_pair.shm is not None
    wal_pair.shm.close()
    wal_pair.shm = None
    assert eyes_of(follow).observe().holder is DmsHolder.LIVE


@pytest.mark.parametrize("kind", [Kind.MODIFY, Kind.CLOSE_WRITE])
@pytest.mark.usefixtures("app")
def test_a_mark_needs_a_quiet_index(follow: Following, kind: Kind) -> None:
    """If an event comes during a look, the look makes no mark, and the next look makes one."""
    reader = eyes_of(follow)
    assert reader.new_mark(5) is not None
    follow.tracked.wal_pairs.note(Event(follow.path, Role.SHM, kind))
    assert reader.new_mark(5) is None
    assert eyes_of(follow).new_mark(5) is not None


@pytest.mark.usefixtures("app")
def test_a_mark_holds_until_an_event(follow: Following) -> None:
    """Events are counted from the mark on, in whichever look they come."""
    follow.look()
    index = eyes_of(follow).observe().index
    assert eyes_of(follow).counter_evidence().holds(index)
    follow.tracked.wal_pairs.note(Event(follow.path, Role.SHM, Kind.MODIFY))
    assert not eyes_of(follow).counter_evidence().holds(index)


def test_batches(tmp_path: Path) -> None:
    """A run comes in pieces of limited size that continue each other, and stops at the requested frame."""
    path = tmp_path / "app.db"
    with (
        wal_database(path) as app,
        Following(path, tmp_path / "f", limits=Limits(batch_bytes=2 * 4120)).begin() as follow,
    ):
        app.execute(*(insert(value) for value in range(5)))
        start = follow.cursor
        pieces = list(eyes_of(follow).run(start, None))
        assert [piece.first for piece in pieces] == list(range(1, pieces[-1].first + 1, 2))
        assert eyes_of(follow).last_commit(start) == pieces[-1].last
        assert [piece.count for piece in eyes_of(follow).run(start, 3)] == [2, 1]


def test_what_moves(app: SqliteProcess, follow: Following) -> None:
    """The WAL moves if there are frames after the cursor, or if its header is not the one before the cursor's
    incarnation.
    """
    follow.look()
    assert not eyes_of(follow).is_moving(follow.cursor)
    salt1, salt2 = follow.cursor.salts
    app.execute(insert(1))
    assert eyes_of(follow).is_moving(follow.cursor)
    announced = Cursor((salt1 + 1, 7), None, 0, (0, 0))
    assert not eyes_of(follow).is_moving(announced)
    assert eyes_of(follow).is_moving(Cursor((salt1, salt2), None, 0, (0, 0)))
    assert eyes_of(follow).is_moving(None)
    app.execute(TRUNCATE)
    assert not eyes_of(follow).is_moving(announced)
    assert not eyes_of(follow).is_moving(None)


@pytest.mark.usefixtures("app")
def test_frames_without_salts_move(follow: Following) -> None:
    """SQLite may still publish such frames, so a look that comes a moment before must be repeated."""
    follow.look()
    with follow.path.with_name("app.db-wal").open("ab") as wal:
        wal.write(bytes(24 + 4096))
    assert eyes_of(follow).is_moving(follow.cursor)


def test_our_last_frame_is_still_there(app: SqliteProcess, follow: Following) -> None:
    """Our last frame is identified by its salts and its checksum."""
    follow.look()
    cursor = follow.cursor
    assert eyes_of(follow).still_holds(cursor)
    app.execute(CHECKPOINT, *(insert(value) for value in range(cursor.frames)))
    assert not eyes_of(follow).still_holds(cursor)
