"""Tests of walsyncd.engine.content.map_making: the map that a scan makes is what a restore gives."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.engine.content.gaps import Gaps, happens
from tests.shipping import G1
from walsyncd.adapters.journal.page_map_table import RedoRow
from walsyncd.core.content.redo import nothing_to_redo
from walsyncd.core.stored.position import Position
from walsyncd.engine.content.map_making import follows


@pytest.fixture
def gaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gaps]:
    with closing(Gaps(tmp_path, page_size=4096, auto_vacuum=0)) as gaps:
        yield gaps


@pytest.mark.parametrize("seed", range(12))
def test_a_map_is_made_beside_a_writer(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are commits, checkpoints and restarts between the blocks that are read.

    The map continues with every segment.
    """
    chance = random.Random(seed)
    with closing(Gaps(tmp_path, page_size=chance.choice([512, 4096]), auto_vacuum=seed % 3)) as gaps:
        for _ in range(6):
            happens(gaps, chance)
        gaps.look()
        for _ in range(chance.randint(5, 60)):
            happens(gaps, chance)
            gaps.look()
            gaps.scan()
            if chance.random() < 0.3:
                gaps.store(1)
        gaps.settle()
        assert gaps.has_right_map()
        for _ in range(5):
            happens(gaps, chance)
            gaps.look()
        gaps.settle()
        assert gaps.has_right_map()


@pytest.mark.parametrize("seed", range(8))
def test_a_map_that_is_lost_is_made_again_at_once(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The map's rows were in the lost file. The WAL that has these pages need not restart."""
    chance = random.Random(seed)
    with closing(Gaps(tmp_path, page_size=chance.choice([512, 4096]), auto_vacuum=seed % 3)) as gaps:
        for _ in range(8):
            happens(gaps, chance)
        gaps.settle()
        gaps.sql("INSERT INTO t (y) VALUES (randomblob(90000))")
        gaps.settle()
        gaps.maps.write(gaps.row_id)
        assert gaps.journal.redo_rows(gaps.row_id) == []
        (tmp_path / "state" / "maps" / f"{gaps.row_id}.map").unlink()
        assert gaps.maps.open(gaps.row_id) is None
        gaps.maker.due(gaps.tracked)
        for _ in range(chance.randint(0, 20)):
            gaps.scan()
            if chance.random() < 0.2:
                happens(gaps, chance)
        gaps.settle()
        assert gaps.has_right_map()
        assert gaps.generations == 1


def test_a_map_counts_only_once_what_it_holds_is_stored(gaps: Gaps) -> None:
    """The file has frames that are only spooled. If the spool is taken back, no replica has these frames."""
    gaps.sql("INSERT INTO t (y) VALUES (randomblob(500000))")
    for _ in range(300):
        gaps.look()
        gaps.scan()
    assert gaps.journal.pending(gaps.row_id)
    assert not gaps.has_map()
    gaps.settle()
    assert gaps.has_right_map()


def test_a_database_without_wal_mode_wakes_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A map that can't be made is not tried again by the clock, but with the first segment that is stored."""
    with closing(Gaps(tmp_path, page_size=4096, auto_vacuum=0)) as gaps:
        gaps.die()
        gaps.app.execute("PRAGMA journal_mode = DELETE")
        gaps.open()
        for _ in range(50):
            gaps.look()
            gaps.scan()
        assert gaps.tracked.state is not None
        assert gaps.tracked.state.mode == "rollback"
        assert not gaps.queue._scans
        assert not gaps.has_map()
        gaps.maker.stored(gaps.tracked)
        assert len(gaps.queue._scans) == 1
        gaps.maker.stored(gaps.tracked)
        assert len(gaps.queue._scans) == 1


def row(epoch: int, first: int, last: int) -> RedoRow:
    return RedoRow(1, epoch, first, last, nothing_to_redo())


def test_rows_must_follow_one_another() -> None:
    """The rows go from the start to the end, over epochs. A missing row would leave pages of which nothing is known."""
    start = Position(G1, 2, 5)
    assert follows([row(2, 6, 9), row(2, 10, 10), row(3, 1, 4)], start, Position(G1, 3, 4))
    assert follows([], start, start)
    assert follows([row(2, 6, 9)], start, Position(G1, 3, 0))
    assert not follows([], start, Position(G1, 2, 6))
    assert not follows([row(2, 7, 9)], start, Position(G1, 2, 9))
    assert not follows([row(2, 6, 9), row(2, 11, 12)], start, Position(G1, 2, 12))
    assert not follows([row(3, 2, 4)], start, Position(G1, 3, 4))
    assert not follows([row(2, 6, 9)], start, Position(G1, 2, 8))
