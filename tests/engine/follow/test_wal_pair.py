"""Tests of walsyncd.engine.follow.wal_pair: which read of the wal-index shows all of an incarnation that is over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.following import insert
from walsyncd.adapters.files.source import Role, open_file, side_path
from walsyncd.core.sqlite.walindex import IndexHeader, parse_index_header
from walsyncd.engine.follow.wal_pair import INDEX_READS_MAX, IndexReads, frames_behind


def shows(last: int) -> IndexHeader:
    return IndexHeader(5, False, 4096, last, 9, (1, 2), (3, 4), 0, (0, 0, 0, 0, 0))


def tell(index_reads: IndexReads, *events: str) -> None:
    for event in events:
        if event == "wal":
            index_reads.wal_written()
        else:
            index_reads.database_written()


def good(index_reads: IndexReads, *, followed: bool) -> list[int]:
    return [index.max_frame for index in index_reads.last(followed=followed)]


@pytest.mark.parametrize(
    ("events", "before_its_first_frame", "after"),
    [
        ([], True, True),
        (["database", "database"], True, True),
        (["database", "wal", "wal"], True, True),
        (["wal", "database"], False, True),
        (["wal", "database", "database"], False, True),
        (["database", "wal", "database", "wal"], False, False),
        (["wal", "database", "wal"], False, False),
    ],
)
def test_an_index_read_is_good_until_a_commit_may_have_come_and_gone(
    events: list[str], *, before_its_first_frame: bool, after: bool
) -> None:
    """Such a commit is written to the WAL, copied back, and overwritten, and the read does not show it."""
    index_reads = IndexReads()
    index_reads.add(shows(1), moving=False)
    tell(index_reads, *events)
    assert bool(good(index_reads, followed=False)) is before_its_first_frame
    assert bool(good(index_reads, followed=True)) is after


def test_frames_that_stood_there_need_not_be_written_any_more() -> None:
    """Frames that were there already may be published, and copied back, without another write."""
    index_reads = IndexReads()
    index_reads.add(shows(1), moving=True)
    tell(index_reads, "database")
    assert good(index_reads, followed=False) == []
    tell(index_reads, "wal")
    assert good(index_reads, followed=True) == []


def test_events_while_the_index_is_read_count() -> None:
    """The index read begins before the wal-index is read."""
    index_reads = IndexReads()
    index_read = index_reads.begin()
    tell(index_reads, "wal", "database", "wal")
    index_reads.take(index_read, shows(1), moving=False)
    assert good(index_reads, followed=True) == []


@pytest.mark.parametrize("is_put_off", [False, True])
def test_frames_that_were_there_and_are_copied_back_while_the_index_is_read(*, is_put_off: bool) -> None:
    """The frames were written before the read began. They are published after the read, and copied back at once."""
    index_reads = IndexReads()
    index_read = index_reads.begin(is_put_off=is_put_off)
    tell(index_reads, "database")
    index_reads.take(index_read, shows(1), moving=True)
    assert good(index_reads, followed=False) == []
    assert good(index_reads, followed=True) == [1]
    tell(index_reads, "wal")
    assert good(index_reads, followed=True) == []


def test_a_look_and_one_that_is_put_off_read_at_the_same_time() -> None:
    """Neither of the looks ends the other's index read, and events count for both."""
    index_reads = IndexReads()
    put_off, of_look = index_reads.begin(is_put_off=True), index_reads.begin()
    tell(index_reads, "wal", "database")
    index_reads.take(put_off, shows(1), moving=False)
    index_reads.take(of_look, shows(2), moving=False)
    assert good(index_reads, followed=True) == [1, 2]
    tell(index_reads, "wal")
    assert good(index_reads, followed=True) == []


def test_an_index_read_while_events_were_lost_is_none() -> None:
    """No earlier index read is good either."""
    index_reads = IndexReads()
    index_reads.add(shows(1), moving=False)
    index_read = index_reads.begin()
    index_reads.forget()
    index_reads.take(index_read, shows(2), moving=False)
    assert good(index_reads, followed=True) == []


def test_the_last_index_reads_are_kept() -> None:
    """As many index reads are kept as may be of use."""
    index_reads = IndexReads()
    for last in range(10):
        index_reads.take(index_reads.begin(), shows(last), moving=False)
    assert good(index_reads, followed=True) == list(range(10))[-INDEX_READS_MAX:]


def is_behind(path: Path, **changed: Any) -> bool:
    """Return whether frames come after the last one, for the wal-index as it is, with these changes."""
    shm, wal = open_file(side_path(path, Role.SHM)), open_file(side_path(path, Role.WAL))
    assert shm is not None
    assert wal is not None
    with shm, wal:
        index = parse_index_header(shm.pread(0, 136))
        assert index is not None
        return frames_behind(wal, shm, replace(index, **changed))


def test_frames_behind_the_last_one(tmp_path: Path) -> None:
    """Frames of a transaction that spilled count, and those of an earlier incarnation do not."""
    path = tmp_path / "app.db"

    with wal_database(path) as app, SqliteProcess(path) as other:
        assert not is_behind(path)
        assert is_behind(path, salts=(7, 7)), "of an incarnation that is over"
        app.execute("PRAGMA cache_size=1", "BEGIN", *("INSERT INTO t VALUES (randomblob(20000))" for _ in range(9)))
        assert is_behind(path)
        app.execute("ROLLBACK")
        assert is_behind(path)
        other.execute(insert(1), "PRAGMA wal_checkpoint", insert(2))
        assert not is_behind(path)


def test_frames_of_an_emptied_wal_that_was_begun_with_other_salts(tmp_path: Path) -> None:
    """The wal-index shows them together with their commit."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, SqliteProcess(path) as other:
        other.execute("SELECT * FROM t")
        app.execute(insert(1), "PRAGMA wal_checkpoint(TRUNCATE)")
        assert not is_behind(path)
        other.execute("PRAGMA cache_size=1", "BEGIN", *("INSERT INTO t VALUES (randomblob(20000))" for _ in range(9)))
        assert is_behind(path)
