"""Tests of walsyncd.engine.read_ahead.reading: what is read, in which order, and when it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.following import Following, insert, open_files
from walsyncd.core.follow.decision import Cursor
from walsyncd.core.limits import DEFAULT_LIMITS, Limits
from walsyncd.core.sqlite.wal import read_frames
from walsyncd.engine.read_ahead import reading as module
from walsyncd.engine.read_ahead.ahead_look import AheadLook
from walsyncd.engine.read_ahead.reading import Reading, ShownIndex
from walsyncd.file_calls import ThreadAbandonedError

ROOM = 64 << 20
CHECKPOINT = "PRAGMA wal_checkpoint"


@contextmanager
def begun(tmp_path: Path, limits: Limits = DEFAULT_LIMITS) -> Iterator[tuple[SqliteProcess, Following, Reading]]:
    """Return an application, a follower that has caught up, and a reading that begins there."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, Following(path, tmp_path / "f").begin() as follow:
        app.execute(*(insert(number) for number in range(10)))
        follow.look()
        wal_pair = follow.tracked.wal_pairs.current
        assert wal_pair is not None
        reading = Reading(wal_pair, follow.cursor, follow.environment.monotonic_ms, limits)
        yield app, follow, reading
        reading.drop()


def frames_of(look: AheadLook, cursor: Cursor) -> int:
    """Return how many verified frames after ``cursor`` the look holds."""
    assert cursor.header is not None
    offset = cursor.header.offset_of(cursor.frames + 1)
    return read_frames(look.pread(offset, ROOM), cursor.header, first=cursor.frames + 1, start=cursor.chain).count


def test_new_frames_are_read_once(tmp_path: Path) -> None:
    """Several looks in one incarnation are returned as one."""
    with begun(tmp_path) as (app, follow, reading):
        for number in range(1, 4):
            app.execute(insert(20 + number), insert(30 + number))
            assert reading.look(ROOM)
            assert reading.look(ROOM)
            assert reading.cursor.frames == follow.cursor.frames + 2 * number
        look = reading.after(follow.cursor)
        assert look is not None
        assert frames_of(look, follow.cursor) == 6
        assert reading.size == 0
        end = follow.cursor.advanced(follow.cursor.frames + 6, (0, 0))
        assert reading.after(end) is None


def shown_after(reading: Reading) -> ShownIndex | None:
    """Return what one more look shows."""
    assert reading.look(ROOM)
    return reading.shown


def test_what_the_wal_index_showed_and_whether_it_goes_on(tmp_path: Path) -> None:
    """If frames were read, ``shown`` has the wal-index's header, and whether frames follow.

    After a restart ``shown`` is None.
    """
    with begun(tmp_path) as (app, _, reading):
        assert shown_after(reading) is None
        for spill in (False, True):
            app.execute(insert(20))
            if spill:
                app.execute("PRAGMA cache_size=1", "BEGIN", "INSERT INTO t VALUES (randomblob(90000))")
            shown = shown_after(reading)
            assert shown is not None
            assert shown.header.max_frame == reading.cursor.frames
            assert shown.goes_on is spill
        app.execute("ROLLBACK", CHECKPOINT, insert(21))
        assert shown_after(reading) is None


def test_a_wal_index_that_was_read_before_shows_whether_there_is_anything_new(tmp_path: Path) -> None:
    """If the wal-index shows nothing new, nothing more is read.

    If it shows something new, everything is read at once.
    """
    with begun(tmp_path) as (app, _, reading):
        wal_pair = reading.wal_pair
        assert wal_pair.shm is not None
        app.execute(insert(20))
        reading.look(ROOM)
        old = wal_pair.shm.pread(0, 136)
        frames = reading.cursor.frames
        app.execute(insert(21))
        assert reading.look(ROOM, old)
        assert reading.cursor.frames == frames
        changed = wal_pair.shm.pread(0, 136)
        app.execute(insert(22))
        assert reading.look(ROOM, changed)
        assert reading.cursor.frames > frames + 1


