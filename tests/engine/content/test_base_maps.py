"""Tests of walsyncd.engine.content.base_maps: the map that a base makes while it is read is what a restore gives."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.content.gaps import Gaps, happens
from tests.engine.running import Place, running, wait_for
from walsyncd.adapters.journal.page_map_file import PageMapWriter
from walsyncd.engine.base.base_origin import BaseOrigin, origin_of
from walsyncd.engine.content.base_maps import BASE_MAPS_MAX, BaseMap
from walsyncd.engine.content.map_making import MapMaker
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.errors import TransientError

PAGE_SIZE = 1024


def nothing() -> None:
    """Do nothing."""


class Bases(Gaps):
    """Bases that are copied block by block, as the snapshotter does it."""

    def _begin(self, generation: str) -> None:
        self._generation = generation
        self.generations += 1
        self.base, self.wals = b"", {}

    def _asked(self) -> BaseOrigin | None:
        def ask(tracked: FollowedDatabase) -> BaseOrigin | None:
            return None if tracked.state is None else origin_of(tracked, tracked.state)

        answer = self.follower.request(self.tracked, ask)
        self.look()
        answered: BaseOrigin | None = answer.result()
        return answered

    def begin(self) -> tuple[BaseOrigin, BaseMap | None]:
        """Return where a base begins, and what makes a map of it."""
        origin = self._asked()
        assert origin is not None
        assert origin.state.start_epoch == origin.state.stream.epoch
        return origin, self.base_maps.begin(self.tracked, origin.state, origin.unbroken)

    def copy(self, block_bytes: int, meanwhile: Callable[[], None]) -> BaseMap | None:
        """Copy a base. Return None if something was missed meanwhile."""
        origin, taking = self.begin()
        assert taking is not None
        content = b""
        with self.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            for at in range(0, size, block_bytes):
                part = os.pread(file.fileno(), min(block_bytes, size - at), at)
                content += part.ljust(min(block_bytes, size - at), b"\0")
                taking.took(at, content[at:])
                meanwhile()
                self.look()
        end = self._asked()
        if end is None or end.unbroken != origin.unbroken:
            taking.drop()
            return None
        taking.copied(size, end.state.stream.position)
        self.base = content
        return taking

    def publish(self) -> None:
        """Store the manifest."""
        with self.journal._transaction() as connection:
            connection.execute("UPDATE database SET base_key = ?", (f"{self._generation}/base/x",))
        self.maker.due(self.tracked)

    def finish(self) -> None:
        """Store the base, and do what its map waits for."""
        self.store()
        self.publish()
        self.settle()

    def map_id(self) -> str:
        page_map = self.journal.page_map(self.row_id)
        assert page_map is not None
        return page_map.map_id


@pytest.fixture
def bases(tmp_path: Path) -> Any:
    with closing(Bases(tmp_path, page_size=PAGE_SIZE, auto_vacuum=0)) as bases:
        bases.sql("INSERT INTO t (y) VALUES (randomblob(50000))")
        bases.look()
        yield bases


@pytest.mark.parametrize("seed", range(16))
def test_a_base_beside_a_writer_makes_the_map(tmp_path: Path, seed: int) -> None:
    """There are commits, checkpoints, restarts, VACUUM and kills between the blocks.

    The map is what a restore gives.
    """
    chance = random.Random(seed)
    page_size = chance.choice([512, 1024, 4096])
    with closing(Bases(tmp_path, page_size=page_size, auto_vacuum=seed % 3)) as bases:
        for _ in range(chance.randint(1, 8)):
            happens(bases, chance)
            bases.look()

        def meanwhile() -> None:
            for _ in range(chance.choice([0, 0, 1, 3])):
                happens(bases, chance)
                bases.look()
            bases.store(chance.randint(0, 2))

        for _ in range(20):
            bases.settle(mapped=False)
            block_bytes = chance.choice([512, 3000, 8192, 1 << 20]) * (4 if chance.random() < 0.5 else 1)
            if (taken := bases.copy(max(block_bytes, bases.path.stat().st_size // 20), meanwhile)) is not None:
                break
        else:
            pytest.skip("something was missed in each of them")
        bases.finish()
        assert bases.map_id() == taken.entries.writer.map_id, "no scan was needed"
        assert bases.has_right_map()
        for _ in range(5):
            happens(bases, chance)
            bases.look()
        bases.settle()
        assert bases.has_right_map()


def test_what_only_the_wal_has_comes_from_its_frames(bases: Bases) -> None:
    """The pages are not in the file yet, and their rows are older than the base."""
    taken = bases.copy(4096, nothing)
    assert taken is not None
    bases.finish()
    assert bases.map_id() == taken.entries.writer.map_id
    assert bases.has_right_map()


def test_it_counts_only_once_n_is_stored(bases: Bases) -> None:
    """Until N is stored the spool may be dropped, and the replica returns to a position before N."""
    assert bases.copy(4096, nothing) is not None
    bases.publish()
    for _ in range(20):
        bases.scan()
    assert bases.journal.pending(bases.row_id)
    assert not bases.has_map()
    bases.settle()
    assert bases.has_right_map()


def test_a_spool_that_is_read_again_before_it_counts(bases: Bases) -> None:
    """If the spool is read again before the map counts, a scan makes the map."""
    taken = bases.copy(4096, nothing)
    assert taken is not None
    bases.store()
    bases.tracked.rewinds += 1
    bases.publish()
    bases.settle()
    assert bases.map_id() != taken.entries.writer.map_id
    assert bases.has_right_map()


@pytest.mark.parametrize("again", [0, 4096])
def test_a_base_that_read_a_range_again_makes_none(bases: Bases, again: int) -> None:
    """A base of which an earlier run copied a part, or all, makes none either, because this run did not see what was
    uploaded.
    """
    _, taking = bases.begin()
    assert taking is not None
    taking.took(again, bytes(4096))
    taking.took(0, bytes(4096))
    taking.copied(4096, bases.tracked.state.start if bases.tracked.state else taking.before)
    taking.drop()
    assert bases.base_maps.take(bases.row_id) is None
    _, taking = bases.begin()
    assert taking is not None
    taking.copied(4096, taking.before)
    taking.drop()
    assert bases.base_maps.take(bases.row_id) is None
    assert not list((bases.folder / "state" / "maps").iterdir())


def test_a_base_whose_thread_ended_before_n_was_found_makes_none(bases: Bases, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon stops while the follower is asked for N. The base counts, its map is closed, and a scan makes one."""
    finished: list[int | None] = []
    finish = PageMapWriter.put_in_place

    def noted(self: PageMapWriter, size: int | None) -> None:
        finished.append(size)
        finish(self, size)

    _, taking = bases.begin()
    assert taking is not None
    bases.base = bases.path.read_bytes()
    taking.took(0, bases.base)
    end = bases.tracked.state
    assert end is not None
    taking.drop()
    taking.copied(len(bases.base), end.stream.position)
    taking.drop()
    monkeypatch.setattr(PageMapWriter, "put_in_place", noted)
    bases.finish()
    assert len(finished) == 1, "only the scan's map was finished"
    assert bases.map_id() != taking.entries.writer.map_id
    assert bases.has_right_map()


