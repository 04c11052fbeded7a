"""The bill at list prices: what the README says of it holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.cost import PROFILES, play


@pytest.mark.parametrize(("index", "hours", "dollars"), [(0, 24, 0.0), (1, 1, 14.0), (2, 1, 1.5)])
def test_requests_cost_what_was_promised(tmp_path: Path, index: int, hours: int, dollars: float) -> None:
    """Idle: nothing. A commit a second: below 14 dollars a month, at an interval of ten seconds below 1.50."""
    bill = play(PROFILES[index], tmp_path, hours=hours)
    assert bill.requests_price <= dollars


def test_listing_is_no_part_of_the_steady_state(tmp_path: Path) -> None:
    """A folder is listed when it is claimed, and not again for all the commits of an hour."""
    bill = play(PROFILES[1], tmp_path, hours=1)
    assert bill.commits == 3600
    assert bill.requests["list"] + bill.requests["folders"] + bill.requests["list_uploads"] <= 3
