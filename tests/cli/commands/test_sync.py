"""Tests of ``walsyncd sync`` beside a running daemon."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import wal_database
from tests.engine.running import Place, running
from tests.fakes import Call, FakeStorage
from walsyncd.cli import main
from walsyncd.errors import TransientError


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_sync_prints_the_position_that_is_stored(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """All that was committed before the call is in storage when it returns, whatever the upload interval."""
    with wal_database(place.database()) as writer, running(place.settings("app")):
        for value in range(1, 30):
            writer.execute(f"insert into t values ({value})")
        assert main(["sync", *place.config(), "app"]) == 0
        name, position = capsys.readouterr().out.split()
        row = place.row()
        assert name == "app"
        assert position == f"{row.stored_generation}/{row.stored_epoch:08x}/{row.stored_frame:08x}"
        assert row.spooled_bytes == 0


def test_sync_says_what_it_still_waits_for(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """If storage is away, it ends with 1 after its time-out, and names what is missing."""
    storage = FakeStorage()

    def away(_call: Call) -> None:
        raise TransientError("storage is away")

    storage.before = away
    with wal_database(place.database()), running(place.settings("app"), storage):
        assert main(["sync", *place.config(), "--timeout", "200ms"]) == 1
        assert "app is not stored after 200ms" in capsys.readouterr().err
        storage.before = lambda _call: None
