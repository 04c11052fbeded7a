"""Tests of when the next base of a database is due."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.engine.following import spec_of
from walsyncd.adapters.journal.journal import DatabaseRow, Journal, ObjectKind, ObjectRow, ObjectState
from walsyncd.core.limits import Limits
from walsyncd.core.stored.layout import BaseKey, ManifestKey, format_key
from walsyncd.core.stored.position import Position
from walsyncd.engine.base.base_timing import BaseTiming
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.wal_pairs import WalPairs

GENERATION = "20261122T105600Z-00000001"
HOUR_S = 3600.0


@dataclass
class Scene:
    """One database with an interval of an hour, a clock, and a timing that asks for a base after 100 stored bytes."""

    tracked: FollowedDatabase
    row: DatabaseRow
    now_ms: int = 1_000_000_000_000

    def __post_init__(self) -> None:
        self.timing = BaseTiming(lambda: self.now_ms, Limits(base_work_bytes=100, base_work_pause_s=60.0))

    def stores(self, size: int) -> float | None:
        """Make a segment visible. Return after how many seconds a base is due because of it."""
        row = ObjectRow(
            id=1,
            database_id=self.tracked.row_id,
            generation=GENERATION,
            kind=ObjectKind.SEGMENT,
            key="",
            size=size,
            md5="",
            token="",
            epoch=1,
            first=1,
            last=2,
            time_ms=0,
            state=ObjectState.STORED,
            upload_id=None,
            part_size=None,
            body_path=None,
            attempted_ms=None,
        )
        due = self.timing.stored(row)
        return None if due is None else due[1]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    path = tmp_path / "app.db"
    with Journal.open(tmp_path / "state") as journal:
        row = journal.database("app", str(path))
        spec = replace(spec_of(path), snapshot_interval_s=HOUR_S, snapshot_wal_ratio=1.0)
        yield Scene(FollowedDatabase(spec, row.id, WalPairs(path)), row)


def test_the_first_base_is_due(scene: Scene) -> None:
    """There is no earlier base whose age counts, and stored bytes make none due."""
    scene.timing.adopt(scene.tracked, scene.row)
    assert scene.timing.last(scene.tracked) is None
    assert scene.timing.left_s(scene.tracked) is None
    assert scene.timing.is_due(scene.tracked)
    assert scene.stores(10_000) is None


def test_the_clock_makes_the_next_one_due(scene: Scene) -> None:
    """The next base is due an interval after the last one, at most a tenth earlier.

    A new interval counts from the same base.
    """
    scene.timing.adopt(scene.tracked, scene.row)
    scene.timing.taken(scene.tracked, Position(GENERATION, 1, 5))
    left_s, halved_s = scene.timing.left_s(scene.tracked), scene.timing.left_s(scene.tracked, HOUR_S / 2)
    assert left_s is not None
    assert 0.9 * HOUR_S <= left_s <= HOUR_S
    assert halved_s == pytest.approx(left_s / 2)
    assert not scene.timing.is_due(scene.tracked)
    scene.now_ms += round(1000 * HOUR_S)
    assert scene.timing.is_due(scene.tracked)


def test_what_is_stored_makes_the_next_one_due(scene: Scene) -> None:
    """A base is due when a restore would apply as many bytes as the base has, after a pause since that base."""
    scene.timing.adopt(scene.tracked, scene.row)
    scene.timing.taken(scene.tracked, Position(GENERATION, 1, 5))
    scene.timing.begin_work(scene.tracked, 150)
    assert scene.stores(150) is None
    assert scene.stores(1) == 60.0
    assert scene.timing.is_due(scene.tracked)
    scene.now_ms += 90_000
    assert scene.stores(1) == 0.0
    scene.timing.begin_work(scene.tracked, 150)
    assert not scene.timing.is_due(scene.tracked)


def test_an_earlier_run_is_continued(scene: Scene) -> None:
    """The journal has the last base, and the bytes stored since."""
    base = BaseKey(GENERATION, epoch=1, frame=2, random="0011aabb")
    key = format_key(ManifestKey(base, epoch=1, frame=5, time_ms=0))
    left = replace(scene.row, base_key=key, base_ms=scene.now_ms - 20_000, base_bytes=100, wal_bytes=100)
    scene.timing.adopt(scene.tracked, left)
    assert scene.timing.last(scene.tracked) == (Position(GENERATION, 1, 5), scene.now_ms - 20_000)
    assert scene.stores(1) == 40.0


def test_what_an_earlier_run_stored_again_for_the_base_counts_as_part_of_it(scene: Scene) -> None:
    """The bytes count as the base's if the base begins before them."""
    scene.tracked.note_base(begun_epoch=2, begun_bytes=50)
    for frame, stored in ((1, 100), (0, 150)):
        base = BaseKey(GENERATION, epoch=2, frame=frame, random="0011aabb")
        key = format_key(ManifestKey(base, epoch=2, frame=5, time_ms=0))
        left = replace(scene.row, base_key=key, base_ms=scene.now_ms, base_bytes=100, wal_bytes=0)
        scene.timing.adopt(scene.tracked, left)
        assert scene.stores(stored) is None
        assert scene.stores(1) == 60.0


def test_a_database_that_is_not_followed_any_more_has_no_base_due(scene: Scene) -> None:
    """What is still stored for it makes no base due."""
    scene.timing.adopt(scene.tracked, scene.row)
    scene.timing.taken(scene.tracked, Position(GENERATION, 1, 5))
    scene.timing.forget(scene.tracked)
    assert scene.stores(10_000) is None
