"""Tests of begin_generation: where a generation begins, and which WAL is accepted after a time without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.following import Following, closed_database, insert
from walsyncd.errors import MissingError


def test_no_database_yet(tmp_path: Path) -> None:
    """A missing database is followed when it appears. An empty file is followed from its first transaction on."""
    path = tmp_path / "app.db"
    with Following(path, tmp_path / "f") as follow:
        with pytest.raises(MissingError, match="does not exist"):
            follow.begin()
        path.touch()
        with pytest.raises(MissingError, match="is empty"):
            follow.begin()


def test_a_generation_begins_before_frame_one(tmp_path: Path) -> None:
    """All frames of the current incarnation are stored, also those from before."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, Following(path, tmp_path / "f").begin() as follow:
        assert follow.cursor.frames == 0
        follow.look()
        assert follow.cursor.frames > 2
        follow.proves(app)


def test_the_first_opening_ever(tmp_path: Path) -> None:
    """A WAL that appears beside a closed database is accepted with all its commits."""
    path = tmp_path / "app.db"
    closed_database(path)
    with Following(path, tmp_path / "f").begin() as follow:
        follow.look()
        assert follow.state.cursor is None
        with SqliteProcess(path) as app:
            app.execute(insert(1))
            app.execute(insert(2))
            assert not follow.look().gap
            follow.proves(app)
