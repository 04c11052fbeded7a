"""Tests that, whatever networks and stores do, the replica equals the source in the end.

For more seeds run ``python -m tests.faults``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.campaign import run
from tests.faults.faults import certain
from tests.stores import Store


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_replica_is_right_whatever_befell_its_requests(tmp_path: Path, seaweedfs: Store) -> None:
    """There are refused, broken, lost, slow and late requests, an answer that was not true, ETags that are no MD5, and
    a kill.
    """
    report = run(1, tmp_path, seaweedfs, faults=10)
    print(report)
    assert sum(report.met.values()) > 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_is_said_of_multipart_uploads_is_met(tmp_path: Path, seaweedfs: Store) -> None:
    """There are errors after 200, parts refused, lost or too small, for a base and a segment, and 412 for a claim and a
    segment.
    """
    seed = 3
    report = run(seed, tmp_path, seaweedfs, faults=0, kills_max=0)  # a run that starts again lists first, and knows
    assert report.unmet == []
    assert sum(report.met.values()) == len(certain(seed))
