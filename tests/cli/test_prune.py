"""``walsyncd prune``."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tests.adapters.sqlite_process import wal_database
from tests.engine.running import Place, running, wait_for
from walsyncd.cli import main


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def age(folder: Path, days: float) -> None:
    """Everything there was stored so many days ago."""
    moment = time.time() - days * 86_400
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (moment, moment))


def grow(place: Place) -> list[Path]:
    """Two bases of which the first is only needed for history that is two weeks old; the objects that may go."""
    with wal_database(place.database()) as writer, running(place.settings("app")):
        place.sync()
        first = place.row().base_key
        writer.execute("insert into t values (1)", "pragma wal_checkpoint(restart)", "insert into t values (2)")
        place.sync()
        place.ask(op="snapshot", name="app")
        wait_for(lambda: place.row().base_key != first)
    age(place.replica / "app", 14)
    base = (first or "").split(".")[0]
    return sorted(place.replica.glob(f"app/{base}*"))


def test_dry_run_says_what_would_go_and_why(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """And removes nothing; as text and as JSON."""
    doomed = grow(place)
    assert len(doomed) == 2
    assert main(["prune", *place.config(), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "older than retention, and no rule keeps it" in said
    assert main(["prune", *place.config(), "app", "--dry-run", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["databases"]
    assert {place.replica / "app" / each["key"] for each in told["going"]} == set(doomed)
    assert all(path.exists() for path in doomed)


def test_the_daemon_prunes_when_asked(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """What may go goes, and the replica is sound."""
    doomed = grow(place)
    with running(place.settings("app")):
        assert main(["prune", *place.config(), "app"]) == 0
        wait_for(lambda: not any(path.exists() for path in doomed))
    assert main(["verify", *place.config(), "app"]) == 0


def test_an_unknown_name_is_refused(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """With the names that there are."""
    place.database().touch()
    assert main(["prune", *place.config(), "other", "--dry-run"]) == 2
    assert "configured: app" in capsys.readouterr().err