def test_where_there_is_a_map_a_base_makes_none(bases: Bases) -> None:
    """A kept map is dropped when another base begins, or when the database is no longer followed."""
    assert bases.copy(4096, nothing) is not None
    _, second = bases.begin()
    assert second is not None
    assert bases.base_maps.take(bases.row_id) is None
    second.copied(0, second.before)
    bases.base_maps.forget(bases.tracked)
    assert not list((bases.folder / "state" / "maps").iterdir())
    bases.finish()
    assert bases.begin()[1] is None


def test_a_base_that_begins_while_another_s_map_is_made(bases: Bases) -> None:
    """Each map has its own file, because the scan thread may read the first while the second is written."""
    first = bases.copy(4096, nothing)
    assert first is not None
    assert bases.base_maps.take(bases.row_id) is first
    _, second = bases.begin()
    assert second is not None
    assert (first.entries.entries(1, 1) != 0).all()
    bases.base_maps.dropped(first)
    second.took(0, b"x" * PAGE_SIZE)
    assert len(list((bases.folder / "state" / "maps").iterdir())) == 1
    second.drop()


def test_few_are_open_at_once(bases: Bases) -> None:
    """Each open map has a file. If too many are open, a scan makes the next map."""
    begun = [bases.begin()[1] for _ in range(BASE_MAPS_MAX + 1)]
    assert begun[-1] is None
    assert None not in begun[:-1]
    assert begun[0] is not None
    begun[0].drop()
    assert bases.begin()[1] is not None


def test_the_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a whole daemon the first base of a database in WAL mode makes its map, and no scan does."""
    place = Place(tmp_path)

    def scan(*_arguments: object) -> None:
        raise TransientError("no scan is needed")

    monkeypatch.setattr(MapMaker, "_scan", scan)
    with SqliteProcess(place.database()) as app:
        app.execute("PRAGMA journal_mode = WAL", "CREATE TABLE t (x)", "INSERT INTO t VALUES (zeroblob(100000))")
        with running(place.settings("app")):
            place.sync()
            with place.journal() as journal:
                wait_for(lambda: journal.page_map(1) is not None)
