"""Tests of reading ahead while the follower is busy: nothing is missed, and what was only read does not count.

Tests call the thread's ``look`` by hand, so that each interleaving is chosen by a test or drawn by seed.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.following import Following, insert, open_files
from walsyncd.core.limits import Limits
from walsyncd.core.sqlite.wal import Frames
from walsyncd.core.stored.segment import Trailer, decode_body
from walsyncd.engine.follow import copy_frames
from walsyncd.engine.follow.segment_builder import SegmentBuilder, TooLargeError
from walsyncd.engine.follow.source_reader import AheadReader
from walsyncd.engine.follow.step import Batch, Step
from walsyncd.engine.read_ahead.ahead_look import AheadLook, NotReadError
from walsyncd.engine.read_ahead.read_ahead import ReadAhead
from walsyncd.errors import TransientError

CHECKPOINT = "PRAGMA wal_checkpoint"
EVERY_LOOK = Limits(ahead_frames_per_s=1, ahead_window_s=60.0)
"""By this limit no writer is too slow to be read ahead."""


@pytest.fixture
def limits() -> Limits:
    """Return the limits of the follower here."""
    return EVERY_LOOK


@pytest.fixture(autouse=True)
def every_look_begins_a_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a single commit count as a burst."""
    monkeypatch.setattr(copy_frames, "_is_burst", lambda _reader, _count: True)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[AheadLook]:
    """Return the looks that were read ahead and then judged."""
    found: list[AheadLook] = []
    begin = AheadReader.__init__

    def counted(self: AheadReader, *arguments: Any) -> None:
        found.append(arguments[-1])
        begin(self, *arguments)

    monkeypatch.setattr(AheadReader, "__init__", counted)
    return found


def busy(app: SqliteProcess, follow: Following, restarts: int) -> None:
    """Restart the WAL several times while the follower is busy, and read it each time."""
    for restart in range(restarts):
        app.execute(*(insert(100 * restart + number) for number in range(5)))
        follow.environment.read_ahead.look()
        app.execute(CHECKPOINT, *(insert(100 * restart + 50 + number) for number in range(3)))
        follow.environment.read_ahead.look()


def test_restarts_while_the_journal_is_busy(app: SqliteProcess, follow: Following, judged: list[AheadLook]) -> None:
    """The WAL restarts five times between two looks. All of it was read, and is proven afterwards."""
    app.execute(insert(1), insert(2))
    follow.look()
    busy(app, follow, 5)
    step = follow.look()
    assert step.gap is None
    assert step.caught_up
    assert len(step.objects) == 1  # there is one segment, and one transaction of the journal
    assert any(each.after_tail is not None for each in judged)
    follow.proves(app)


def test_without_reading_ahead_they_are_a_gap(app: SqliteProcess, follow: Following) -> None:
    """Nobody else reads what is overwritten, so the test above can fail."""
    app.execute(insert(1), insert(2))
    follow.look()
    follow.tracked.drop_reading()
    busy(app, follow, 5)
    assert follow.look().gap is not None


def test_what_was_only_read_is_lost_with_the_process(app: SqliteProcess, follow: Following) -> None:
    """Neither the journal nor an answer has what was only read. After a kill the state is the last durable one."""
    app.execute(insert(1), insert(2))
    follow.look()
    before, rows = follow.state, follow.restored()
    app.execute(insert(3))
    follow.environment.read_ahead.look()
    assert follow.tracked.reading is not None
    assert follow.tracked.reading.cursor != before.cursor
    assert follow.tracked.state == before
    follow.die()
    follow.restart()
    assert follow.state == before
    assert follow.restored() == rows
    assert not follow.look().gap
    follow.proves(app)


def test_a_look_that_asks_for_more_than_was_read_is_made_again(
    app: SqliteProcess, follow: Following, monkeypatch: pytest.MonkeyPatch, judged: list[AheadLook]
) -> None:
    """What was read ahead is dropped, and the file is read."""
    app.execute(insert(1), insert(2))
    follow.look()
    app.execute(insert(3))
    follow.environment.read_ahead.look()

    def pread(_self: AheadLook, offset: int, length: int) -> bytes:
        raise NotReadError(f"{length} at {offset}")

    monkeypatch.setattr(AheadLook, "pread", pread)
    assert follow.look().gap is None
    assert judged
    follow.proves(app)


