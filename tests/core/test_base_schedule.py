"""When bases are due."""

from __future__ import annotations

from itertools import pairwise

from walsyncd.core.base_schedule import WORK_BYTES_MIN, is_due_by_work, spread_s


def test_work_is_measured_by_the_base() -> None:
    """A large base stands for as much WAL, times the ratio."""
    base = 100 * WORK_BYTES_MIN
    assert not is_due_by_work(wal_bytes=base, base_bytes=base, ratio=1.0)
    assert is_due_by_work(wal_bytes=base + 1, base_bytes=base, ratio=1.0)
    assert is_due_by_work(wal_bytes=base, base_bytes=base, ratio=0.5)
    assert not is_due_by_work(wal_bytes=2 * base, base_bytes=base, ratio=2.0)


def test_a_tiny_database_needs_no_base_for_every_commit() -> None:
    """Below a few MiB of WAL nothing is due, however small the base."""
    assert not is_due_by_work(wal_bytes=WORK_BYTES_MIN, base_bytes=500, ratio=1.0)


def test_databases_that_are_due_together_drift_apart() -> None:
    """A hundred intervals of a day fall into two hours and more, none ten minutes from the next."""
    moments = sorted(spread_s(86_400.0, number) for number in range(100))
    assert moments[-1] == 86_400.0
    assert moments[-1] - moments[0] > 7_200
    assert max(later - sooner for sooner, later in pairwise(moments)) < 600
