"""Tests of names and patterns, and of which databases come first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from walsyncd.cli.selection import by_need, select, summary_of
from walsyncd.core.follow.database_state import DatabaseState
from walsyncd.engine.daemon.database_status import DatabaseStatus, unseen
from walsyncd.errors import UsageError

NAMES = ["srv/a.db", "srv/b.db", "var/lib/c.db", "odd*.db"]
NOW_MS = 1_000_000


def chosen(*words: str) -> list[str]:
    return select(NAMES, words, name_of=str)


def test_words_are_names_or_patterns() -> None:
    """Any number of either may be given. An item that two words name is selected once, and the order stays."""
    assert chosen() == NAMES
    assert chosen("srv/b.db") == ["srv/b.db"]
    assert chosen("*c.db", "srv/*", "srv/a.db") == ["srv/a.db", "srv/b.db", "var/lib/c.db"]
    assert chosen("srv/[ab].db") == ["srv/a.db", "srv/b.db"]
    assert chosen("odd[*].db") == ["odd*.db"]


@pytest.mark.parametrize(("word", "message"), [("srv/x.db", "there is no"), ("nowhere/*", "no database matches")])
def test_a_word_that_matches_nothing_is_an_error(word: str, message: str) -> None:
    """Otherwise a misspelt name would look like a database without problems. Other names do not hide the error."""
    with pytest.raises(UsageError, match=message) as error:
        chosen("srv/a.db", word)
    assert "srv/b.db" in error.value.hint


def test_an_error_shows_some_names_of_many() -> None:
    """The error says how many more there are."""
    with pytest.raises(UsageError) as error:
        select([f"n{number:04d}" for number in range(1000)], ["x"], name_of=str)
    assert error.value.hint.endswith("n0019 and 980 more")


def status(name: str, state: DatabaseState, **facts: object) -> DatabaseStatus:
    return replace(unseen(name, f"/{name}"), state=state, **facts)  # type: ignore[arg-type]


def test_what_needs_attention_is_first() -> None:
    """Databases that nobody replicates come first, then those with a problem, then by lag, then by name."""
    databases = [
        status("well-b", DatabaseState.FOLLOWING),
        status("well-a", DatabaseState.FOLLOWING),
        status("late", DatabaseState.FOLLOWING, lag_s=9.0),
        status("copies", DatabaseState.COPYING_BASE),
        status("drill", DatabaseState.FOLLOWING, drill_failed=True),
        status("error", DatabaseState.FOLLOWING, error="refused by the store", lag_s=1.0),
        status("missing", DatabaseState.MISSING),
        status("refused", DatabaseState.REFUSED),
        status("degraded", DatabaseState.DEGRADED),
    ]
    ordered = [each.name for each in by_need(databases, NOW_MS)]
    assert ordered == ["refused", "degraded", "error", "drill", "missing", "copies", "late", "well-a", "well-b"]


def test_the_summary_counts_states_and_names_the_worst_lag() -> None:
    """The lag of a database that can't be followed counts from that moment on."""
    databases = [
        *(status(f"well-{number}", DatabaseState.FOLLOWING) for number in range(3)),
        status("late", DatabaseState.FOLLOWING, lag_s=9.0),
        status("missing", DatabaseState.MISSING, state_since_ms=NOW_MS - 60_000),
    ]
    summary = summary_of(databases, NOW_MS)
    assert summary.states == {"following": 4, "missing": 1}
    assert str(summary) == "5 databases: 4 following, 1 missing; worst lag 60.0 s (missing)"
    assert str(summary_of(databases[:1], NOW_MS)) == "1 database: 1 following; nothing is behind"
    stopped = [status("app", DatabaseState.STOPPED)]  # nobody knows, because no daemon answers
    assert str(summary_of(stopped, NOW_MS)) == "1 database: 1 stopped; what is behind is not known"
    assert str(summary_of([], NOW_MS)) == "0 databases"