def test_a_part_that_was_judged_is_not_returned_again(tmp_path: Path) -> None:
    """Only the rest of what was read is returned. After the end of the reading nothing is returned."""
    with begun(tmp_path) as (app, follow, reading):
        app.execute(insert(20), insert(21), insert(22))
        reading.look(ROOM)
        within = follow.cursor.advanced(follow.cursor.frames + 1, (0, 0))
        assert reading.after(within) is not None
        assert reading.after(follow.cursor.advanced(follow.cursor.frames + 3, (0, 0))) is None


def test_the_old_tail_is_read_at_a_restart(tmp_path: Path) -> None:
    """The reading has what the old incarnation still held, the new one's frames, and headers from before and after."""
    with begun(tmp_path) as (app, follow, reading):
        app.execute(insert(20), insert(21), CHECKPOINT, insert(22))
        assert reading.look(ROOM)
        app.execute(*(insert(30 + number) for number in range(20)))  # this overwrites the tail
        look = reading.after(follow.cursor)
        assert look is not None
        assert frames_of(look, follow.cursor) == 2
        assert look.after_tail is not None
        assert look.index.salts != follow.cursor.salts
        assert look.index.max_frame == 1


def test_a_restart_during_the_reading_voids_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read may belong to both incarnations. The next look reads what is left of the old one."""
    with begun(tmp_path) as (app, follow, reading):
        app.execute(insert(20))
        observe = Reading._observe
        observed = []

        def observe_late(self: Reading) -> object:
            observed.append(self)
            if len(observed) == 2:
                app.execute(CHECKPOINT, insert(21))
            return observe(self)

        monkeypatch.setattr(Reading, "_observe", observe_late)
        assert reading.look(ROOM)
        assert reading.after(follow.cursor) is None
        assert reading.look(ROOM)
        look = reading.after(follow.cursor)
        assert look is not None
        assert frames_of(look, follow.cursor) == 1


def test_without_room_nothing_is_read_and_nothing_is_lost(tmp_path: Path) -> None:
    """The reading waits until the follower has taken some of what was read."""
    with begun(tmp_path) as (app, follow, reading):
        app.execute(insert(20), insert(21))
        assert reading.look(1000)
        assert reading.size == 0
        assert reading.look(ROOM)
        assert reading.size > 0
        assert reading.after(follow.cursor) is not None


def test_more_than_one_look_may_hold_is_left_to_the_follower(tmp_path: Path) -> None:
    """A WAL that has grown that much is read from the file, because such a WAL does not restart soon."""
    with begun(tmp_path, Limits(ahead_look_bytes=5000)) as (app, follow, reading):
        app.execute(insert(20), insert(21))
        assert not reading.look(ROOM)
        assert reading.is_over
        assert reading.after(follow.cursor) is None


def test_it_ends_when_nobody_uses_the_wal_index(tmp_path: Path) -> None:
    """After the last close, or beside a killed process's wal-index, the follower's own rules apply."""
    with begun(tmp_path) as (app, _, reading):
        app.execute(insert(20))
        app.kill()
        assert not reading.look(ROOM)


def test_it_ends_when_the_wal_index_is_another_one(tmp_path: Path) -> None:
    """The new wal-index may have another counter, too."""
    with begun(tmp_path) as (app, follow, reading):
        app.execute(insert(20))
        reading.wal_pair.serial += 1  # type: ignore[misc]
        assert not reading.look(ROOM)
        assert reading.after(follow.cursor) is None


def test_it_ends_where_the_writer_is_slow(tmp_path: Path) -> None:
    """A database at rest costs nothing, and one with a few commits a second as much as without reading ahead."""
    with begun(tmp_path, Limits(ahead_window_s=0.0)) as (app, _, reading):
        app.execute(insert(20))
        assert not reading.look(ROOM)


def test_fast_writers_are_looked_at_more_often(tmp_path: Path) -> None:
    """Fast writers are looked at eight times in the life of a WAL, at intervals of one to eight milliseconds."""
    with begun(tmp_path) as (app, _, reading):
        assert reading.pause_s == module.LOOK_S_MAX
        reading._window_frames = int(50_000 * DEFAULT_LIMITS.ahead_window_s)
        assert reading.pause_s == pytest.approx(1000 / 8 / 50_000)
        reading._window_frames = int(1_000_000 * DEFAULT_LIMITS.ahead_window_s)
        assert reading.pause_s == module.LOOK_S
        app.execute(CHECKPOINT, insert(20))
        reading.look(ROOM)
        assert reading._wal_frames < 20


def test_what_is_read_may_rest_while_nothing_but_writes_happens(tmp_path: Path) -> None:
    """After an event that voids evidence what was read is judged at once for some seconds."""
    with begun(tmp_path) as (app, follow, reading):
        app.execute(insert(20))
        assert reading.look(ROOM)
        assert reading.rest_s == DEFAULT_LIMITS.ahead_rest_s
        with SqliteProcess(follow.path) as other:
            other.execute("SELECT count(*) FROM t")
        app.execute(insert(21))
        follow.environment.drain()
        assert reading.rest_s == 0.0
        assert reading.look(ROOM)
        assert (reading.rest_s, reading.is_over) == (0.0, False)
        reading._stirred_s -= module.CALM_S
        assert reading.rest_s > 0.0


def test_what_is_read_rests_for_no_more_than_some_megabytes(tmp_path: Path) -> None:
    """The faster the writer is, and the more waits already, the sooner the follower takes it."""
    with begun(tmp_path, Limits(ahead_rest_bytes=9000, ahead_rest_s=3600.0)) as (app, _, reading):
        slow_s = reading.rest_s
        reading._frames_per_s = 100_000.0
        assert 0 < reading.rest_s < slow_s < 3600
        app.execute(insert(20), insert(21))
        assert reading.look(ROOM)
        assert reading.size > 9000
        assert reading.rest_s == 0.0


def test_what_is_not_read_any_more_does_not_rest(tmp_path: Path) -> None:
    """After the end of a reading the follower has to read on."""
    with begun(tmp_path) as (_, _, reading):
        assert reading.rest_s
        reading.drop()
        assert reading.rest_s == 0.0


def test_it_holds_its_descriptors_until_it_is_dropped(tmp_path: Path) -> None:
    """The follower may close its WAL pair at any time, and no other file may get the number of a descriptor in use."""
    with begun(tmp_path) as (app, follow, reading):
        before = open_files(tmp_path)
        app.execute(insert(20))
        follow.tracked.wal_pairs.clear()
        assert reading.look(ROOM)
        assert reading.after(follow.cursor) is not None
        reading.drop()
        reading.drop()
        assert open_files(tmp_path) == before - 2
        assert not reading.look(ROOM)
        assert reading.after(follow.cursor) is None


def test_a_thread_that_was_given_up_leaves_no_descriptor_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reading was dropped while the thread's call hung, and the call returns later."""
    with begun(tmp_path) as (app, follow, reading):

        def hang(_self: Reading) -> object:
            follow.tracked.wal_pairs.clear()
            reading.drop()
            raise ThreadAbandonedError("read")

        app.execute(insert(20))
        monkeypatch.setattr(Reading, "_observe", hang)
        with pytest.raises(ThreadAbandonedError):
            reading.look(ROOM)
        assert not open_files(follow.path)


def test_dropping_it_does_not_wait_for_a_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system may hang. The look closes the descriptors when it returns, and what it read is forgotten."""
    with begun(tmp_path) as (app, follow, reading):
        app.execute(insert(20))
        observe = Reading._observe

        def observe_while_it_is_dropped(self: Reading) -> object:
            monkeypatch.undo()
            reading.drop()
            assert not reading.is_over
            return observe(self)

        monkeypatch.setattr(Reading, "_observe", observe_while_it_is_dropped)
        assert not reading.look(ROOM)
        assert reading.is_over
        assert reading.after(follow.cursor) is None


def test_a_fault_ends_the_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise no new reading would begin, because the follower would assume that this one continues."""
    with begun(tmp_path) as (app, _, reading):
        app.execute(insert(20))

        def failing(*_arguments: object) -> None:
            raise ValueError("a bug")

        monkeypatch.setattr(Reading, "_observe", failing)
        with pytest.raises(ValueError, match="a bug"):
            reading.look(ROOM)
        assert reading.is_over
