"""Fixtures of an application and the follower of its database, with which most tests of following begin."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.following import Following, closed_database
from walsyncd.core.limits import DEFAULT_LIMITS, Limits


@pytest.fixture
def app(tmp_path: Path) -> Iterator[SqliteProcess]:
    """Return a process that has a database in WAL mode open, with a table ``t``."""
    with wal_database(tmp_path / "app.db") as process:
        yield process


@pytest.fixture
def limits() -> Limits:
    """Return the limits of ``follow``. A module with other limits has a fixture of this name."""
    return DEFAULT_LIMITS


@pytest.fixture
def follow(request: pytest.FixtureRequest, tmp_path: Path, limits: Limits) -> Iterator[Following]:
    """Return a follower that has begun a generation.

    It follows the database of ``app`` if the test has that, else a closed one.
    """
    path = tmp_path / "app.db"
    if "app" in request.fixturenames:
        request.getfixturevalue("app")
    else:
        closed_database(path)
    with Following(path, tmp_path / "f", limits=limits).begin() as following:
        yield following
