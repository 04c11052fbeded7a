"""Tests of ``walsyncd prune``."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.running import Place, running, wait_for
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.cli import main
from walsyncd.errors import RefusedError


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def age(folder: Path, days: float) -> None:
    """Make everything in storage older by this many days."""
    moment = time.time() - days * 86_400
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (moment, moment))


def grow(place: Place) -> list[Path]:
    """Store two bases, of which the first only serves history of two weeks ago.

    Return the objects that may be deleted.
    """
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
    """It deletes nothing. The output is text or JSON."""
    doomed = grow(place)
    assert len(doomed) == 2
    assert main(["prune", *place.config(), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "older than retention, and no rule keeps it" in said
    assert main(["prune", *place.config(), "app", "--dry-run", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["databases"]
    assert {place.replica / "app" / each["key"] for each in told["going"]} == set(doomed)
    assert all(path.exists() for path in doomed)


def test_foreign_objects_are_reported_and_stay(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Their names are listed in text and JSON. Their owner may delete them."""
    doomed = grow(place)
    foreign = doomed[0].parent.parent / "notes.txt"
    foreign.write_text("not ours")
    age(place.replica / "app", 14)
    key = str(foreign.relative_to(place.replica))
    assert main(["prune", *place.config(), "--dry-run"]) == 0
    assert f"{key}  foreign: never touched" in capsys.readouterr().out
    assert main(["prune", *place.config(), "--dry-run", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["databases"]
    assert told["foreign"] == [key]
    with running(place.settings("app")):
        assert main(["prune", *place.config(), "app"]) == 0
    assert not any(path.exists() for path in doomed)
    assert foreign.read_text() == "not ours"


def test_two_daemons_that_prune_one_prefix(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """The daemon that came later owns the folder. The other one deletes nothing, and its command says why."""
    doomed = grow(place)
    other = Place(place.folder / "other")
    settings = other.settings("app")
    elsewhere = replace(settings, storage=place.settings("app").storage)
    with (
        running(place.settings("app")) as first,
        SqliteProcess(place.database()) as writer,
        wal_database(other.database()),
    ):
        writer.execute("insert into t values (3)")
        place.sync()
        with running(elsewhere, DirectoryStorage(place.replica)):
            other.sync()
            assert main(["prune", *place.config(), "app"]) == 1
            assert "another daemon writes to this database now" in capsys.readouterr().err
            assert all(path.exists() for path in doomed)
        assert first.crash is None


def test_the_daemon_prunes_when_asked(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """All that may be deleted is deleted, and the replica is sound."""
    doomed = grow(place)
    with running(place.settings("app")):
        assert main(["prune", *place.config(), "app"]) == 0
        assert not any(path.exists() for path in doomed)
        assert "app: 2 objects removed" in capsys.readouterr().out
        assert main(["prune", *place.config()]) == 0
        assert "app: 0 objects removed" in capsys.readouterr().out
    assert main(["verify", *place.config(), "app"]) == 0


class Unwilling(DirectoryStorage):
    """A storage that deletes nothing. It refuses, or answers that it did."""

    lies = False

    def delete(self, keys: Sequence[str]) -> None:
        if not self.lies:
            raise RefusedError("delete objects: the store answered 403 AccessDenied", hint="allow s3:DeleteObject")


def test_a_store_that_does_not_delete_is_told(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """If it refuses, the log says once what to do. If it answers yes and deletes nothing, the objects are named."""
    doomed = grow(place)
    storage = Unwilling(place.replica)
    with running(place.settings("app"), storage), capture_logs() as logs:
        for _ in range(2):
            assert main(["prune", *place.config(), "app"]) == 1
            said = capsys.readouterr().err
            assert "prune app: delete objects: the store answered 403 AccessDenied" in said
            assert "allow s3:DeleteObject; or write delete = false" in said
        place.sync()
        assert [log["event"] for log in logs].count("housekeeping_postponed") == 1
        storage.lies = True
        assert main(["prune", *place.config(), "app"]) == 1
        assert "1 objects are still there, first app/" in capsys.readouterr().err
    assert all(path.exists() for path in doomed)


def test_an_unknown_name_is_refused(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """The error lists the known names."""
    place.database().touch()
    assert main(["prune", *place.config(), "other", "--dry-run"]) == 2
    assert "configured: app" in capsys.readouterr().err
