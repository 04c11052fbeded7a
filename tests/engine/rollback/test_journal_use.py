"""Tests of walsyncd.engine.rollback.journal_use: who wrote what was shipped, by its counts and in a whole daemon."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.rollback.rollback_replicas import TABLE, filled, restored
from tests.engine.running import Place, running, wait_for
from walsyncd.core.restore.plan import AtPosition
from walsyncd.core.stored.position import parse_position
from walsyncd.engine.follow.step import CommittedScan
from walsyncd.engine.rollback.journal_use import JournalUse


def moment(counter: int | None, *, journal_events: int) -> CommittedScan:
    """Return a moment with this change counter, after so many events of the journal."""
    return CommittedScan(0, journal_events, 0.0, 0, counter)


@pytest.mark.parametrize(
    ("counter", "events", "unjournalled", "logged"),
    [
        (8, 6, False, []),
        (8, 5, True, ["written_without_journal"]),
        (None, 5, True, ["written_without_journal"]),
        (7, 5, False, ["file_overwritten"]),
        (3, 5, False, ["file_overwritten"]),
    ],
)
def test_only_sqlite_counts_its_commits(
    counter: int | None, events: int, *, unjournalled: bool, logged: list[str]
) -> None:
    """Each case comes after a moment with counter 7 and 5 events of the journal."""
    use = JournalUse("app")
    use.accepted(moment(7, journal_events=5), is_changed=False, before="")
    with capture_logs() as logs:
        use.accepted(moment(counter, journal_events=events), is_changed=True, before="the position")
    assert use.is_unjournalled is unjournalled
    assert [line["event"] for line in logs] == logged


def test_a_copy_over_the_file_is_shipped_and_nothing_is_left_to_say(tmp_path: Path) -> None:
    """`cp` and a write by another name are each in the log, with the position before it, and the state is well."""
    place = Place(tmp_path)
    path, backup, link = place.database(), tmp_path / "backup.db", tmp_path / "link.db"
    with SqliteProcess(path) as app, running(place.settings("app")), capture_logs() as logs:
        app.execute(*TABLE, filled(100))
        place.sync()
        backup.write_bytes(path.read_bytes())
        app.execute("UPDATE t SET y = randomblob(3000) WHERE x > 50")
        positions = [place.sync()]
        contents = [path.read_bytes()]
        subprocess.run(["cp", str(backup), str(path)], check=True)
        positions.append(place.sync())
        contents.append(path.read_bytes())
        wait_for(lambda: place.row().state == "following")
        os.link(path, link)
        with link.open("r+b") as file:
            file.seek(20 * 4096 + 2000)
            file.write(b"by another name")
        place.sync()
        wait_for(lambda: place.row().state == "following")
        assert restored(place) == path.read_bytes()
        told = [line["position"] for line in logs if line["event"] == "file_overwritten"]
        assert [restored(place, AtPosition(parse_position(position))) for position in told] == contents
        assert not [line for line in logs if line["event"] == "written_without_journal"]