def test_a_full_batch_of_looks_read_ahead_has_not_caught_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a client who asked after the reading would get a position without the commits that came in between."""
    path = tmp_path / "app.db"
    monkeypatch.setattr(Batch, "has_room", property(lambda _self: False))
    with wal_database(path) as app, Following(path, tmp_path / "f", limits=EVERY_LOOK).begin() as follow:
        app.execute(insert(1), insert(2))
        follow.look()
        app.execute(insert(3))
        follow.environment.read_ahead.look()
        app.execute(insert(4))
        step = follow.step()
        assert len(follow.restored()) == 4
        assert not step.caught_up
        assert follow.step().caught_up


def test_what_comes_before_a_gap_has_not_caught_up(app: SqliteProcess, follow: Following) -> None:
    """A batch ends before a gap that one of its looks finds. Before the gap, no client is told that all is well."""
    app.execute(insert(1), insert(2))
    follow.look()
    app.execute(insert(3))
    follow.environment.read_ahead.look()
    app.execute(*(insert(number) for number in range(4, 9)))
    app.execute(CHECKPOINT, *(insert(number) for number in range(9, 40)))
    assert not (step := follow.step()).gap
    assert not step.caught_up
    assert follow.step().gap is not None


@pytest.mark.parametrize("new_frames", [-2, -1, 0])
def test_an_old_tail_is_found_after_new_frames(
    app: SqliteProcess, follow: Following, new_frames: int, judged: list[AheadLook]
) -> None:
    """The readings of both incarnations overlap where the new one ends. The one that holds more is used."""
    app.execute("PRAGMA wal_autocheckpoint=0", *(insert(number) for number in range(5)))
    follow.look()
    frames = follow.cursor.frames
    app.execute(insert(5), insert(6), CHECKPOINT, *(insert(7 + number) for number in range(frames + new_frames)))
    follow.environment.read_ahead.look()
    follow.sees_all(app)
    restart = next(each for each in judged if each.after_tail is not None)
    assert restart.index.max_frame == frames + new_frames


@pytest.mark.parametrize("event", ["index_rebuilds", "closed"])
def test_events_after_the_reading_void_its_count(
    app: SqliteProcess, follow: Following, event: str, judged: list[AheadLook]
) -> None:
    """A -shm whose counter may have been reset between two readings does not count across a restart."""
    app.execute(*(insert(number) for number in range(3)))
    follow.look()
    app.execute(insert(20))
    follow.environment.read_ahead.look()
    wal_pair = follow.tracked.wal_pairs.current
    assert wal_pair is not None
    setattr(wal_pair, event, getattr(wal_pair, event) + 1)
    app.execute(CHECKPOINT, *(insert(30 + number) for number in range(3)))
    follow.environment.read_ahead.look()
    steps = [follow.step() for _ in range(2)]
    assert judged
    assert "count" not in {step.proven_by for step in steps}


def test_a_look_read_ahead_is_no_evidence_of_its_own_time(app: SqliteProcess, follow: Following) -> None:
    """Events came since the reading, so it shows neither how far an incarnation had come, nor that a frame still
    exists.
    """
    app.execute(insert(1), insert(2))
    follow.look()
    app.execute(insert(3))
    follow.environment.read_ahead.look()
    wal_pair, reading = follow.tracked.wal_pairs.current, follow.tracked.reading
    assert wal_pair is not None
    assert reading is not None
    ahead = reading.after(follow.cursor)
    assert ahead is not None
    wal_pair.index_reads.forget()
    reader = AheadReader(follow.tracked, follow.environment, wal_pair, Step(), Batch(), ahead)
    reader.index_read(ahead.index)
    assert wal_pair.index_reads.last(followed=True) == ()
    assert not reader.still_holds(follow.cursor)


def commit_times(follow: Following) -> list[int]:
    """Return when each commit of the last segment was seen."""
    last = follow.journal.pending(follow.row_id)[-1]
    trailers = (piece for piece in decode_body([follow.journal.body(last)]) if isinstance(piece, Trailer))
    return [commit.time_ms for trailer in trailers for commit in trailer.commits]


def test_each_look_of_a_batch_has_its_own_time(app: SqliteProcess, follow: Following) -> None:
    """Commits get the time of their reading, in the one segment of several looks."""
    app.execute(insert(1), insert(2))
    follow.look()
    for statements in ([insert(3)], [insert(4)], [insert(5), CHECKPOINT, insert(6)]):
        app.execute(*statements)
        follow.environment.read_ahead.look()
        follow.ahead_ms += 1000
    follow.ahead_ms += 1000
    now_ms = follow.environment.wall_ms()
    follow.look()
    times = commit_times(follow)
    assert len(times) == 4
    rounding_ms = 2
    assert times[0] + 1000 - rounding_ms <= times[1] <= times[2] - 1000 + rounding_ms
    assert times[2] <= times[3] <= now_ms - 1000 + rounding_ms


def test_a_segment_that_was_given_up_voids_the_batch(
    app: SqliteProcess, follow: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction that is too large for the spool is a gap, and nothing of a broken segment is shipped."""
    app.execute(insert(1), insert(2))
    follow.look()
    before = follow.restored()
    app.execute(insert(3))
    follow.environment.read_ahead.look()
    app.execute(CHECKPOINT, insert(4))
    follow.environment.read_ahead.look()
    add, added = SegmentBuilder.add, []

    def add_once(self: SegmentBuilder, frames: Frames, seen: Any) -> None:
        added.append(frames)
        if len(added) > 1:
            raise TooLargeError("too large")
        add(self, frames, seen)

    monkeypatch.setattr(SegmentBuilder, "add", add_once)
    step = follow.step()
    assert len(added) == 2
    assert step.gap is not None
    assert step.objects == ()
    assert follow.restored() == before


