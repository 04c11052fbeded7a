"""Tests of copy_frames: whole transactions become segments, and these have the source's content."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.following import CHECKPOINT, TRUNCATE, Following, insert
from walsyncd.adapters.journal.journal import NewObject
from walsyncd.core.follow.decision import Cursor
from walsyncd.core.follow.follow_state import Stream
from walsyncd.core.follow.gap import GapKind
from walsyncd.core.limits import Limits
from walsyncd.core.stored.epoch import Stamp
from walsyncd.core.stored.segment import decode_body
from walsyncd.engine.follow import copy_frames, source_reader
from walsyncd.engine.follow.begin_generation import has_other_salts
from walsyncd.engine.follow.look import take_step


def test_a_single_commit_becomes_a_segment(app: SqliteProcess, follow: Following) -> None:
    """What was committed before a look is in the state after it, and in a segment."""
    follow.look()
    app.execute(insert(1))
    step = follow.look()
    assert len(step.objects) == 1
    assert step.evidence is not None
    assert step.evidence.mark is not None
    follow.proves(app)


@pytest.mark.usefixtures("app")
def test_a_look_without_news_makes_nothing(follow: Following) -> None:
    """If nothing was committed, nothing is stored."""
    follow.look()
    step = follow.look()
    assert (step.objects, step.state, step.gap) == ((), None, None)


def test_an_uncommitted_transaction_is_not_taken(app: SqliteProcess, follow: Following) -> None:
    """Frames that were spilled before the commit are in the WAL and count as moving, but do not belong to a
    commit yet.
    """
    follow.look()
    before = follow.state.stream.position
    app.execute("PRAGMA cache_size=5", "BEGIN", _many(300))
    step = follow.look()
    assert step.moving
    assert follow.state.stream.position == before
    app.execute("ROLLBACK")
    follow.look()
    assert follow.state.stream.position == before
    app.execute(insert(7))
    follow.sees_all(app)


def test_a_wal_header_that_another_process_writes_anew(tmp_path: Path) -> None:
    """A process that restarts a WAL and rolls back leaves its header.

    The next writer's differs only by its checkpoint sequence.
    """
    path = tmp_path / "app.db"
    checkpoint = CHECKPOINT
    with wal_database(path) as app, SqliteProcess(path) as other, Following(path, tmp_path / "f") as follow:
        other.execute(insert(1), checkpoint, insert(2))
        app.execute(checkpoint, insert(3), checkpoint, insert(4), checkpoint)
        app.execute("PRAGMA cache_size=5", "BEGIN", _many(300))
        follow.begin()
        header, salts = follow.cursor.header, follow.cursor.salts
        app.execute("ROLLBACK")
        other.execute(insert(5))
        assert not follow.look().gap
        assert follow.cursor.salts == salts
        assert follow.cursor.header != header
        follow.proves(other)


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_a_transaction_larger_than_a_batch(tmp_path: Path, end: str) -> None:
    """The transaction is collected over many steps, and becomes one segment or none."""
    path = tmp_path / "app.db"
    with (
        wal_database(path) as app,
        Following(path, tmp_path / "f", limits=Limits(batch_bytes=2 * 4120)).begin() as follow,
    ):
        follow.look()
        app.execute("PRAGMA cache_size=5", "BEGIN", _many(300), end)
        app.execute(insert(8))
        before = len(follow.steps)
        follow.look()
        assert (len(follow.steps) - before > 20) == (end == "COMMIT")
        follow.proves(app)


def test_a_restart_of_the_wal_while_a_large_transaction_is_collected(tmp_path: Path) -> None:
    """What was collected is given up. The rest of the WAL is read again, or is a gap."""
    path = tmp_path / "app.db"
    with (
        wal_database(path) as app,
        Following(path, tmp_path / "f", limits=Limits(batch_bytes=3 * 4120)).begin() as follow,
    ):
        follow.look()
        app.execute("BEGIN", _many(300), "COMMIT")
        for _ in range(5):
            follow.step()
        assert follow.tracked.pending is not None
        app.execute(CHECKPOINT, insert(3))
        step = follow.look()
        assert not step.gap
        follow.proves(app)


@pytest.mark.parametrize("page_size", [512, 65536])
def test_any_page_size(tmp_path: Path, page_size: int) -> None:
    """SQLite's smallest and its largest page size are tried."""
    path = tmp_path / "app.db"
    with SqliteProcess(path) as app:
        app.execute(f"PRAGMA page_size={page_size}", "PRAGMA journal_mode=WAL", "CREATE TABLE t (x)")
        with Following(path, tmp_path / "f").begin() as follow:
            follow.look()
            app.execute(_many(50))
            follow.sees_all(app)


