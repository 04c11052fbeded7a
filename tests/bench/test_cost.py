"""The bill at list prices: what the README says of it holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.cost import PROFILES, Profile, play


@pytest.mark.parametrize(("index", "hours", "dollars"), [(0, 24, 0.0), (1, 1, 14.0), (2, 1, 1.5)])
def test_requests_cost_what_was_promised(tmp_path: Path, index: int, hours: int, dollars: float) -> None:
    """Idle: nothing. A commit a second: below 14 dollars a month, at an interval of ten seconds below 1.50."""
    bill = play(PROFILES[index], tmp_path, hours=hours)
    assert bill.requests_price <= dollars
    assert bill.requests.total() > 0 or index == 0


def test_a_day_leaves_few_objects(tmp_path: Path) -> None:
    """Epochs become one object each, a base comes, what is old goes; a folder is listed for that alone.

    Once for each object, to see whether a clock was ahead, and when something is deleted.
    """
    bill = play(Profile("five commits a minute", 60, transactions=5), tmp_path, hours=24)
    segments, written = 24 * 60, bill.requests["put"] + bill.requests["multipart"]
    assert bill.commits == 5 * segments
    assert segments + 5 < written < segments + 20
    assert 5 < bill.objects_later < 20
    assert bill.requests["list"] <= bill.objects_later + 5
    assert bill.requests["delete"] > 5
