"""Tests of walsyncd.log.line_limit: a noisy database does not hide the lines of others."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest

from walsyncd import log
from walsyncd.log import line_limit
from walsyncd.log.line_limit import LINES_PER_MINUTE_MAX, MINUTE_S, LineLimit


class Clock:
    """A clock that moves only when a test moves it."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(log, "_limit", LineLimit(clock))
    yield clock
    log.configure("warning")


def test_lines_beyond_the_limit_are_one_line_with_their_count(clock: Clock) -> None:
    """The lines of others, those about no database, and debug lines are all logged.

    After a minute the database may log again.
    """
    stream = io.StringIO()
    log.configure("debug", stream)
    for _ in range(LINES_PER_MINUTE_MAX + 7):
        log.get_logger().warning("wal_index_doubted", database="noisy")
        log.get_logger().debug("segment_stored", database="noisy")
    log.get_logger(database="other").error("database_suspended")
    log.get_logger().info("reloaded")
    clock.now_s += MINUTE_S
    log.get_logger(database="noisy").warning("wal_index_doubted")
    lines = [json.loads(line[3:]) for line in stream.getvalue().splitlines()]
    events = [line["event"] for line in lines]
    assert events.count("segment_stored") == LINES_PER_MINUTE_MAX + 7
    assert events.count("wal_index_doubted") == LINES_PER_MINUTE_MAX + 1
    assert events[-4:] == ["database_suspended", "reloaded", "log_lines_folded", "wal_index_doubted"]
    assert (lines[-2]["database"], lines[-2]["count"], lines[-2]["level"]) == ("noisy", 7, "warning")


def test_the_count_is_said_with_the_next_line_of_anybody(clock: Clock) -> None:
    """The count is logged even if the noisy database is silent from then on, and only once."""
    stream = io.StringIO()
    log.configure("info", stream)
    for _ in range(LINES_PER_MINUTE_MAX + 1):
        log.get_logger(database="noisy").info("base_stored")
    clock.now_s += MINUTE_S
    log.get_logger().info("reloaded")
    log.get_logger().info("reloaded")
    assert [json.loads(line[3:])["event"] for line in stream.getvalue().splitlines()[-3:]] == [
        "log_lines_folded",
        "reloaded",
        "reloaded",
    ]


def test_what_is_remembered_is_bounded_by_a_minute(clock: Clock) -> None:
    """Names of databases come and go, so none is remembered for longer than a minute."""
    limit = LineLimit(clock)
    for number in range(1000):
        limit.take(f"database {number}")
    clock.now_s += line_limit.MINUTE_S
    assert limit.folded() == {}
    assert limit._minutes == {}