def test_a_full_epoch_is_closed_where_the_wal_restarts(tmp_path: Path) -> None:
    """The epoch continues until the WAL's next restart, so that a base can begin there.

    Each epoch is a WAL of its own.
    """
    path = tmp_path / "app.db"
    with (
        wal_database(path) as app,
        Following(path, tmp_path / "f", limits=Limits(epoch_bytes=10 * 4120)).begin() as follow,
    ):
        for value in range(12):
            app.execute(insert(value))
            follow.look()
        assert follow.state.stream.epoch == 1
        app.execute(CHECKPOINT, insert(100))
        follow.look()
        assert follow.state.stream.epoch == 2
        assert follow.state.start_epoch == 2
        assert follow.state.stream.previous > 0
        assert sorted(follow.epochs()) == [1, 2]
        follow.proves(app)


def test_an_epoch_is_cut_inside_an_incarnation_in_the_end(tmp_path: Path) -> None:
    """A WAL that never restarts does not make an endless epoch. The start stays where the incarnation began."""
    path = tmp_path / "app.db"
    with (
        wal_database(path) as app,
        Following(path, tmp_path / "f", limits=Limits(epoch_bytes=4 * 4120)).begin() as follow,
    ):
        for value in range(40):
            app.execute(insert(value))
            follow.look()
        assert follow.state.stream.epoch == 3
        assert follow.state.start_epoch == 1
        follow.proves(app)


def test_no_epoch_is_closed_while_a_base_is_under_way(tmp_path: Path) -> None:
    """S and N must be in one stored WAL."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, Following(path, tmp_path / "f", limits=Limits(epoch_bytes=4120)).begin() as follow:
        follow.tracked.note_base(under_way=True)
        for value in range(20):
            app.execute(insert(value))
            follow.look()
        assert follow.state.stream.epoch == 1
        follow.tracked.note_base(under_way=False)
        app.execute(insert(20))
        follow.look()
        assert follow.state.stream.epoch == 2
        follow.proves(app)


def test_no_epoch_is_closed_while_a_base_is_wanted(tmp_path: Path) -> None:
    """The base begins in the epoch in which the WAL's incarnation began.

    If that were cut, an idle WAL would get no base.
    """
    path = tmp_path / "app.db"
    with wal_database(path) as app, Following(path, tmp_path / "f", limits=Limits(epoch_bytes=4120)).begin() as follow:
        follow.tracked.note_base(wanted="first generation")
        for value in range(20):
            app.execute(insert(value))
            follow.look()
        assert follow.state.start_epoch == follow.state.stream.epoch == 1
        follow.tracked.note_base(wanted="")
        app.execute(insert(20))
        follow.look()
        assert follow.state.stream.epoch == 2


def test_an_old_epoch_is_closed(app: SqliteProcess, follow: Following) -> None:
    """An old epoch is closed even if it is small, with the next commit after its time."""
    follow.look()
    follow.ahead_ms = follow.limits.epoch_ms * follow.limits.epoch_patience + 1
    app.execute(insert(1))
    follow.look()
    assert follow.state.stream.epoch == 2


def test_times_never_decrease(app: SqliteProcess, follow: Following) -> None:
    """A clock that is set back does not make a commit older than the one before it."""
    follow.look()
    before = follow.state.stream.time_ms
    follow.ahead_ms = -3_600_000
    app.execute(insert(1))
    follow.look()
    assert follow.state.stream.time_ms == before


def test_frames_are_stored_alike_when_a_step_is_lost(app: SqliteProcess, follow: Following) -> None:
    """A crash before the journal's transaction loses nothing: the same frames give the same bytes again."""
    follow.look()
    app.execute(insert(1))
    (lost,) = take_step(follow.tracked, follow.environment).objects
    follow.die()
    (again,) = follow.restart().look().objects
    assert _content(lost) == _content(again)
    follow.proves(app)


def test_salts_of_an_epoch_that_no_frame_has_are_drawn_anew(app: SqliteProcess, follow: Following) -> None:
    """A crash between drawing them and the journal's transaction is harmless, because no frame has them."""
    (lost,) = take_step(follow.tracked, follow.environment).objects
    follow.die()
    (again,) = follow.restart().look().objects
    assert _content(lost) != _content(again)
    follow.proves(app)


def _content(new: NewObject) -> bytes:
    assert isinstance(new.body, bytes)
    return b"".join(piece for piece in decode_body([new.body]) if isinstance(piece, bytes))


