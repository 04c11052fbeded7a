"""Tests of walsyncd.engine.content.page_maps: file and redo rows are the map, whenever the process dies.

A power cut may lose, tear or reorder everything that was written to the file since its last fsync.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes import Deaths, Killed
from tests.shipping import G1, segment
from walsyncd.adapters.journal.journal import Advance, Journal, ObjectRow
from walsyncd.core.content.redo import SIZE_MAX, Redo, apply
from walsyncd.core.stored.position import Position
from walsyncd.engine.content.page_maps import PageMaps

PAGES = 1200


class UnsafeFile:
    """Records what is written to a page map and may be lost, with a point of death before and after each call."""

    def __init__(self, deaths: Deaths, patch: pytest.MonkeyPatch) -> None:
        self.deaths = deaths
        self._writes: list[tuple[bytes | None, int]] = []
        self._safe = b""
        self._path: Path | None = None
        for name in ("pwrite", "ftruncate", "fsync"):
            patch.setattr(os, name, self._watched(name, getattr(os, name)))

    def watch(self, path: Path) -> None:
        self._path, self._safe, self._writes = path, path.read_bytes(), []

    def _is_ours(self, descriptor: int) -> bool:
        return self._path is not None and os.fstat(descriptor).st_ino == self._path.stat().st_ino

    def _watched(self, name: str, call: Callable[..., object]) -> Callable[..., object]:
        def watched(descriptor: int, *arguments: object) -> object:
            if not self._is_ours(descriptor):
                return call(descriptor, *arguments)
            self.deaths.point()
            result = call(descriptor, *arguments)
            match name, arguments:
                case "pwrite", (data, int(offset)):
                    self._writes.append((bytes(data), offset))  # type: ignore[call-overload]
                case "ftruncate", (int(length),):
                    self._writes.append((None, length))
                case _:
                    assert self._path is not None
                    self._safe, self._writes = self._path.read_bytes(), []
            self.deaths.point()
            return result

        return watched

    def cut(self, seed: int) -> None:
        """Make the file what is found after a power cut now."""
        if self._path is None:
            return
        chance = random.Random(seed)
        content = bytearray(self._safe)
        writes = [write for write in self._writes if chance.random() < 0.6]
        chance.shuffle(writes)
        for data, at in writes:
            if data is None:
                del content[at:]
                continue
            torn = data[: chance.choice([len(data), chance.randint(0, len(data) // 8) * 8])]
            content.extend(bytes(max(0, at + len(torn) - len(content))))
            content[at : at + len(torn)] = torn
        self._path.write_bytes(content)


class Life:
    """One database, its journal and its map, through deaths. ``history`` is what each segment changed."""

    def __init__(self, folder: Path, seed: int, file: UnsafeFile) -> None:
        self.chance = random.Random(seed)
        self.folder = folder
        self.file = file
        self.journal = Journal.open(folder)
        self.journal.database("app", "/srv/app.db")
        self.journal.begin_generation(1, G1, "first", "0", 0)
        self.made = np.arange(2, PAGES + 2, dtype=np.uint64)
        self.history: list[Redo] = []
        maps = PageMaps(self.journal)
        with maps.writer(1, 4096) as writer:
            writer.add(self.made)
            writer.finish(PAGES)
            assert self.journal.page_map_made(1, G1, writer.map_id, 4096, Position(G1, 1, 0))
        file.watch(folder / "maps" / "1.map")

    def step(self) -> None:
        journal, maps = self.journal, PageMaps(self.journal)
        match self.chance.choice(["commit", "commit", "store", "write", "write", "rewind"]):
            case "commit":
                self.commit()
            case "store" if waiting := journal.pending(1):
                journal.stored(waiting[0].id, now_ms=1, tokens=1.0)
            case "write":
                maps.write(1)
            case "rewind" if waiting := journal.pending(1):
                journal.rewind(self.chance.choice(waiting[:1]))
        self.file.deaths.point()

    def commit(self) -> None:
        frame = int(self.journal.database_by_id(1).follow or "0") + 1
        pages = sorted(self.chance.sample(range(1, PAGES + 1), self.chance.choice([1, 5, 60])))
        size_min = self.chance.choice([SIZE_MAX, self.chance.randint(1, PAGES)])
        size = max(pages[-1], size_min if size_min != SIZE_MAX else PAGES)
        entries = [self.chance.randint(2, 2**62) for _ in pages]
        redo = Redo(np.array(pages, np.uint32), np.array(entries, np.uint64), size_min, size)
        self.history[frame - 1 :] = [redo]
        new = replace(segment(frame, frame), redo=redo)
        self.journal.advance([Advance(1, str(frame), (new,))])

    def die(self, seed: int) -> None:
        self.journal.close()
        self.file.deaths.is_dead = False
        self.file.deaths.at = None
        self.file.cut(seed)
        self.file.watch(self.folder / "maps" / "1.map")
        self.journal = Journal.open(self.folder)

    def check(self) -> None:
        """Assert that the map is what the segments up to the journal's position make of the first one."""
        expected = self.made
        for redo in self.history[: int(self.journal.database_by_id(1).follow or "0")]:
            expected = apply(redo, expected, 1)
        page_map = PageMaps(self.journal).open(1)
        assert page_map is not None
        with page_map:
            assert page_map.entries(1, PAGES).tolist() == expected.tolist()


