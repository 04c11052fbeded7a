"""Tests of the limit of the spool."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shipping import G1, T0, segment
from walsyncd.adapters.journal.journal import Advance, Journal
from walsyncd.core.follow.gap import GapKind
from walsyncd.engine.ship.spool_limit import CHECK_S, SpoolLimit


def spool(journal: Journal, **sizes: int) -> list[int]:
    """Return the row ids of databases with so many bytes in the spool."""
    ids = []
    for name, size in sizes.items():
        row = journal.database(name, f"/srv/{name}.db")
        journal.begin_generation(row.id, G1, "test", "{}", T0)
        journal.advance([Advance(row.id, "{}", (segment(1, 1, body=bytes(size)),))])
        ids.append(row.id)
    return ids


def test_the_database_with_most_in_a_full_spool_gives_way(tmp_path: Path) -> None:
    """One dropped spool is enough if it brings the sum below the limit; the reason has the numbers."""
    with Journal.open(tmp_path) as journal:
        ids = spool(journal, small=1000, large=5000, tiny=10)
        limit = SpoolLimit(journal, 4096)
        assert limit.is_full()
        over = limit.giving_way()
        assert list(over) == [ids[1]]
        gap = over[ids[1]]
        assert (gap.kind, gap.facts["bytes"]) == (GapKind.SPOOL, 5000)
        assert "4.0 KiB" in gap.reason
        journal.drop_spool(ids[1])
        assert not limit.is_full()


@pytest.mark.parametrize(
    ("sizes", "waiting"),
    [
        ({"a": 4000}, []),  # a single database may have all
        ({"a": 2900, "b": 0}, []),  # 3,072 of 4,096 bytes are for everybody
        ({"a": 3100, "b": 0}, ["a"]),
        ({"a": 2900, "b": 100, "c": 80}, ["a"]),
        ({"a": 1500, "b": 1500, "c": 100}, ["a", "b"]),
        ({"a": 2000, "b": 2000}, []),  # each database has its half
        ({"a": 2000, "b": 1300, "c": 0, "d": 0}, ["a"]),  # a third, since one more database may come
        ({"a": 5000, "b": 100}, ["a"]),
    ],
)
def test_the_last_quarter_is_for_those_with_less_than_their_equal_share(
    tmp_path: Path, sizes: dict[str, int], waiting: list[str]
) -> None:
    """The share counts the databases with something in the spool, and this one if it has nothing."""
    with Journal.open(tmp_path) as journal:
        ids = [
            spool(journal, **{name: size})[0] if size else journal.database(name, f"/srv/{name}.db").id
            for name, size in sizes.items()
        ]
        limit = SpoolLimit(journal, 4096)
        limit.is_full()
        assert [name for name, row_id in zip(sizes, ids, strict=True) if limit.has_too_much(row_id)] == waiting


def test_summing_up_takes_a_small_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum that took a tenth of a second is reused for five seconds."""
    clock = iter([0.0, 0.1, 4.9, 5.1, 5.1])
    with Journal.open(tmp_path) as journal:
        spool(journal, app=5000)
        limit = SpoolLimit(journal, 4096, lambda: next(clock))
        assert limit.is_full()
        monkeypatch.setattr(journal, "spool_bytes", lambda: 0)
        assert limit.is_full(), "asked at 4.9 s"
        assert not limit.is_full(), "asked at 5.1 s"


def test_far_below_the_limit_only_what_is_spooled_can_change_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal is not asked for a while, except when the last quarter would be reached."""
    now_s, sums = [0.0], [0]

    def count() -> int:
        sums[0] += 1
        return journal.spool_bytes()

    with Journal.open(tmp_path) as journal:
        (row_id,) = spool(journal, app=1000)
        limit = SpoolLimit(journal, 4096, lambda: now_s[0], check_share=1)
        monkeypatch.setattr(journal, "spool_bytes_at_most", count)
        assert (limit.is_full(), limit.is_full(), sums) == (False, False, [1])
        journal.advance([Advance(row_id, "{}", (segment(2, 2, body=bytes(2000)),))])
        assert (limit.is_full(), sums) == (False, [1])
        journal.advance([Advance(row_id, "{}", (segment(3, 3, body=bytes(2000)),))])
        assert (limit.is_full(), sums) == (True, [2])
        journal.drop_spool(row_id)
        assert (limit.is_full(), sums) == (False, [3]), "a full spool is asked for each time"
        assert (limit.is_full(), sums) == (False, [3])
        now_s[0] = CHECK_S
        assert (limit.is_full(), sums) == (False, [4]), "others may have filled the disk"
