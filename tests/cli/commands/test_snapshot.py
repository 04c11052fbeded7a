"""Tests of ``walsyncd snapshot``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import wal_database
from tests.engine.running import Place, running
from walsyncd.cli import main


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_snapshot_prints_the_manifest_of_the_new_base(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown name is refused, and the error lists the known ones."""
    with wal_database(place.database()), running(place.settings("app")):
        place.sync()
        before = place.row().base_key
        assert main(["snapshot", *place.config(), "app"]) == 0
        assert capsys.readouterr().out.split() == ["app", place.row().base_key]
        assert place.row().base_key != before
        assert main(["snapshot", *place.config(), "other"]) == 1
        assert "it follows: app" in capsys.readouterr().err
