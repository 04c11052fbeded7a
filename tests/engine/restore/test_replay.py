"""Tests of applying frames: pages, size and counts, up to a commit and no farther.

Objects that do not join are refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.replicas import ReplicaMaker, make_replica
from walsyncd.core.restore.coverage import FramesKey
from walsyncd.core.restore.plan import AtPosition, Head
from walsyncd.core.stored.layout import SegmentKey
from walsyncd.engine.restore import replay
from walsyncd.engine.restore.base_fetch import Write, write_at
from walsyncd.engine.restore.epoch_reader import BATCH_BYTES
from walsyncd.engine.restore.planner import find_plan
from walsyncd.engine.restore.replay import Applied, ObjectSlice, Replay, last_size, pieces_of
from walsyncd.engine.restore.replica import Replica
from walsyncd.errors import CorruptError


@contextmanager
def copy_of(path: Path) -> Iterator[int]:
    """Return a descriptor of ``copy``, a copy of the database file."""
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    descriptor = os.open(copy, os.O_RDWR)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def pieces(*keys: FramesKey) -> list[ObjectSlice]:
    """Yield all of these objects, one after the other."""
    ends = {key.last + 1: key.last for key in keys}
    return [ObjectSlice(key, key.last, ends.get(key.first, 0)) for key in keys]


def applied(
    maker: ReplicaMaker,
    descriptor: int,
    found: Sequence[ObjectSlice],
    *,
    pages: int | None = None,
    batch_bytes: int = BATCH_BYTES,
) -> Applied:
    """Apply the objects and cut the file to size."""
    replica = Replica(maker.storage, maker.name)
    count = last_size(replica, found, maker.page_size) if pages is None else pages
    with Replay(replica, found, maker.page_size, count, batch_bytes=batch_bytes) as replay:
        result = replay.onto(descriptor)
    os.ftruncate(descriptor, count * maker.page_size)
    return result


@pytest.mark.parametrize("batch_bytes", [1, 20_000, 1 << 22])
def test_frames_of_all_epochs_are_applied(tmp_path: Path, batch_bytes: int) -> None:
    """The file is the source's, and the counts are those of its transactions, whatever the batches."""
    with make_replica(tmp_path) as maker, copy_of(maker.path) as descriptor:
        maker.commit(3, rows=20)
        first = maker.ship(every=2)
        maker.close_epoch()
        maker.commit(4)
        second = maker.ship()
        result = applied(maker, descriptor, pieces(*first, *second), batch_bytes=batch_bytes)
        assert (tmp_path / "copy").read_bytes() == maker.file()
    assert (result.transactions, result.frames) == (7, first[-1].last + second[-1].last)
    assert result.page_count * maker.page_size == (tmp_path / "copy").stat().st_size


def test_each_page_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many versions in many objects only the last one is written, and nothing past the end of a database that
    shrank.
    """
    written: list[int] = []

    def noting(descriptor: int) -> Write:
        def write(raw: bytes | memoryview, offset: int) -> None:
            written.extend(range(offset // 4096, (offset + len(raw)) // 4096))
            write_at(descriptor)(raw, offset)

        return write

    monkeypatch.setattr(replay, "write_at", noting)
    with make_replica(tmp_path) as maker, copy_of(maker.path) as descriptor:
        maker.commit(9, rows=40)
        keys = maker.ship(every=2)
        maker.connection.execute("DELETE FROM t")
        maker.connection.execute("VACUUM")
        keys += maker.ship()
        applied(maker, descriptor, pieces(*keys))
        assert (tmp_path / "copy").read_bytes() == maker.file()
    assert len(written) == len(set(written))
    assert max(written) < (tmp_path / "copy").stat().st_size // 4096


def test_overlapping_objects_are_counted_once(tmp_path: Path) -> None:
    """Frames that two objects hold are skipped in the later one."""
    with make_replica(tmp_path) as maker, copy_of(maker.path) as descriptor:
        maker.commit(6)
        one, two, three = maker.ship(every=2)
        body = b"".join(maker.object_path(key).read_bytes() for key in (two, three))
        wide = SegmentKey(two.generation, 1, two.first, three.last, three.time_ms)
        maker.object_path(wide).write_bytes(body)
        head = b"".join(maker.object_path(key).read_bytes() for key in (one, two))
        start = SegmentKey(one.generation, 1, 1, two.last, two.time_ms, 0)
        maker.object_path(start).write_bytes(head)
        found = [ObjectSlice(start, start.last, 0), ObjectSlice(wide, wide.last, start.last)]
        result = applied(maker, descriptor, found)
        assert (tmp_path / "copy").read_bytes() == maker.file()
    assert (result.transactions, result.frames) == (6, three.last)


def test_objects_of_another_history_are_refused(tmp_path: Path) -> None:
    """Each object is sound by itself, but they do not join."""
    (tmp_path / "other").mkdir()
    with make_replica(tmp_path) as maker, make_replica(tmp_path / "other") as other, copy_of(maker.path) as descriptor:
        for each in (maker, other):
            each.commit(4)
        mine, theirs = maker.ship(every=2), other.ship(every=2)
        maker.object_path(mine[1]).write_bytes(other.object_path(theirs[1]).read_bytes())
        with pytest.raises(CorruptError, match="does not continue the chain"):
            applied(maker, descriptor, pieces(*mine))


def test_plan_becomes_pieces_up_to_its_target(tmp_path: Path) -> None:
    """The pieces hold nothing after the target, and nothing twice."""
    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(4)
        keys = maker.ship(every=2)
        replica = Replica(maker.storage, maker.name)
        whole = pieces_of(find_plan(replica, Head()))
        third = maker.history[2].position
        part = pieces_of(find_plan(replica, AtPosition(third)))
    assert whole == pieces(*keys)
    assert part == [whole[0], replace(whole[1], last=third.frame)]
    assert [piece.frames for piece in part] == [keys[0].last, third.frame - keys[0].last]


def test_no_frames_leave_the_file_alone(tmp_path: Path) -> None:
    """If there is only a base, there is nothing to apply."""
    with make_replica(tmp_path) as maker, copy_of(maker.path) as descriptor:
        replica = Replica(maker.storage, maker.name)
        assert last_size(replica, [], maker.page_size) == 0
        with Replay(replica, [], maker.page_size, 0) as replay:
            assert replay.onto(descriptor) == Applied()
        assert (tmp_path / "copy").read_bytes() == maker.path.read_bytes()


def test_stop_within_a_transaction_is_refused(tmp_path: Path) -> None:
    """The last frame has to commit, whatever the objects' names say."""
    with make_replica(tmp_path) as maker, copy_of(maker.path) as descriptor:
        maker.commit(2, rows=30)
        (key,) = maker.ship()
        inside = [ObjectSlice(key, key.last - 1, 0)]
        for pages in (None, 99):
            with pytest.raises(CorruptError, match=f"frame {key.last - 1} of epoch 1 does not commit"):
                applied(maker, descriptor, inside, pages=pages)


def test_pages_are_remembered_up_to_the_last() -> None:
    """Each page takes one bit. Pages past the end are never wanted."""
    pages = replay._Pages(20)
    numbers = np.arange(1, 30, dtype=np.uint32)
    assert pages.wanted(numbers).tolist() == [True] * 20 + [False] * 9
    pages.wrote(np.array([1, 8, 9, 20], np.uint32))
    assert pages.wanted(numbers).sum() == 20
    pages.close_object()
    assert (numbers[:20][~pages.wanted(numbers)[:20]]).tolist() == [1, 8, 9, 20]
