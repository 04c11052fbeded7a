"""Tests of databases of every shape that SQLite makes: each is followed through commits, restarts of the WAL and a
close.

`Keeping` compares each stored position with what SQLite itself makes of the files at that commit.
"""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.following import insert
from tests.engine.keeping import Keeping
from tests.wal_files import with_checksums
from walsyncd.core.sqlite.wal import parse_wal_header

CHECKPOINT = "PRAGMA wal_checkpoint"
NUMBERS = "WITH RECURSIVE v(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM v WHERE n < {}) SELECT n"

SHAPES = {
    **{f"pages of {size} bytes": [f"PRAGMA page_size={size}"] for size in (512, 1024, 2048, 8192, 16384, 32768, 65536)},
    **{f"synchronous={level}": [f"PRAGMA synchronous={level}"] for level in ("OFF", "NORMAL", "FULL", "EXTRA")},
    "auto_vacuum": ["PRAGMA auto_vacuum=FULL"],
    "secure_delete": ["PRAGMA secure_delete=ON"],
    "journal_size_limit": ["PRAGMA journal_size_limit=0"],
    "a small cache": ["PRAGMA cache_size=3"],
    "memory-mapped": ["PRAGMA mmap_size=10000000"],
}


@pytest.mark.parametrize(("shape", "module"), list(zip(SHAPES, cycle(["sqlite3", "apsw"]), strict=False)))
def test_a_shape_is_followed(tmp_path: Path, shape: str, module: str) -> None:
    """There are large values, an index, deletions that shrink the file, a restart and a truncation of the WAL, a last
    close.
    """
    path = tmp_path / "app.db"
    with SqliteProcess(path, module=module) as app:
        app.execute(*SHAPES[shape], "PRAGMA journal_mode=WAL", "CREATE TABLE t (x)", "CREATE INDEX i ON t (x)")
        with Keeping(path, tmp_path / "f") as keeping:
            keeping.note()
            assert not keeping.watch_over(
                app,
                "SELECT count(*) FROM t",
                f"INSERT INTO t SELECT randomblob(2000) FROM ({NUMBERS.format(50)} FROM v)",
                "INSERT INTO t VALUES (zeroblob(300000))",
                CHECKPOINT,
                "DELETE FROM t WHERE rowid > 5",
                "VACUUM",
                insert(1),
                f"{CHECKPOINT}(TRUNCATE)",
                insert(2),
            )
            app.close()
            keeping.note()
            assert not keeping.keep_up()
            with SqliteProcess(path, module=module) as other:
                assert not keeping.watch_over(other, "SELECT count(*) FROM t", insert(3))


CONTENTS = {
    "WITHOUT ROWID": [
        "CREATE TABLE w (k TEXT PRIMARY KEY, v) WITHOUT ROWID",
        f"INSERT INTO w SELECT n, randomblob(500) FROM ({NUMBERS.format(100)} FROM v)",
        "DELETE FROM w WHERE k LIKE '%7'",
        "UPDATE w SET v = zeroblob(9000) WHERE k LIKE '%3'",
    ],
    "FTS5": [
        "CREATE VIRTUAL TABLE f USING fts5(body)",
        f"INSERT INTO f SELECT 'word' || n || ' and ' || hex(randomblob(50)) FROM ({NUMBERS.format(200)} FROM v)",
        "INSERT INTO f(f) VALUES ('optimize')",
        "DELETE FROM f WHERE rowid % 3 = 0",
        "INSERT INTO f(f) VALUES ('rebuild')",
    ],
    "blobs of many pages": [
        "CREATE TABLE b (x BLOB)",
        "INSERT INTO b VALUES (randomblob(3000000))",
        "UPDATE b SET x = randomblob(1000000)",
        "DELETE FROM b",
    ],
    "incremental_vacuum": [
        "CREATE TABLE b (x BLOB)",
        f"INSERT INTO b SELECT randomblob(3000) FROM ({NUMBERS.format(200)} FROM v)",
        "DELETE FROM b WHERE rowid % 2",
        "PRAGMA incremental_vacuum(20)",
        "PRAGMA incremental_vacuum",
    ],
    "schema changes": [
        "CREATE TABLE a (x)",
        "ALTER TABLE a ADD COLUMN y DEFAULT 5",
        "CREATE TRIGGER r AFTER INSERT ON a BEGIN INSERT INTO t VALUES (new.x); END",
        "INSERT INTO a VALUES (1, 2)",
        "DROP TABLE a",
        "PRAGMA user_version=9",
    ],
}


@pytest.mark.parametrize("content", CONTENTS)
def test_a_content_is_followed(tmp_path: Path, content: str) -> None:
    """Each content is tried twice, the second time in a WAL that restarted."""
    path = tmp_path / "app.db"
    with SqliteProcess(path) as app, Keeping(path, tmp_path / "f") as keeping:
        app.execute("PRAGMA auto_vacuum=INCREMENTAL", "PRAGMA journal_mode=WAL", "CREATE TABLE t (x)")
        keeping.note()
        assert not keeping.watch_over(app, *CONTENTS[content], CHECKPOINT, insert(1), insert(2))
        keeping.take_base()


def test_a_wal_of_a_big_endian_host(tmp_path: Path) -> None:
    """SQLite continues in the byte order of the WAL that it recovered, and so do we."""
    path = tmp_path / "app.db"
    with wal_database(path) as app:
        app.execute(insert(1))
        app.kill()
    wal = path.with_name("app.db-wal")
    wal.write_bytes(with_checksums(wal.read_bytes(), big_endian=True))
    path.with_name("app.db-shm").unlink()
    with SqliteProcess(path) as app, Keeping(path, tmp_path / "f") as keeping:
        keeping.note()
        assert not keeping.watch_over(app, "SELECT * FROM t", insert(2), insert(3))
        header = parse_wal_header(wal.read_bytes())
        assert header is not None
        assert header.big_endian
        assert not keeping.watch_over(app, CHECKPOINT, insert(4), insert(5))
        app.kill()
        with SqliteProcess(path) as other:
            assert not keeping.watch_over(other, "SELECT * FROM t", insert(6))


def test_pad_frames(tmp_path: Path) -> None:
    """psow=0 fills the sector with copies of the commit frame.

    These copies are followed, but can't be counted across a restart.
    """
    path = tmp_path / "app.db"
    with SqliteProcess(f"file:{path}?psow=0") as app, Keeping(path, tmp_path / "f") as keeping:
        app.execute("PRAGMA page_size=512", "PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "CREATE TABLE t (x)")
        keeping.note()
        assert not keeping.watch_over(app, insert(1), insert(2))
        before = keeping.cursor.frames
        assert not keeping.watch_over(app, insert(3))
        assert keeping.cursor.frames > before + 1
        app.execute(insert(4))
        keeping.note()
        app.execute(CHECKPOINT, insert(5))
        keeping.note()
        assert "commit" in keeping.keep_up()
        assert not keeping.watch_over(app, insert(6))


def test_a_database_that_was_never_written(tmp_path: Path) -> None:
    """An empty file is no database yet. A file with only a header is one."""
    path = tmp_path / "app.db"
    path.touch()
    with Keeping(path, tmp_path / "f") as keeping, SqliteProcess(path) as app:
        keeping.keep_up()
        assert keeping.bases == 0
        app.execute("PRAGMA journal_mode=WAL")
        keeping.note()
        assert not keeping.watch_over(app, "SELECT * FROM sqlite_master", "CREATE TABLE t (x)", insert(1))
        assert keeping.bases == 1