@pytest.mark.parametrize("seed", range(60))
def test_whenever_it_dies(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each life ends at another point: before and after each write, fsync and transaction."""
    deaths = Deaths()
    file = UnsafeFile(deaths, monkeypatch)
    life = Life(tmp_path, seed, file)
    for number in range(12):
        deaths.passed, deaths.at = 0, random.Random(f"{seed} {number}").randint(1, 25)
        try:
            for _ in range(30):
                life.step()
        except Killed:
            pass
        life.die(seed + number)
        life.check()
    life.journal.close()


def rows_of(journal: Journal) -> list[ObjectRow]:
    return journal.pending(1)


def test_only_what_is_stored_reaches_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a spool is dropped, the map must not be ahead of the replica."""
    life = Life(tmp_path, 1, UnsafeFile(Deaths(), monkeypatch))
    for _ in range(4):
        life.commit()
    life.journal.stored(rows_of(life.journal)[0].id, now_ms=1, tokens=1.0)
    assert PageMaps(life.journal).write(1) == 1
    assert PageMaps(life.journal).write(1) == 0
    assert life.journal.rewind(rows_of(life.journal)[0])
    life.check()
    life.journal.close()


@pytest.mark.parametrize("how", ["gone", "torn", "older", "foreign"])
def test_a_file_of_another_history_is_no_map(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a file counts as lost and is made again. An older copy of the state directory's file is refused."""
    life = Life(tmp_path, 1, UnsafeFile(Deaths(), monkeypatch))
    path = tmp_path / "maps" / "1.map"
    older = path.read_bytes()
    for _ in range(2):
        life.commit()
        life.journal.stored(rows_of(life.journal)[0].id, now_ms=1, tokens=1.0)
        PageMaps(life.journal).write(1)
    match how:
        case "gone":
            path.unlink()
        case "torn":
            path.write_bytes(path.read_bytes()[:20])
        case "older":
            path.write_bytes(older)
        case _:
            with PageMaps(life.journal).writer(1, 4096) as writer:
                writer.finish(0)
    maps = PageMaps(life.journal)
    assert maps.open(1) is None
    assert life.journal.page_map(1) is None
    maps.sweep()
    assert list((tmp_path / "maps").iterdir()) == []
    life.journal.close()


def test_maps_are_written_when_much_is_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps are not written for each segment."""
    life = Life(tmp_path, 1, UnsafeFile(Deaths(), monkeypatch))
    life.commit()
    life.journal.stored(rows_of(life.journal)[0].id, now_ms=1, tokens=1.0)
    PageMaps(life.journal).write_due()
    assert len(life.journal.redo_rows(1)) == 1
    PageMaps(life.journal, redo_bytes=12).write_due()
    assert life.journal.redo_rows(1) == []
    life.check()
    life.journal.close()


def test_a_map_that_is_opened_often_is_written_before_many_rows_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit in rollback mode opens it, and would read the rows of all commits before. What is not stored stays."""
    life = Life(tmp_path, 1, UnsafeFile(Deaths(), monkeypatch))
    maps = PageMaps(life.journal, redo_rows=3)
    for _ in range(3):
        life.commit()
    for row in rows_of(life.journal)[:2]:
        life.journal.stored(row.id, now_ms=1, tokens=1.0)
    life.check()
    assert len(life.journal.redo_rows(1)) == 3
    maps.held.add(1)
    _opened(maps)
    assert len(life.journal.redo_rows(1)) == 3, "a scrub needs them"
    maps.held.clear()
    _opened(maps)
    assert len(life.journal.redo_rows(1)) == 1
    life.check()
    _opened(maps)
    assert len(life.journal.redo_rows(1)) == 1
    life.journal.close()


def _opened(maps: PageMaps) -> None:
    page_map = maps.open(1)
    assert page_map is not None
    page_map.close()


def peeked(maps: PageMaps) -> list[int] | None:
    page_map = maps.peek(1)
    if page_map is None:
        return None
    with page_map:
        return [int(entry) for entry in page_map.entries(1, PAGES)]


@pytest.mark.parametrize("seed", range(8))
def test_another_thread_sees_the_same_map_while_the_file_takes_rows_over(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other thread has read the rows before, so the file says the same of each page afterwards."""
    life = Life(tmp_path, seed, UnsafeFile(Deaths(), monkeypatch))
    for _ in range(4):
        life.commit()
    for row in rows_of(life.journal)[: seed % 4]:
        life.journal.stored(row.id, now_ms=1, tokens=1.0)
    maps = PageMaps(life.journal)
    expected = peeked(maps)
    page_map = maps.peek(1)
    assert page_map is not None
    with page_map:
        assert maps.write(1) == seed % 4
        assert page_map.entries(1, PAGES).tolist() == expected == peeked(maps)
    life.check()
    life.journal.close()


def test_another_thread_leaves_a_map_with_many_rows_to_the_scan_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scan thread writes the file."""
    life = Life(tmp_path, 1, UnsafeFile(Deaths(), monkeypatch))
    maps = PageMaps(life.journal, redo_rows=2)
    life.commit()
    assert peeked(maps) is not None
    life.commit()
    assert peeked(maps) is None
    life.check()
    life.journal.close()


@pytest.mark.parametrize("how", ["gone", "torn", "older"])
def test_another_thread_does_not_judge_a_map(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks wrong in the map may be a write that is under way."""
    life = Life(tmp_path, 1, UnsafeFile(Deaths(), monkeypatch))
    path, maps = tmp_path / "maps" / "1.map", PageMaps(life.journal)
    older = path.read_bytes()
    for _ in range(2):
        life.commit()
        life.journal.stored(rows_of(life.journal)[0].id, now_ms=1, tokens=1.0)
        maps.write(1)
    match how:
        case "gone":
            path.unlink()
        case "torn":
            path.write_bytes(path.read_bytes()[:20])
        case _:
            path.write_bytes(older)
    assert maps.peek(1) is None
    assert life.journal.page_map(1) is not None
    life.journal.close()


def test_a_map_that_is_made_meanwhile_is_not_mixed_with_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new map's rows do not belong to the file that is open."""
    life = Life(tmp_path, 1, UnsafeFile(Deaths(), monkeypatch))
    life.commit()
    maps, redo_rows = PageMaps(life.journal), life.journal.redo_rows

    def make_another(database_id: int) -> Any:
        with maps.writer(database_id, 4096) as writer:
            writer.add(np.arange(100, PAGES + 100, dtype=np.uint64))
            writer.finish(PAGES)
            assert life.journal.page_map_made(1, G1, writer.map_id, 4096, Position(G1, 1, 1))
        return redo_rows(database_id)

    monkeypatch.setattr(life.journal, "redo_rows", make_another)
    assert maps.peek(1) is None
    monkeypatch.setattr(life.journal, "redo_rows", redo_rows)
    assert peeked(maps) == list(range(100, PAGES + 100))
    life.journal.close()
