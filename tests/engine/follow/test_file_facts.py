"""Tests of walsyncd.engine.follow.file_facts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.following import Following
from walsyncd.engine.follow.file_facts import database_identity, file_facts
from walsyncd.errors import MissingError


def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    """MissingError says how it goes on."""
    path = tmp_path / "app.db"
    with SqliteProcess(path) as app, Following(path, tmp_path / "f") as follow:
        app.execute("CREATE TABLE t (x)")
        assert database_identity(follow.tracked).size > 0
        path.unlink()
        with pytest.raises(MissingError, match="picked up"):
            database_identity(follow.tracked)


def test_a_file_is_what_it_is_and_what_it_looks_like(tmp_path: Path) -> None:
    """The same file, written to, is the same file of another look; another file under its name is not."""
    path = tmp_path / "app.db"
    path.write_bytes(b"one")
    with Following(path, tmp_path / "f") as follow:
        before = file_facts(database_identity(follow.tracked), "boot", None)
        path.write_bytes(b"three")
        after = file_facts(database_identity(follow.tracked), "boot", None)
        assert after.is_file(before)
        assert not after.has_content_of(before)
        (tmp_path / "new").write_bytes(b"three")
        (tmp_path / "new").rename(path)
        assert not file_facts(database_identity(follow.tracked), "boot", None).is_file(after)
