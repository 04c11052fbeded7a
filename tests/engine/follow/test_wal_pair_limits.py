"""Tests of what old pairs of -wal and -shm may cost, and of what is known after an event that could not be taken in."""

from __future__ import annotations

from pathlib import Path

from walsyncd.engine.follow.wal_pairs import WAL_PAIRS_MAX, WalPairs
from walsyncd.errors import TransientError


def test_an_event_that_could_not_be_taken_in_counts_as_lost(tmp_path: Path) -> None:
    """Such an event is like an overflow of the queue.

    The absence of events proves nothing, and the next look checks all files.
    """
    pairs = WalPairs(tmp_path / "app.db")
    pairs.confirm_known(pairs.database_writes)
    before = pairs.is_unwritten
    pairs.fail(TransientError("stat: too many levels of links"))
    assert (before, pairs.is_unwritten, pairs.blind) == (True, False, True)
    assert pairs.error is not None


def test_earlier_wal_indexes_are_let_go_between_two_looks(tmp_path: Path) -> None:
    """More than ``WAL_PAIRS_MAX`` wal-indexes between two looks are a gap."""
    path = tmp_path / "app.db"
    path.with_name("app.db-wal").write_bytes(b"")
    shm = path.with_name("app.db-shm")
    shm.write_bytes(b"")
    pairs = WalPairs(path)
    pairs.look_around()
    for _ in range(WAL_PAIRS_MAX // 2):
        _replace(shm)
        pairs.look_around()
    assert pairs.current is not None
    assert len(pairs.current.old_descriptors) == WAL_PAIRS_MAX // 2
    pairs.close_old()
    assert not pairs.current.old_descriptors
    assert not pairs.lost
    for _ in range(WAL_PAIRS_MAX + 10):
        _replace(shm)
        pairs.look_around()
    assert len(pairs.current.old_descriptors) == WAL_PAIRS_MAX
    assert "was replaced 64 times" in str(pairs.lost)
    pairs.clear()


def _replace(file: Path) -> None:
    file.with_name("spare").write_bytes(b"")
    file.with_name("spare").rename(file)
