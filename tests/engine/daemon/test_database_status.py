"""Tests of the status of databases, from the journal alone."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tests.shipping import G1, T0, segment
from walsyncd.adapters.journal.journal import Advance, Journal, reader
from walsyncd.core.follow.database_state import DatabaseState
from walsyncd.engine.daemon.database_status import parse_status, statuses, unseen
from walsyncd.errors import NewerFormatError


def test_lag_is_the_age_of_the_oldest_commit_that_waits(tmp_path: Path) -> None:
    """If nothing waits it is 0, however old the last commit is."""
    with Journal.open(tmp_path) as journal:
        idle = journal.database("idle", "/srv/idle.db")
        busy = journal.database("busy", "/srv/busy.db")
        for row in (idle, busy):
            journal.begin_generation(row.id, G1, "test", None, T0)
        journal.advance([Advance(busy.id, None, (segment(1, 1), segment(2, 5)))])
        journal.note_error(idle.id, "storage is away", T0)
        with reader(tmp_path) as view:
            told = {status.name: status for status in statuses(view, now_ms=T0 + 2001)}
            assert [status.name for status in statuses(view, now_ms=T0, configured=["idle"])] == ["idle"]
    assert (told["busy"].lag_s, told["busy"].spool_objects) == (2.0, 2)
    assert (told["idle"].lag_s, told["idle"].spool_objects) == (0, 0)
    assert (told["idle"].error, told["idle"].error_ms) == ("storage is away", T0)
    assert told["busy"].position is None


def test_a_daemon_of_another_version_is_understood() -> None:
    """Fields that it adds are ignored, and those that it lacks have their defaults. A field that is needed is named."""
    status = unseen("app", "/srv/app.db")
    values = asdict(status)
    assert parse_status(values | {"temperature": 20}) == status
    assert parse_status({name: value for name, value in values.items() if name != "unseen_s"}) == status
    with pytest.raises(NewerFormatError, match=r"has no path, state: .* another version"):
        parse_status({name: value for name, value in values.items() if name not in {"path", "state"}})


def test_a_state_that_only_a_newer_daemon_knows_is_no_good_one() -> None:
    """An unknown state is shown as failing, and not as a state in which nothing is wrong."""
    values = asdict(unseen("app", "/srv/app.db"))
    assert parse_status(values | {"state": "floating"}).state is DatabaseState.FAILING
    assert parse_status(values | {"state": "following"}).state is DatabaseState.FOLLOWING


def test_without_a_daemon_nobody_follows() -> None:
    """A problem that the last daemon noted stays."""
    status = unseen("app", "/srv/app.db")
    changed = {state for state in DatabaseState if replace(status, state=state).without_daemon().state is not state}
    assert changed == {DatabaseState.FOLLOWING, DatabaseState.COPYING_BASE}
    assert replace(status, state=DatabaseState.FOLLOWING).without_daemon().state is DatabaseState.STOPPED


def test_a_wal_that_does_not_restart_is_said() -> None:
    """The status has its size, what hinders a base, and the remedy."""
    status = unseen("app", "/srv/app.db")
    assert replace(status, wal_bytes=(256 << 20) - 1, base_waits_s=599).growing_wal == ""
    grown = replace(status, wal_bytes=3 << 29)
    assert "1.5 GiB by now" in grown.growing_wal
    assert "wal_checkpoint(TRUNCATE)" in grown.growing_wal
    assert status.waiting_base == ""
    assert "due for 11 minutes: the pages of the WAL are stored" in replace(status, base_waits_s=660).waiting_base
    hindered = replace(status, base_waits_s=660, base_hindrance="its pages take more than 1 MiB of the spool")
    assert "it waits for the WAL to restart" in hindered.waiting_base
    assert "its pages take more than 1 MiB of the spool" in hindered.waiting_base


def test_times_of_a_clock_that_was_ahead_hide_no_lag(tmp_path: Path) -> None:
    """The age counts from the oldest waiting commit that has a trusted time.

    A state that began ahead is not up to date.
    """
    with Journal.open(tmp_path) as journal:
        row = journal.database("app", "/srv/app.db")
        journal.begin_generation(row.id, G1, "test", None, T0)
        ahead = replace(segment(1, 1), time_ms=T0 + 9_000_000)
        journal.advance([Advance(row.id, None, (ahead, segment(2, 5)))])
        journal.note_state(row.id, DatabaseState.FAILING, "a cause", "", T0 + 9_000_000)
        with reader(tmp_path) as view:
            (told,) = statuses(view, now_ms=T0 + 2001)
    assert 0 < told.lag_s < 3
    assert told.behind_s(T0 + 2001) > 3600
