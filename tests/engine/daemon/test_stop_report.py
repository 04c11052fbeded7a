"""Tests of what a stop reports to be left."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.adapters.files.sqlite_process import wal_database
from tests.engine.running import Place, running
from tests.fakes import Call, FakeStorage
from tests.shipping import T0, segment
from walsyncd.adapters.journal.journal import Advance, Journal
from walsyncd.engine.daemon.stop_report import report_unshipped
from walsyncd.errors import MissingError, RefusedError, TransientError


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_nothing_left_is_clean_and_a_missing_database_too(place: Place) -> None:
    """Nothing of a missing file can be left."""
    with Journal.open(place.state) as journal:
        assert report_unshipped(journal, [], {"gone": MissingError("it does not exist")})
        assert not report_unshipped(journal, [], {"closed": RefusedError("permission denied")})


def test_what_stays_in_the_spool_is_named_exactly(place: Place) -> None:
    """The report has each database with the number of objects, their bytes, and the first and last key."""
    first, last = segment(1, 2), segment(3, 4)
    with Journal.open(place.state) as journal, capture_logs() as logs:
        row = journal.database("app", "/srv/app.db")
        journal.begin_generation(row.id, first.generation, "test", "{}", T0)
        journal.advance([Advance(row.id, "{}", (first, last))])
        assert not report_unshipped(journal, [], {})
    (line,) = logs
    assert (line["event"], line["database"], line["objects"]) == ("left_in_spool", "app", 2)
    assert (line["first"], line["last"]) == (first.key, last.key)


def test_a_generation_without_a_base_is_not_clean(place: Place) -> None:
    """Such a generation restores nothing, and a host that is being retired must not look clean."""
    storage = FakeStorage()

    def no_base(call: Call) -> None:
        if "/base/" in call.key:
            raise TransientError("storage is away")

    storage.before = no_base
    with wal_database(place.database()), capture_logs() as logs:
        with running(place.settings("app"), storage) as daemon:
            assert "error" not in place.ask(op="sync", names=["app"])["databases"]["app"]
            assert daemon.databases[0].state is not None
        assert "base_left_unfinished" in [line["event"] for line in logs]
