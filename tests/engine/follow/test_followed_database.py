"""Tests of walsyncd.engine.follow.followed_database."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import wal_database
from tests.engine.following import Following, spec_of
from walsyncd.engine.follow import copy_frames
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.wal_pairs import WalPairs


def test_forgetting_leaves_nothing_of_the_generation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even half of a transaction; a new generation needs no verification of what was shipped."""
    monkeypatch.setattr(copy_frames, "BATCH_BYTES", 4120)
    path = tmp_path / "app.db"
    with wal_database(path) as app, Following(path, tmp_path / "f").begin() as follow:
        follow.look()
        app.execute("INSERT INTO t SELECT hex(randomblob(90000))")
        follow.step()
        tracked = follow.tracked
        assert tracked.pending is not None
        tracked.base_wanted = "asked for"
        tracked.believe_index = False
        tracked.forget()
        fresh = FollowedDatabase(tracked.spec, tracked.row_id, tracked.wal_pairs, verified=True)
        assert tracked == fresh


def test_a_database_is_called_by_its_configuration() -> None:
    """Path and name are those of the entry."""
    path = Path("/nowhere/app.db")
    tracked = FollowedDatabase(spec_of(path), 1, WalPairs(path))
    assert (tracked.path, tracked.name) == (path, "app")