def test_an_error_drops_what_was_read(app: SqliteProcess, follow: Following, monkeypatch: pytest.MonkeyPatch) -> None:
    """The looks of a batch are made durable together or not at all. After an error their frames are read again."""
    app.execute(insert(1), insert(2))
    follow.look()
    before = follow.state
    app.execute(insert(3))
    follow.environment.read_ahead.look()

    def failing(*_arguments: object) -> None:
        raise TransientError("the device")

    with monkeypatch.context() as patch:
        patch.setattr(AheadReader, "pread", failing)
        with pytest.raises(TransientError):
            follow.step()
    assert follow.tracked.reading is None
    assert follow.state == before
    assert follow.look().gap is None
    follow.proves(app)


@pytest.mark.parametrize("seed", range(12))
def test_any_interleaving_gives_a_prefix(tmp_path: Path, seed: int) -> None:
    """Commits, spills, restarts, other connections, readings, looks and kills in any order, by seed.

    After each look and each kill, what is durable is a prefix of what was committed. Without a gap it is all of it.
    """
    # otherwise transactions take several looks
    limits = replace(EVERY_LOOK, batch_bytes=3 * 4120) if seed % 2 else EVERY_LOOK
    drawn = random.Random(seed)
    path = tmp_path / "app.db"
    with wal_database(path) as app, Following(path, tmp_path / "f", limits=limits).begin() as follow:
        app.execute("PRAGMA wal_autocheckpoint=0", "PRAGMA cache_size=5")
        follow.look()
        committed = 0
        weights = {"write": 10, "restart": 3, "read": 10, "step": 6, "look": 1, "kill": 0.5}
        for _ in range(60):
            match drawn.choices(list(weights), list(weights.values()))[0]:
                case "write":
                    committed += _write(drawn, app, path, committed + 1)
                case "restart":
                    app.execute(CHECKPOINT)
                case "read":
                    follow.environment.read_ahead.look()
                case "kill":
                    follow.die()
                    follow.restart()
                case kind:
                    step = follow.step() if kind == "step" else follow.look()
                    if step.gap is not None:
                        break
                    assert _is_prefix(follow, committed) == committed or kind == "step"
        _is_prefix(follow, committed)


def _write(drawn: random.Random, app: SqliteProcess, path: Path, first: int) -> int:
    """Write rows that count on from ``first``, in one of four ways. Return how many were committed."""
    match drawn.choices(["commits", "large", "rollback", "other"], [8, 1, 1, 1])[0]:
        case "commits":
            count = drawn.randrange(1, 6)
            app.execute(*(insert(first + number) for number in range(count)))
            return count
        case "large":
            app.execute("INSERT INTO t VALUES " + ",".join(f"({first + number})" for number in range(5000)))
            return 5000
        case "rollback":
            app.execute("BEGIN", *(insert(-1) for _ in range(3)), "ROLLBACK")
            return 0
        case _:
            with SqliteProcess(path) as other:
                other.execute(insert(first))
                other.close()
            return 1


def _is_prefix(follow: Following, committed: int) -> int:
    """Assert that what is durable is the first rows of all, and return how many."""
    rows = [value for (value,) in follow.restored()]
    assert rows == list(range(len(rows)))  # row 0 exists from the beginning
    assert len(rows) - 1 <= committed
    return len(rows) - 1


def test_the_thread_reads_until_it_is_stopped(tmp_path: Path) -> None:
    """The thread sleeps without readings, reads those that begin, and forgets readings that are over."""
    path = tmp_path / "app.db"
    ahead = ReadAhead()
    thread = threading.Thread(target=ahead.run)
    thread.start()
    with wal_database(path) as app, Following(path, tmp_path / "f", limits=EVERY_LOOK).begin() as follow:
        app.execute(insert(1))
        follow.look()
        wal_pair = follow.tracked.wal_pairs.current
        assert wal_pair is not None
        reading = ahead.begin(1, wal_pair, follow.cursor, follow.environment.monotonic_ms)
        app.execute(insert(2))
        _wait_for(lambda: reading.size > 0)
        assert reading.after(follow.cursor) is not None
        app.close()
        _wait_for(lambda: reading.is_over)
    ahead.stop()
    thread.join(30)
    assert not thread.is_alive()


def test_readings_leave_no_descriptors(app: SqliteProcess, follow: Following, tmp_path: Path) -> None:
    """After a hundred bursts, as many descriptors are open as before."""
    app.execute(insert(1))
    follow.look()
    follow.tracked.drop_reading()
    before = open_files(tmp_path)
    for number in range(100):
        app.execute(insert(number))
        follow.environment.read_ahead.look()
        follow.step()
        follow.tracked.drop_reading()
    assert open_files(tmp_path) == before


def _wait_for(is_so: Any) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.001)
