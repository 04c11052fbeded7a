"""Tests that the bill at list prices is what the README says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.cost import PROFILES, Profile, play


@pytest.mark.parametrize(("index", "hours", "dollars"), [(0, 24, 0.0), (1, 1, 14.0), (2, 1, 1.5)])
def test_requests_cost_what_was_promised(tmp_path: Path, index: int, hours: int, dollars: float) -> None:
    """An idle database costs nothing.

    A commit a second costs less than 14 dollars a month, and less than 1.50 at an interval of ten seconds.
    """
    bill = play(PROFILES[index], tmp_path, hours=hours)
    assert bill.requests_price <= dollars
    assert bill.requests.total() > 0 or index == 0


def test_a_day_leaves_few_objects(tmp_path: Path) -> None:
    """Each epoch becomes one object, a base is taken, and old objects are deleted. A folder is listed only for that.

    It is listed once for each object, to see whether a clock was ahead, and when something is deleted.
    """
    bill = play(Profile("five commits a minute", 60, transactions=5), tmp_path, hours=24)
    segments, written = 24 * 60, bill.requests["put"] + bill.requests["multipart"]
    assert bill.commits == 5 * segments
    assert segments + 5 < written < segments + 20
    assert 5 < bill.objects_later < 20
    assert bill.requests["list"] <= bill.objects_later + 5
    assert bill.requests["delete"] > 5
