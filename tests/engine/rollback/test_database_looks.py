"""Tests of the looks at a real database, with the moments that they decide."""

from __future__ import annotations

from pathlib import Path

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.following import Following
from walsyncd.engine.rollback.committed_moment import Hindrance, MomentStart, begin_moment, end_moment
from walsyncd.engine.rollback.database_looks import DatabaseLooks

SPILL = ("PRAGMA cache_size=3", "BEGIN", "INSERT INTO t SELECT hex(randomblob(200000))")


def looks_at(follow: Following) -> DatabaseLooks:
    file = follow.tracked.open()
    assert file is not None
    return DatabaseLooks(follow.tracked, follow.environment, file, 4096)


def test_what_other_processes_do_between_the_looks(tmp_path: Path) -> None:
    """If nothing happens, or another process reads or holds RESERVED, the pages are believed.

    After a commit, a spill that is rolled back, or another file they are not believed.
    """
    path = tmp_path / "app.db"
    with SqliteProcess(path) as app, SqliteProcess(path) as other:
        app.execute("CREATE TABLE t (x)", "INSERT INTO t VALUES (1)")
        with Following(path, tmp_path / "f").begin() as follow:

            def found(*statements: str) -> Hindrance | None:
                looks = looks_at(follow)
                start = begin_moment(looks)
                assert isinstance(start, MomentStart), start
                other.execute(*statements)
                return end_moment(looks, start, start.page_1)

            assert found("SELECT 1") is None
            assert found("BEGIN", "SELECT * FROM t") is None
            assert found("COMMIT", "BEGIN IMMEDIATE", "INSERT INTO t VALUES (2)") is None
            assert isinstance(begin_moment(looks_at(follow)), MomentStart)
            assert found("COMMIT") is Hindrance.WRITTEN
            assert found(*SPILL, "ROLLBACK") is Hindrance.WRITTEN
            assert found(*SPILL) is Hindrance.WRITER
            assert begin_moment(looks_at(follow)) is Hindrance.WRITER
            other.kill()
            assert begin_moment(looks_at(follow)) is Hindrance.HOT
            app.execute("SELECT count(*) FROM t")
            looks = looks_at(follow)
            start = begin_moment(looks)
            assert isinstance(start, MomentStart)
            path.rename(tmp_path / "away.db")
            path.write_bytes((tmp_path / "away.db").read_bytes())
            assert end_moment(looks, start, start.page_1) is Hindrance.REPLACED
