"""Tests of maps that are made together: each is durable before the journal names it, and none waits in vain."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.shipping import G1, G2
from walsyncd.adapters.journal.journal import Journal
from walsyncd.adapters.journal.page_map_file import PageMapWriter
from walsyncd.adapters.journal.page_map_table import NewPageMap
from walsyncd.core.content.page_entry import entries_of_pages
from walsyncd.core.stored.position import Position
from walsyncd.engine.content.map_sealing import SEAL_S, MapSealing, UnsealedMap
from walsyncd.engine.content.page_maps import PageMaps
from walsyncd.engine.content.scan_queue import ScanSteps
from walsyncd.errors import StateError, TransientError

PAGE_SIZE = 512
COUNT = 3


class Sealing:
    """The journal of some databases, and their maps. ``now_s`` is the time."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.now_s = 1000.0
        self.maps = PageMaps(journal)
        self.sealing = MapSealing(journal, lambda: self.now_s)
        self.made: list[UnsealedMap] = []
        self.steps: list[ScanSteps] = []
        for number in range(1, COUNT + 1):
            row = journal.database(f"app-{number}", f"/srv/{number}.db")
            journal.begin_generation(row.id, G1, "first", "{}", 0)
            writer = self.maps.writer(row.id, PAGE_SIZE, suffix=".base-1")
            writer.add(entries_of_pages(bytes([number]) * PAGE_SIZE * number, PAGE_SIZE))
            new = NewPageMap(row.id, G1, writer.map_id, PAGE_SIZE, Position(G1, 1, 0))
            self.made.append(UnsealedMap(new, writer, number))
            self.steps.append(self.sealing.seal(self.made[-1]))

    def go_on(self, number: int) -> bool:
        """Take the next step of a map. Return whether it waits."""
        wait = next(self.steps[number - 1], None)
        return wait is not None and wait.until_s == self.now_s + SEAL_S

    def sizes(self) -> dict[int, int]:
        """Return the databases that have a map, and its size on the disk."""
        found = {}
        for number in range(1, COUNT + 1):
            if (page_map := self.maps.open(number)) is not None:
                with page_map:
                    found[number] = next(size for size in range(COUNT + 1) if not page_map.has_more(size))
        return found


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Sealing]:
    with Journal.open(tmp_path) as journal:
        three = Sealing(journal)
        yield three
        for each in three.made:
            each.writer.close()


def test_one_alone_is_made_at_once(three: Sealing) -> None:
    """A map that comes long after another one is made at once, too."""
    assert not three.go_on(1)
    three.now_s += SEAL_S
    assert not three.go_on(2)
    assert three.sizes() == {1: 1, 2: 2}


def test_those_that_follow_are_made_together(three: Sealing, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are durable before their names, and the names before the journal has them, in one transaction for
    all maps.
    """
    assert not three.go_on(1)
    assert [three.go_on(2), three.go_on(3)] == [True, True]
    assert three.sizes() == {1: 1}
    did: list[str] = []
    fsync, rename, noted = os.fsync, Path.rename, Journal.page_maps_made
    folder = three.made[0].writer.folder

    def synced(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        did.append("folder" if path == folder else f"file {path.name}")
        fsync(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        did.append(f"name {target.name}")
        return rename(self, target)

    def made(self: Journal, maps: list[NewPageMap]) -> set[int]:
        did.append("journal " + " ".join(str(new.database_id) for new in maps))
        return noted(self, maps)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    monkeypatch.setattr(Journal, "page_maps_made", made)
    assert not three.go_on(2)
    files = ["file 2.map.base-1", "name 2.map", "file 3.map.base-1", "name 3.map"]
    assert did == [*files, "folder", "journal 2 3"]
    assert not three.go_on(3)
    assert did[len(files) :] == ["folder", "journal 2 3"]
    assert three.sizes() == {1: 1, 2: 2, 3: 3}


def test_a_generation_that_ended_costs_only_its_own_map(three: Sealing) -> None:
    """The journal asks for another map of that database."""
    three.go_on(1)
    three.go_on(2)
    three.go_on(3)
    three.journal.begin_generation(2, G2, "another", "{}", 0)
    assert not three.go_on(3)
    with pytest.raises(TransientError):
        three.go_on(2)
    assert three.sizes() == {1: 1, 3: 3}


def test_an_error_of_the_disk_is_that_of_the_map_that_met_it(three: Sealing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the others is tried by itself, however far the first one had come."""
    three.go_on(1)
    three.go_on(2)
    three.go_on(3)

    def fail(*_: Any) -> None:
        raise StateError("write journal: database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "page_maps_made", fail)
        with pytest.raises(StateError):
            three.go_on(2)
    assert not three.go_on(3)
    assert three.sizes() == {1: 1, 3: 3}


def test_a_file_whose_fsync_failed_is_no_map(three: Sealing, monkeypatch: pytest.MonkeyPatch) -> None:
    """The map is not used for its own database either: a later fsync may succeed although the bytes are not on the
    disk.
    """
    three.go_on(1)
    three.go_on(2)
    three.go_on(3)
    fsync = os.fsync

    def fail_once(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == "3.map.base-1":
            monkeypatch.setattr(os, "fsync", fsync)
            raise OSError(errno.EIO, "Input/output error")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail_once)
    with pytest.raises(StateError):
        three.go_on(2)
    with pytest.raises(StateError, match=r"3\.map"):
        three.go_on(3)
    assert three.sizes() == {1: 1}


def test_one_that_is_dropped_is_not_made_with_others(three: Sealing) -> None:
    """A map is dropped because the daemon stops, for example, or because its file was closed."""
    three.go_on(1)
    three.go_on(2)
    three.go_on(3)
    three.steps[1].close()
    three.made[1].writer.close()
    assert not three.go_on(3)
    assert three.sizes() == {1: 1, 3: 3}


def test_a_file_is_put_in_place_once(three: Sealing) -> None:
    """A second call is no error, and changes nothing."""
    writer: PageMapWriter = three.made[0].writer
    writer.put_in_place(1)
    writer.put_in_place(1)
    assert (writer.folder / "1.map").exists()
