"""Tests of walsyncd.adapters.files.match_examination."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import wal_database
from walsyncd.adapters.files.match_examination import examine_match


def test_databases_pass(tmp_path: Path) -> None:
    """Databases of any size pass, also encrypted ones and those that no longer exist."""
    path = tmp_path / "app.db"
    with wal_database(path) as app:
        assert examine_match(path) is None
        app.close()
    assert examine_match(path) is None
    (tmp_path / "empty.db").touch()
    assert examine_match(tmp_path / "empty.db") is None
    (tmp_path / "encrypted.db").write_bytes(os.urandom(8192))
    assert examine_match(tmp_path / "encrypted.db") is None
    assert examine_match(tmp_path / "missing.db") is None


@pytest.mark.parametrize("kind", ["text", "folder", "fifo", "link"])
def test_other_things_do_not(tmp_path: Path, kind: str) -> None:
    """Other files are refused with the reason and what to do."""
    path = tmp_path / "app.db"
    match kind:
        case "text":
            path.write_text("hello\n" * 512)
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case _:
            path.symlink_to("elsewhere")
    error = examine_match(path)
    assert error is not None
    assert error.message
    assert error.hint
