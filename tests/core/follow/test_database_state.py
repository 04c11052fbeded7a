"""Tests of the states of a database and of the line that reports them."""

from __future__ import annotations

from walsyncd.core.follow.database_state import DatabaseState, StateReport


def test_a_report_is_one_line() -> None:
    """A report has a cause only if something is wrong."""
    assert str(StateReport(DatabaseState.FOLLOWING)) == "following"
    assert str(StateReport(DatabaseState.REFUSED, "no permission")) == "refused: no permission"


def test_every_state_is_well_suspended_or_neither() -> None:
    """Degraded is neither well nor suspended: the database is looked at, and something was missed.

    Without a daemon nobody looks.
    """
    neither = {state for state in DatabaseState if not state.is_well and not state.is_suspended}
    assert neither == {DatabaseState.DEGRADED, DatabaseState.STOPPED, DatabaseState.NOT_CONFIGURED}
    assert not any(state.is_well and state.is_suspended for state in DatabaseState)
