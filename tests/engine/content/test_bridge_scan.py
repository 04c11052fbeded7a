"""Tests of walsyncd.engine.content.bridge_scan: if it is only possible that something was missed, and nothing was,
nothing is shipped.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.content.gaps import Gaps
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.stored.position import Position

DOUBT = Gap.of(GapKind.DOUBT, "somebody may have written")


@pytest.fixture
def gaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gaps]:
    with closing(Gaps(tmp_path, page_size=4096, auto_vacuum=0)) as gaps:
        gaps.sql("INSERT INTO t (y) VALUES " + ", ".join("(randomblob(900))" for _ in range(300)))
        gaps.settle()
        gaps.sql("PRAGMA wal_checkpoint(TRUNCATE)")
        gaps.settle()
        yield gaps


def position(gaps: Gaps) -> Position:
    assert gaps.tracked.state is not None
    return gaps.tracked.state.stream.position


def stays(gaps: Gaps, before: Position) -> None:
    """Assert that nothing was shipped, and following continues in the same epoch."""
    gaps.settle()
    assert (gaps.generations, gaps.bridges, position(gaps)) == (1, 0, before)
    assert gaps.journal.gaps() == {}
    gaps.check()
    gaps.sql("UPDATE t SET y = randomblob(900) WHERE x = 5")
    gaps.settle()
    gaps.check()
    after = position(gaps)
    assert (gaps.bridges, after.epoch) == (0, before.epoch)
    assert after.frame > before.frame


def test_the_application_was_closed_while_the_daemon_was_away(gaps: Gaps) -> None:
    """Nobody saw the WAL's end. The file shows that all of it was known."""
    before = position(gaps)
    gaps.die()
    gaps.app.close()
    gaps.open()
    gaps.app = SqliteProcess(gaps.path)
    stays(gaps, before)


def test_a_doubt_beside_a_wal_that_was_shipped(gaps: Gaps) -> None:
    """The WAL holds exactly what was shipped, and all else is in the file."""
    gaps.sql("UPDATE t SET y = randomblob(900) WHERE x = 7")
    gaps.settle()
    before = position(gaps)
    gaps.follower.leave(gaps.tracked, DOUBT)
    stays(gaps, before)


def test_the_file_is_a_copy_of_itself(gaps: Gaps) -> None:
    """The file is in a container that was made again, so it has another inode with the same content."""
    before = position(gaps)
    gaps.die()
    gaps.app.close()
    copy = gaps.folder / "copy.db"
    shutil.copyfile(gaps.path, copy)
    copy.replace(gaps.path)
    gaps.open()
    gaps.app = SqliteProcess(gaps.path)
    stays(gaps, before)


def test_a_daemon_that_dies_meanwhile_clears_it_later(gaps: Gaps) -> None:
    """The doubt is in the journal until then."""
    before = position(gaps)
    gaps.follower.leave(gaps.tracked, DOUBT)
    gaps.look()
    gaps.scan()
    gaps.die()
    gaps.open()
    stays(gaps, before)


def test_pages_that_differ_are_bridged(gaps: Gaps) -> None:
    """Only the file shows a commit that nobody saw."""
    gaps.die()
    gaps.sql("UPDATE t SET y = randomblob(900) WHERE x = 3")
    gaps.app.close()
    gaps.open()
    gaps.app = SqliteProcess(gaps.path)
    gaps.settle()
    gaps.check()
    assert (gaps.generations, gaps.bridges) == (1, 1)


def test_a_file_that_was_cut_is_not_the_same(gaps: Gaps) -> None:
    """None of its pages differs."""
    gaps.die()
    gaps.app.close()
    with gaps.path.open("r+b") as file:
        file.truncate(gaps.path.stat().st_size - 4096)
    gaps.open()
    for _ in range(200):
        gaps.look()
        gaps.scan()
        gaps.store()
    assert gaps.bridges == 1


def test_a_lost_update_is_not_hidden_by_the_next_ones(gaps: Gaps) -> None:
    """A transfer was missed, then each of its rows was changed in the next WAL. No page differs, and it is bridged."""
    gaps.sql("CREATE TABLE u (x, y)", "INSERT INTO u VALUES (1, 99)")
    gaps.sql("CREATE TABLE v (x, y)", "INSERT INTO v VALUES (1, 0)")
    gaps.settle()
    gaps.die()
    gaps.sql("PRAGMA wal_checkpoint(TRUNCATE)")
    gaps.sql("BEGIN", "UPDATE u SET y = 92", "UPDATE v SET y = 7", "COMMIT", "PRAGMA wal_checkpoint(TRUNCATE)")
    gaps.sql("UPDATE u SET y = 92", "UPDATE v SET y = 7")
    gaps.open()
    gaps.settle()
    gaps.check()
    assert gaps.bridges == 1


def test_commits_that_were_missed_for_certain_are_bridged_though_nothing_differs(gaps: Gaps) -> None:
    """The states in between can't be restored, and the bridge says so."""
    gaps.follower.leave(gaps.tracked, Gap.of(GapKind.OVERWRITTEN, "they are lost"))
    gaps.settle()
    assert gaps.bridges == 1
    gaps.check()


def test_commits_before_a_wal_that_is_still_empty_are_missed(gaps: Gaps) -> None:
    """The daemon was away while the application committed, was closed, and opened the database again."""
    gaps.reopen(kill=False)
    gaps.settle()
    gaps.die()
    gaps.sql("UPDATE t SET y = randomblob(900) WHERE x = 3")
    gaps.reopen(kill=False)
    gaps.open()
    gaps.settle()
    gaps.check()
    assert (gaps.generations, gaps.bridges) == (1, 1)
