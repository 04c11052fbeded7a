"""Tests of walsyncd.adapters.files.other_path_sign."""

from __future__ import annotations

from pathlib import Path

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from walsyncd.adapters.files.other_path_sign import OtherPathSign, other_path_sign


def sign(path: Path) -> tuple[bool, bool]:
    found = other_path_sign(path)
    assert isinstance(found, OtherPathSign)
    return found.is_bare, found.is_locked


def test_what_a_look_shows(tmp_path: Path) -> None:
    """Each case has its sign: in use, closed, with its -wal removed, with a -journal, in rollback mode, and missing."""
    path = tmp_path / "app.db"
    with wal_database(path) as app:
        app.execute("SELECT * FROM t")
        assert sign(path) == (False, True)
        app.close()
    assert sign(path) == (True, False)
    with SqliteProcess(path) as app:
        app.execute("SELECT * FROM t")
        path.with_name("app.db-wal").unlink()
        assert sign(path) == (True, True)
    path.with_name("app.db-journal").touch()
    assert sign(path)[0] is False
    other = tmp_path / "rollback.db"
    with SqliteProcess(other) as app:
        app.execute("CREATE TABLE t (x)", "BEGIN", "SELECT * FROM t")
        assert sign(other) == (False, True)
    assert sign(tmp_path / "missing.db") == (False, False)
