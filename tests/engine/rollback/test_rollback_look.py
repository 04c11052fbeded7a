"""Tests of walsyncd.engine.rollback.rollback_look with scans that only note their requests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.following import Following, insert
from walsyncd.adapters.files.inotify import Event
from walsyncd.core.follow.follow_state import FileFacts, FollowState
from walsyncd.core.follow.gap import GapKind
from walsyncd.core.limits import DEFAULT_LIMITS
from walsyncd.engine.follow.file_facts import file_facts
from walsyncd.engine.follow.step import Step
from walsyncd.engine.rollback import rollback_look
from walsyncd.engine.rollback.rollback_look import has_page_size, look_in_rollback_mode


class NotedScans:
    """Scans that note requests, and answer that they are under way."""

    def __init__(self, follow: Following, *, has_map: bool = True) -> None:
        self.follow = follow
        self.map = has_map
        self.known = follow.tracked.wal_pairs.trail.file_events
        self.steps = 0
        self.result: Step | None = None

    def has_map(self) -> bool:
        return self.map

    def is_closing(self) -> bool:
        return False

    def is_known(self, _now: FileFacts, _then: FileFacts) -> bool:
        return self.known == self.follow.tracked.wal_pairs.trail.file_events

    def note_known(self, events: int) -> None:
        self.known = events

    def look(self, state: FollowState) -> Step | None:
        return look_in_rollback_mode(self.follow.tracked, self.follow.environment, state, self)

    def taken(self, _state: FollowState) -> Step | None:
        return self.result

    def step(self, _state: FollowState, file_bytes: int) -> Step:
        assert file_bytes == self.follow.path.stat().st_size
        self.steps += 1
        return Step(again_s=1.0)

    def note(self, _event: Event) -> None:
        pass

    def lose_events(self) -> None:
        pass

    def applied(self, _step: Step) -> None:
        pass

    def drop(self) -> None:
        pass


def scanned(follow: Following, *, has_map: bool = True) -> Any:
    """Give the database such scans."""
    scans: Any = NotedScans(follow, has_map=has_map)
    follow.tracked.scans = scans
    return scans


def test_what_a_scan_found_is_taken_without_a_look_at_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result is of a past moment. The look after the scan sees the present file."""
    path = tmp_path / "app.db"
    with SqliteProcess(path) as app:
        app.execute("CREATE TABLE t (x)")
        with Following(path, tmp_path / "f").begin() as follow:
            scans = scanned(follow)
            scans.result = Step(again_s=7.0)
            monkeypatch.setattr(rollback_look, "database_identity", lambda _tracked: pytest.fail("it was looked at"))
            assert follow.step() == scans.result


def test_a_change_is_scanned_and_an_empty_transaction_is_not(tmp_path: Path) -> None:
    """Only events of the file count, because a transaction that writes nothing touches only its journal."""
    path = tmp_path / "app.db"
    with SqliteProcess(path) as app:
        app.execute("CREATE TABLE t (x)")
        with Following(path, tmp_path / "f").begin() as follow:
            scans = scanned(follow)
            follow.step()
            app.execute("BEGIN IMMEDIATE", "COMMIT")
            assert follow.step().caught_up
            assert not scans.steps
            app.execute(insert(1))
            assert not follow.step().caught_up
            assert scans.steps == 1


def test_an_event_that_comes_after_the_facts_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that looks as before is known up to the events before it was looked at, and no further."""
    path = tmp_path / "app.db"
    with SqliteProcess(path) as app:
        app.execute("CREATE TABLE t (x)")
        with Following(path, tmp_path / "f").begin() as follow:
            scans = scanned(follow)
            follow.step()
            before = follow.tracked.wal_pairs.trail.file_events

            def facts_before_a_commit(*arguments: Any) -> FileFacts:
                facts = file_facts(*arguments)
                app.execute(insert(1))
                return facts

            monkeypatch.setattr(rollback_look, "file_facts", facts_before_a_commit)
            scans.is_known = lambda _now, _then: True
            assert follow.step().caught_up
            assert scans.known == before < follow.tracked.wal_pairs.trail.file_events


def test_without_a_map_a_base_is_wanted(tmp_path: Path) -> None:
    """A base is wanted once for each change, and the position stays, because the base brings the map."""
    path = tmp_path / "app.db"
    with SqliteProcess(path) as app:
        app.execute("CREATE TABLE t (x)")
        with Following(path, tmp_path / "f").begin() as follow:
            scanned(follow, has_map=False)
            follow.step()
            before = follow.state.stream.position
            app.execute(insert(1))
            step = follow.step()
            assert step.base_wanted
            assert step.caught_up
            assert follow.state.stream.position == before
            assert not follow.step().base_wanted


def test_a_wal_ends_the_reading(tmp_path: Path) -> None:
    """Checkpoints put parts of states into the file. The WAL is followed from now on, after a bridge."""
    path = tmp_path / "app.db"
    with SqliteProcess(path) as app:
        app.execute("CREATE TABLE t (x)")
        with Following(path, tmp_path / "f").begin() as follow:
            scanned(follow)
            app.execute("PRAGMA journal_mode=WAL", insert(1))
            step = follow.step()
            assert step.gap is not None
            assert step.gap.kind is GapKind.CHANGED


def test_a_file_whose_page_size_is_not_known_is_copied_whole(tmp_path: Path) -> None:
    """Encryption hides the header."""
    path = tmp_path / "app.db"
    with SqliteProcess(path) as app:
        app.execute("CREATE TABLE t (x)")
        app.close()
    with Following(path, tmp_path / "f").begin() as follow:
        scanned(follow, has_map=False)
        assert has_page_size(follow.tracked)
        position = follow.state.stream.position
        path.write_bytes(bytes(range(256)) * 16)
        step = follow.step()
        assert not has_page_size(follow.tracked)
        assert step.base_wanted
        assert follow.state.stream.position > position


def test_a_lost_map_is_a_gap(tmp_path: Path) -> None:
    """A scan that closes the next base compares only with that base, which says nothing about the frames before it."""
    path = tmp_path / "app.db"
    with SqliteProcess(path) as app:
        app.execute("CREATE TABLE t (x)")
        with Following(path, tmp_path / "f").begin() as follow:
            scanned(follow, has_map=False)
            state = follow.state
            follow.tracked.belief = replace(
                follow.tracked.belief, state=replace(state, stream=replace(state.stream, frame=7))
            )
            step = follow.step()
            assert step.gap is not None
            assert step.gap.kind is GapKind.SPOOL


@pytest.mark.parametrize(("machine_ms", "true_ms"), [(0, -9_000_000), (0, 9_000_000), (-9_000_000, -9_000_000)])
def test_a_look_is_noted_by_the_clock_of_the_file(tmp_path: Path, machine_ms: int, true_ms: int) -> None:
    """The store's clock may differ, or the clock was ahead when the file was written.

    By another clock the file might be looked at until a date far ahead.
    """
    path = tmp_path / "app.db"
    with SqliteProcess(path) as app:
        app.execute("CREATE TABLE t (x)")
        with Following(path, tmp_path / "f").begin() as follow:
            scanned(follow)
            now_ms = path.stat().st_ctime_ns // 1_000_000 + DEFAULT_LIMITS.quiet_file_ms + 1_000
            follow.environment = replace(
                follow.environment, machine_ms=lambda: now_ms + machine_ms, wall_ms=lambda: now_ms + true_ms
            )
            assert follow.step().again_s is None
            assert follow.state.file.known
