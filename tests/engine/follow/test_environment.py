"""Tests of walsyncd.engine.follow.environment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from walsyncd.adapters.journal.journal import Journal
from walsyncd.core.follow.follow_state import Stream
from walsyncd.core.stored.moment import CLOCK_OFF_MS
from walsyncd.engine.follow.environment import Environment


def test_salts_are_drawn_anew(tmp_path: Path) -> None:
    """The salts are two words of 32 bits, from the given entropy."""
    numbers = iter([1, 2, 3, 4])
    with Journal.open(tmp_path / "state") as journal:
        environment = Environment(journal, lambda: None, "boot", entropy=lambda: next(numbers))
        assert (environment.salts(), environment.salts()) == ((1, 2), (3, 4))
        by_chance = Environment(journal, lambda: None, "boot")
        assert all(0 <= salt < 2**32 for salt in by_chance.salts())
        assert by_chance.wall_ms() > 10**12


@pytest.mark.parametrize("is_known", [True, False])
def test_a_time_goes_back_only_between_epochs_if_the_clock_was_ahead(tmp_path: Path, *, is_known: bool) -> None:
    """A time goes back by more than clocks usually differ, and only where the present time is known to be right."""
    now_ms = 1_800_000_000_000
    with Journal.open(tmp_path / "state") as journal:
        environment = Environment(
            journal, lambda: None, "boot", wall_ms=lambda: now_ms, is_clock_known=lambda: is_known
        )
        for ahead_ms in (-5, 0, CLOCK_OFF_MS, CLOCK_OFF_MS + 1):
            is_wrong = is_known and ahead_ms > CLOCK_OFF_MS
            stream = Stream("g", epoch=3, frame=7, previous=2, time_ms=now_ms + ahead_ms)
            after_ms = now_ms if is_wrong else now_ms + ahead_ms
            assert environment.is_ahead(stream.time_ms) is is_wrong
            assert environment.next_epoch(stream) == Stream("g", epoch=4, previous=7, time_ms=after_ms)
            assert environment.empty_epoch(stream) == environment.next_epoch(stream)
            empty = replace(stream, frame=0)
            assert environment.empty_epoch(empty) == replace(empty, time_ms=after_ms)
