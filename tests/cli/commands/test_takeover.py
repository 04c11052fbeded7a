"""Tests of ``walsyncd takeover``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import wal_database
from tests.engine.running import Place, running
from walsyncd.cli import main


def test_what_nobody_took_goes_on_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown name is refused, and the error lists the known ones."""
    place = Place(tmp_path)
    with wal_database(place.database()), running(place.settings("app")):
        place.sync()
        before = place.row().generation
        assert main(["takeover", *place.config(), "app"]) == 0
        assert capsys.readouterr().out == "app: this daemon writes it already\n"
        assert place.row().generation == before
        assert main(["takeover", *place.config(), "other"]) == 1
        assert "it follows: app" in capsys.readouterr().err