def test_another_page_size_is_a_gap() -> None:
    """Frames of two page sizes can't be in one WAL, and do not fit one base."""
    stream = Stream("g", stamp=Stamp(4096, 1, 1, 1, (0, 0)))
    assert copy_frames.why_not_appendable(stream, 4096) is None
    other_size = copy_frames.why_not_appendable(stream, 512)
    assert other_size is not None
    assert (other_size.kind, other_size.facts) == (GapKind.CHANGED, {"before": 4096, "now": 512})
    assert other_size.reason == "the page size changed from 4096 to 512 bytes"
    full = copy_frames.why_not_appendable(Stream("g", frame=copy_frames.EPOCH_FRAMES_MAX), 512)
    assert full is not None
    assert "could not be closed" in full.reason


def test_an_exclusive_writer_is_scanned(tmp_path: Path) -> None:
    """locking_mode=EXCLUSIVE has no wal-index, so commits are found in the WAL itself."""
    path = tmp_path / "app.db"
    with SqliteProcess(path) as app:
        app.execute("PRAGMA locking_mode=EXCLUSIVE", "PRAGMA journal_mode=WAL", "CREATE TABLE t (x)")
        with Following(path, tmp_path / "f").begin() as follow:
            for value in range(5):
                app.execute(insert(value))
                assert not follow.look().gap
            app.execute("PRAGMA cache_size=5", "BEGIN", _many(300))
            assert (follow.look().rest_until_s or 0) > 0
            app.execute("ROLLBACK", insert(6))
            follow.look()
            follow.proves(app)
            assert follow.tracked.evidence.mark is None


def test_a_scan_finds_its_target_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps that copy up to the commit that was found do not search again."""
    searched: list[Cursor] = []
    search = source_reader.SourceReader.last_commit

    def counted(self: source_reader.SourceReader, start: Cursor) -> int:
        searched.append(start)
        return search(self, start)

    monkeypatch.setattr(source_reader.SourceReader, "last_commit", counted)
    path = tmp_path / "app.db"
    with SqliteProcess(path) as app:
        app.execute("PRAGMA locking_mode=EXCLUSIVE", "PRAGMA journal_mode=WAL", "CREATE TABLE t (x)")
        with Following(path, tmp_path / "f", limits=Limits(batch_bytes=3 * 4120)).begin() as follow:
            app.execute(_many(1000))
            assert not follow.look().gap
            assert len(searched) == 1
            follow.proves(app)


def test_frames_that_were_published_without_salts(app: SqliteProcess, follow: Following) -> None:
    """No generation gets past such frames, and the gap's text says so.

    A generation can follow once the WAL has restarted.
    """
    app.execute("PRAGMA cache_size=5", "CREATE INDEX i ON t (x)", "CREATE TABLE u (x)")
    follow.look()
    undone = "INSERT INTO t SELECT randomblob(3000) FROM pragma_function_list LIMIT 14"
    app.execute("BEGIN", insert(1), "SAVEPOINT s", undone, "ROLLBACK TO s", "INSERT INTO u VALUES (1)", "COMMIT")
    step = follow.look()
    if step.gap is None:
        pytest.skip(f"SQLite {sqlite3.sqlite_version} publishes none")
    gap = step.gap
    assert "without salts and checksum" in gap.reason
    assert gap.remedy
    assert gap.blocked == follow.cursor.salts
    app.execute(insert(1), CHECKPOINT)
    assert not has_other_salts(follow.tracked, gap.blocked)
    app.execute(insert(2))
    assert has_other_salts(follow.tracked, gap.blocked)
    app.execute(TRUNCATE)
    assert has_other_salts(follow.tracked, gap.blocked)
    app.close()
    assert has_other_salts(follow.tracked, gap.blocked)


def _many(rows: int) -> str:
    return (
        f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})"
        " INSERT INTO t SELECT hex(zeroblob(900)) || i FROM n"
    )


def test_only_a_burst_is_read_ahead(tmp_path: Path) -> None:
    """Many frames since the last look, from a fast writer, are a burst.

    A large transaction now and then is not a burst.
    """
    path = tmp_path / "app.db"
    with wal_database(path) as app, Following(path, tmp_path / "f").begin() as follow:
        app.execute(insert(1))
        follow.look()
        follow.look()
        app.execute("BEGIN", _many(30_000), "COMMIT")
        follow.ahead_ms += 60_000
        follow.step()
        assert follow.tracked.reading is None
        follow.look()
        app.execute("BEGIN", _many(30_000), "COMMIT")
        follow.ahead_ms -= 60_000  # the clock of this test, in which no time passes
        follow.step()
        assert follow.tracked.reading is not None
