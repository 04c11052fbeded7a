"""Tests of talking to a daemon, or to none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import wal_database
from tests.engine.running import Place, running
from walsyncd.cli import main
from walsyncd.cli.daemon_client import Deadline


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_without_a_daemon_the_way_out_is_named(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """sync and snapshot need a daemon, and the error says how to start one. status reads the journal anyway."""
    with wal_database(place.database()), running(place.settings("app")):
        place.sync()
    for command in (["sync"], ["snapshot", "app"]):
        assert main([*command[:1], *place.config(), *command[1:]]) == 1
        assert "no daemon runs" in capsys.readouterr().err
    assert main(["status", *place.config()]) == 0
    out = capsys.readouterr().out
    assert "daemon: not running" in out
    assert "stopped" in out


def test_a_deadline_ends_and_none_does_not() -> None:
    """``pause`` returns False once the time is up. Without a time-out it never does."""
    assert not Deadline(0.0).pause()
    assert Deadline(None).pause()
