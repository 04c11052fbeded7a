"""Tests of the comparison with a live file: what differs, what frames explain, and what means nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.replicas import make_replica
from walsyncd.adapters.files.source import open_file
from walsyncd.core.stored.position import Position
from walsyncd.engine.restore.replica import Replica
from walsyncd.engine.upkeep.live_comparison import (
    Differences,
    differences,
    encrypted_again,
    meaningless,
    written_between,
)

PAGE = 4096


def compared(live: Path, restored: Path) -> Differences:
    file = open_file(live)
    assert file is not None
    with file:
        return differences(file, restored, PAGE, lambda: None)


def test_pages_that_differ_are_found(tmp_path: Path) -> None:
    """The pages are found by number, in any block. Zeros and the end of a shorter live file are reported apart."""
    one, other = tmp_path / "live", tmp_path / "restored"
    raw = bytearray(np.random.default_rng(1).bytes(600 * PAGE))
    other.write_bytes(raw)
    raw[PAGE * 2 + 7] ^= 1
    raw[PAGE * 400 : PAGE * 401] = bytes(PAGE)
    one.write_bytes(raw[: PAGE * 599])
    found = compared(one, other)
    assert (found.pages, found.numbers.tolist(), found.zeros) == (600, [3, 401, 600], frozenset({401, 600}))


def test_pages_of_which_a_part_is_equal_are_told_apart(tmp_path: Path) -> None:
    """By chance one byte in 256 is equal, and a cipher leaves no more than that."""
    raw = np.random.default_rng(1).bytes(3 * PAGE)
    changed = bytearray(raw)
    changed[PAGE : 2 * PAGE] = np.random.default_rng(2).bytes(PAGE)
    changed[2 * PAGE : 2 * PAGE + PAGE // 2] = np.random.default_rng(3).bytes(PAGE // 2)
    (tmp_path / "live").write_bytes(raw)
    (tmp_path / "restored").write_bytes(changed)
    found = compared(tmp_path / "live", tmp_path / "restored")
    assert (found.numbers.tolist(), found.alike) == ([2, 3], frozenset({3}))


@pytest.mark.parametrize(
    ("left", "applied", "alike", "expected"),
    [
        ([1, 2, 3], [1, 2, 3], [], True),
        ([1, 2, 3], [1, 2, 3], [1], True),  # the header of page 1 may be plain
        ([1, 2, 3], [1, 2, 3, 99], [], True),  # pages were cut off since
        ([1, 2, 3], [1, 2, 3], [2], False),
        ([1, 2, 3], [1, 2, 3, 4], [], False),  # one page that a frame holds is equal
        ([1, 2, 3, 4], [1, 2, 3], [], False),  # one page differs that no frame holds
        ([], [], [], False),
    ],
)
def test_pages_encrypted_again_are_recognised(
    left: list[int], applied: list[int], alike: list[int], *, expected: bool
) -> None:
    """All pages that frames hold differ, no others do, and no part of them is equal."""
    found = Differences(50, np.array(left, np.int64), frozenset(), frozenset(alike))
    numbers = np.array(applied, np.int64)
    assert encrypted_again(found, np.array(left, np.int64), numbers, numbers) == expected


@pytest.mark.parametrize(
    ("left", "copied", "expected"),
    [([5], [5], True), ([5, 7], [5], True), ([5], [5, 7], False), ([5, 20], [5], False), ([5], [], True)],
)
def test_pages_of_a_bridge_may_be_the_same(left: list[int], copied: list[int], *, expected: bool) -> None:
    """Only pages in frames after the bridge must all differ."""
    found = Differences(50, np.array(left, np.int64), frozenset(), frozenset())
    applied = np.array([5, 6, 7], np.int64)
    assert encrypted_again(found, np.array(left, np.int64), applied, np.array(copied, np.int64)) == expected


def test_longer_live_file_is_no_difference(tmp_path: Path) -> None:
    """The restored file lacks what was appended since."""
    (tmp_path / "live").write_bytes(bytes(PAGE * 3))
    (tmp_path / "restored").write_bytes(bytes(PAGE * 2))
    assert compared(tmp_path / "live", tmp_path / "restored").numbers.tolist() == []


def test_caller_can_stop_it(tmp_path: Path) -> None:
    """The caller is asked before every block."""
    (tmp_path / "live").write_bytes(bytes(PAGE))

    def end() -> None:
        raise KeyError

    file = open_file(tmp_path / "live")
    assert file is not None
    with file, pytest.raises(KeyError):
        differences(file, tmp_path / "live", PAGE, end)


def test_zeros_of_free_pages_mean_nothing(tmp_path: Path) -> None:
    """SQLite does not write free pages. A page in use is different."""
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size={PAGE}")
        connection.execute("CREATE TABLE t (a)")
        connection.executemany("INSERT INTO t VALUES (zeroblob(3000))", [()] * 20)
        connection.execute("DELETE FROM t WHERE rowid > 3")
    count = path.stat().st_size // PAGE
    every = frozenset(range(1, count + 1))
    free = set(meaningless(path, PAGE, Differences(count, np.array([]), every, frozenset())))
    assert 2 <= len(free) < count - 3
    assert 2 not in free, "the table's root"
    path.write_bytes(b"\x17" * PAGE * 3)
    assert set(meaningless(path, PAGE, Differences(3, np.array([]), frozenset({2}), frozenset()))) == {2}, "encrypted"


def test_frames_between_two_positions(tmp_path: Path) -> None:
    """Exactly the pages of these frames are returned, over epochs. None means that not all of them are stored."""
    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(2)
        maker.ship(every=1)
        start = maker.position
        maker.commit(1)
        (key,) = maker.ship()
        replica = Replica(maker.storage, maker.name)
        first = written_between(replica, PAGE, start, maker.position, 0)
        assert first is not None
        assert 0 < len(first.numbers) <= key.last - key.first + 1
        maker.close_epoch()
        maker.commit(5, rows=20)
        maker.ship(every=2)
        both = written_between(replica, PAGE, start, maker.position, key.last)
        assert both is not None
        assert set(first.numbers.tolist()) < set(both.numbers.tolist())
        assert both.size_min <= len(maker.file()) // PAGE
        assert written_between(replica, PAGE, maker.position, maker.position, key.last) is not None
        beyond = Position(maker.generation, maker.epoch, maker.position.frame + 1)
        assert written_between(replica, PAGE, start, beyond, key.last) is None


def test_cut_off_pages_are_explained(tmp_path: Path) -> None:
    """A commit that makes the database smaller has no frames for the pages that it cuts off."""
    with make_replica(tmp_path) as maker:
        maker.connection.execute("PRAGMA auto_vacuum=FULL")
        maker.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        maker.connection.execute("VACUUM")
        maker.commit(20, rows=20)
        maker.ship()
        pages = len(maker.file()) // PAGE
        start = maker.position
        maker.connection.execute("DELETE FROM t")
        maker.ship()
        written = written_between(Replica(maker.storage, maker.name), PAGE, start, maker.position, 0)
    assert written is not None
    numbers = np.arange(1, pages + 1)
    assert written.size_min < pages // 2
    assert written.explains(numbers)[written.size_min :].all()
    assert not written.explains(numbers[: written.size_min]).all()
