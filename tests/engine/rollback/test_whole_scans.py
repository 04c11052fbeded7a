"""Tests of walsyncd.engine.rollback.whole_scans, by its counts and in a whole daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.rollback.rollback_replicas import TABLE, filled
from tests.engine.running import Place, running, wait_for
from walsyncd.cli import main
from walsyncd.core.rollback.journal_trail import Doubt
from walsyncd.core.send.scan_pace import SMALL_BYTES
from walsyncd.engine.follow.environment import Environment
from walsyncd.engine.rollback.whole_scans import STEADY, UNWATCHED, WholeScans

LARGE = SMALL_BYTES + 1


def whole_scans() -> tuple[WholeScans, Environment]:
    """Return the count of whole scans of a database ``app``."""
    environment = Environment(cast("Any", None), lambda: None, "boot")
    return WholeScans(environment, "app"), environment


def test_only_a_steady_reason_is_said() -> None:
    """A large file that is read whole once is not reported. Each whole scan is counted."""
    scans, environment = whole_scans()
    for number in range(STEADY):
        assert scans.words == ""
        scans.accepted(Doubt.STRAY_WRITE, file_bytes=LARGE, is_watched=True)
        assert environment.whole_scans["app"] == number + 1
    assert "because the database was written without a journal" in scans.words
    scans.accepted(None, file_bytes=LARGE, is_watched=True)
    assert scans.words == ""


def test_a_small_file_is_always_read_whole() -> None:
    """Whole scans of a small file are not reported."""
    scans, environment = whole_scans()
    for _ in range(STEADY):
        scans.accepted(Doubt.STRAY_WRITE, file_bytes=SMALL_BYTES, is_watched=True)
    assert (scans.words, environment.whole_scans["app"]) == ("", 0)


def test_without_events_no_journal_can_be_seen() -> None:
    """A file that is not watched is read whole at each change, and the missing watch is the reason."""
    scans, _ = whole_scans()
    for _ in range(STEADY):
        scans.accepted(None, file_bytes=LARGE, is_watched=False)
    assert UNWATCHED in scans.words


def test_status_and_metrics_say_why_a_large_file_is_read_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In TRUNCATE mode no journal remains to be read. Changing to DELETE mode ends the whole scans."""
    place = Place(tmp_path)

    def words() -> str:
        (row,) = place.ask(op="status")["databases"]
        return str(row["reads_whole"])

    with SqliteProcess(place.database()) as app, running(place.settings("app")) as daemon:
        app.execute("PRAGMA journal_mode=TRUNCATE", *TABLE, filled(1600))
        place.sync()
        for number in range(STEADY):
            app.execute(f"UPDATE t SET y = {number} WHERE x = {number + 1}")
            place.sync()
        wait_for(lambda: "all of the file is read at each change, because" in words())
        assert daemon._environment.whole_scans["app"] >= STEADY
        assert main(["status", *place.config()]) == 0
        assert "PERSIST" in capsys.readouterr().out
        app.execute("PRAGMA journal_mode=DELETE")

        def has_ended() -> bool:
            app.execute("UPDATE t SET y = y + 1 WHERE x = 100")
            place.sync()
            return not words()

        wait_for(has_ended)
