"""Tests of what happens between two reads of one look: the order in which things are read is part of the proof."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.following import CHECKPOINT, Following, insert, rows
from tests.engine.running import Place, running
from walsyncd.core.follow.decision import Cursor
from walsyncd.core.follow.first_wal import FirstDecision, FirstSeen, Search
from walsyncd.core.sqlite.walindex import parse_index_header
from walsyncd.core.stored.layout import ManifestKey, parse_key
from walsyncd.core.stored.position import Position
from walsyncd.engine.base.base_copy import BaseCopy
from walsyncd.engine.follow import new_wal, source_reader
from walsyncd.engine.follow.source_reader import SourceReader


def test_an_event_while_the_headers_are_read_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wal-index is rebuilt while it is read. The queue, which is drained afterwards, has the event."""
    path = tmp_path / "app.db"
    with wal_database(path), Following(path, tmp_path / "f").begin() as follow:
        follow.look()
        wal_pair = follow.tracked.wal_pairs.current
        assert wal_pair is not None
        before = wal_pair.index_rebuilds

        def parse_while_it_changes(data: bytes) -> Any:
            with Path(f"{path}-shm").open("r+b") as shm:
                shm.write(data[:1])
            return parse_index_header(data)

        monkeypatch.setattr(source_reader, "parse_index_header", parse_while_it_changes)
        SourceReader(follow.tracked, follow.environment, wal_pair).observe()
        assert wal_pair.index_rebuilds > before


def test_a_restart_under_a_copy_is_no_rewritten_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The WAL restarts between header and frames, over what was to be read. The gap is reported as what it is."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, Following(path, tmp_path / "f").begin() as follow:
        follow.look()
        frame = follow.cursor.frames
        app.execute(insert(1))
        read = SourceReader.read

        def read_too_late(self: SourceReader, *arguments: Any) -> Any:
            monkeypatch.undo()
            app.execute(CHECKPOINT, *(insert(10 + number) for number in range(frame + 1)))
            return read(self, *arguments)

        monkeypatch.setattr(SourceReader, "read", read_too_late)
        assert follow.gap() == f"1 transactions after frame {frame} of the WAL were overwritten before they were read"


def test_new_frames_that_pass_ours_while_the_tail_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The point that the new incarnation had reached after the reading counts, and not an earlier point."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, Following(path, tmp_path / "f").begin() as follow:
        app.execute(*(insert(number) for number in range(10)))
        follow.look()
        frame = follow.cursor.frames
        app.execute(insert(20), insert(21), CHECKPOINT, insert(22))
        observe = SourceReader.observe_after_tail

        def observe_late(self: SourceReader) -> Any:
            app.execute(*(insert(30 + number) for number in range(frame)))
            return observe(self)

        monkeypatch.setattr(SourceReader, "observe_after_tail", observe_late)
        assert follow.gap().startswith(f"the WAL's new frames reached frame {frame + 1} ")


def test_the_old_tail_is_read_before_anything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New frames pass the old tail while the new incarnation is counted, but the tail was read before."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, Following(path, tmp_path / "f").begin() as follow:
        app.execute(*(insert(number) for number in range(10)))
        follow.look()
        frame = follow.cursor.frames
        app.execute(insert(20), insert(21), CHECKPOINT, insert(22))
        run = SourceReader.run

        def run_slowly(self: SourceReader, start: Cursor, last: int | None) -> Any:
            if not start.frames:
                monkeypatch.undo()
                app.execute(*(insert(30 + number) for number in range(frame)))
            return run(self, start, last)

        monkeypatch.setattr(SourceReader, "run", run_slowly)
        step = follow.look()
        assert not step.gap
        assert any(each.recovered == 2 for each in follow.steps)
        follow.proves(app)


