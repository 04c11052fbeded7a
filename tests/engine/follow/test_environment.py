"""Tests of walsyncd.engine.follow.environment."""

from __future__ import annotations

from pathlib import Path

from walsyncd.adapters.journal.journal import Journal
from walsyncd.engine.follow.environment import Environment


def test_salts_are_drawn_anew(tmp_path: Path) -> None:
    """Two words of 32 bits, from the entropy given."""
    numbers = iter([1, 2, 3, 4])
    with Journal.open(tmp_path / "state") as journal:
        environment = Environment(journal, lambda: None, "boot", entropy=lambda: next(numbers))
        assert (environment.salts(), environment.salts()) == ((1, 2), (3, 4))
        by_chance = Environment(journal, lambda: None, "boot")
        assert all(0 <= salt < 2**32 for salt in by_chance.salts())
        assert by_chance.wall_ms() > 10**12
