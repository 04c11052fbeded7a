"""Tests of walsyncd.engine.content.gap_bridge: whatever happens around a gap, the restored file is the live one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.engine.content.gaps import Gaps, happens


@pytest.fixture
def gaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gaps]:
    with closing(Gaps(tmp_path, monkeypatch, page_size=4096, auto_vacuum=0)) as gaps:
        gaps.sql("INSERT INTO t (y) VALUES " + ", ".join("(randomblob(900))" for _ in range(300)))
        gaps.settle()
        yield gaps


def missed(gaps: Gaps, *statements: str) -> None:
    """Commits that the daemon does not see: it is away, and the WAL restarts twice."""
    gaps.die()
    gaps.sql(*statements, "PRAGMA wal_checkpoint(TRUNCATE)")
    gaps.sql("UPDATE t SET y = y WHERE x = 1", "PRAGMA wal_checkpoint(TRUNCATE)")
    gaps.open()


def test_a_gap_costs_the_pages_that_changed(gaps: Gaps) -> None:
    """The generation goes on; the bridge is one transaction, the first of an epoch."""
    missed(gaps, "UPDATE t SET y = randomblob(900) WHERE x IN (3, 150)")
    gaps.settle()
    gaps.check()
    assert (gaps.generations, gaps.bridges) == (1, 1)
    assert len(gaps.wals[2]) < 40 * 4096
    gaps.sql("INSERT INTO t (y) VALUES (1)")
    gaps.settle()
    gaps.check()


@pytest.mark.parametrize("seed", range(40))
def test_the_daemon_dies_and_looks_late(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Applications, kills, gaps inside bridges at random; after each round the restored file is the live one."""
    chance = random.Random(seed)
    page_size, auto_vacuum = chance.choice([512, 1024, 4096, 8192, 65536]), chance.randint(0, 2)
    with closing(Gaps(tmp_path, monkeypatch, page_size=page_size, auto_vacuum=auto_vacuum)) as gaps:
        for _ in range(5):
            happens(gaps, chance)
        gaps.settle()
        for _ in range(4):
            for _ in range(chance.randint(1, 25)):
                for _ in range(chance.choice([0, 1, 1, 2, 6])):
                    happens(gaps, chance)
                match chance.choice(["look", "look", "scan", "scan", "store", "die", "write"]):
                    case "look":
                        gaps.look()
                    case "scan":
                        gaps.scan()
                    case "store":
                        gaps.store(chance.randint(1, 3))
                    case "write":
                        gaps.maps.write(gaps.row_id)
                    case _:
                        gaps.die()
                        if chance.random() < 0.5:
                            happens(gaps, chance)
                        gaps.open()
            gaps.settle()
            gaps.check()