def test_a_restart_while_new_frames_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The frames that were published are overwritten then, which is no rewritten history. The look is repeated."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, Following(path, tmp_path / "f").begin() as follow:
        app.execute(*(insert(number) for number in range(10)))
        follow.look()
        frame = follow.cursor.frames
        app.execute(CHECKPOINT, insert(20))
        run = SourceReader.run

        def run_too_late(self: SourceReader, start: Cursor, last: int | None) -> Any:
            if not start.frames:
                monkeypatch.undo()
                app.execute(CHECKPOINT, insert(30))
            return run(self, start, last)

        monkeypatch.setattr(SourceReader, "run", run_too_late)
        assert follow.gap() == f"1 transactions after frame {frame} of the WAL were overwritten before they were read"


def test_a_commit_and_a_last_close_during_an_idle_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look has read that nothing is new, and then learns that the WAL is gone. The WAL is first read to its end."""
    path = tmp_path / "app.db"
    app = wal_database(path)
    with app, Following(path, tmp_path / "f").begin() as follow:
        follow.look()
        holds = SourceReader.holds

        def hold_while_it_ends(self: SourceReader, cursor: Cursor) -> bool:
            monkeypatch.undo()
            is_held = holds(self, cursor)
            app.execute(insert(1))
            app.close()
            self.environment.drain()
            return is_held

        monkeypatch.setattr(SourceReader, "holds", hold_while_it_ends)
        assert not follow.look().gap
        assert follow.restored() == rows(path)


def test_a_first_commit_and_a_last_close_during_a_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new WAL was empty and unused, and then it is gone. In between it held a commit."""
    path = tmp_path / "app.db"
    app = wal_database(path)
    with app, Following(path, tmp_path / "f").begin() as follow:
        follow.look()
        app.close()
        follow.look()
        with SqliteProcess(path) as killed:
            killed.execute("SELECT * FROM t")
            killed.kill()
        search = new_wal._search

        def search_while_it_ends(reader: SourceReader, first: FirstSeen, wanted: Search) -> FirstDecision:
            monkeypatch.undo()
            with SqliteProcess(path) as other:
                other.execute(insert(1))
                other.close()
            reader.environment.drain()
            return search(reader, first, wanted)

        monkeypatch.setattr(new_wal, "_search", search_while_it_ends)
        assert not follow.look().gap
        assert follow.restored() == rows(path)


def test_an_exclusive_writer_that_closes(tmp_path: Path) -> None:
    """There is no wal-index.

    The events show that SQLite deleted the WAL, and the WAL's chain shows what was committed.
    """
    path = tmp_path / "app.db"
    app = SqliteProcess(path)
    app.execute("PRAGMA locking_mode=EXCLUSIVE", "PRAGMA journal_mode=WAL", "CREATE TABLE t (x)", insert(1))
    with app, Following(path, tmp_path / "f").begin() as follow:
        follow.look()
        app.execute(insert(2))
        assert not follow.look().gap
        app.execute(insert(3))
        app.close()
        assert not follow.look().gap
        with SqliteProcess(path) as other:
            follow.proves(other)


def test_a_wal_that_was_removed_beside_an_exclusive_writer(tmp_path: Path) -> None:
    """No process had closed the WAL before, so SQLite did not remove it."""
    path = tmp_path / "app.db"
    app = SqliteProcess(path)
    app.execute("PRAGMA locking_mode=EXCLUSIVE", "PRAGMA journal_mode=WAL", "CREATE TABLE t (x)", insert(1))
    with app, Following(path, tmp_path / "f").begin() as follow:
        follow.look()
        app.kill()
        path.with_name("app.db-wal").unlink()
        assert (
            follow.gap() == "the WAL was deleted, and no wal-index was seen to tell its last commits from failed ones"
        )


def test_a_commit_after_the_last_byte_of_a_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """N is looked for after the copy is complete, so it comes after what was committed meanwhile."""
    place = Place(tmp_path)
    with wal_database(place.database()) as app:
        run = BaseCopy.run

        def run_and_commit(self: BaseCopy) -> Any:
            finished = run(self)
            app.execute(insert(1))
            return finished

        monkeypatch.setattr(BaseCopy, "run", run_and_commit)
        with running(place.settings("app")):
            position = place.sync()
            key = parse_key(place.row().base_key or "")
    assert isinstance(key, ManifestKey)
    assert str(Position(key.generation, key.epoch, key.frame)) == position
