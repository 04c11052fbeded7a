"""Tests of two writers that never pause, and are killed: whatever is shipped was committed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.engine.rollback.rollback_replicas import restored
from tests.engine.rollback.two_writers import TwoWriters, mixture_in, states_of
from tests.engine.running import Place, running

ROLLBACK = ("DELETE", "TRUNCATE", "PERSIST")
SOAK_S = float(os.environ.get("WALSYNCD_TESTS_SOAK_S", "8"))


@pytest.mark.parametrize(
    ("modes", "page_size", "seconds"),
    [
        (ROLLBACK, 1024, 3.0),
        pytest.param((*ROLLBACK, "WAL"), 4096, SOAK_S, marks=pytest.mark.slow),
        pytest.param(ROLLBACK, 512, SOAK_S, marks=pytest.mark.slow),
    ],
)
def test_no_mixture_is_shipped(tmp_path: Path, modes: tuple[str, ...], page_size: int, seconds: float) -> None:
    """There are spills, rollbacks, VACUUM, other modes, exclusive locks and kills.

    The end is the file, byte for byte.
    """
    place = Place(tmp_path)
    writers = TwoWriters(place.database(), modes, seed=page_size)
    writers.create(page_size)
    with running(place.settings("app")):
        place.sync()
        generation = place.row().generation
        writers.write_for(seconds)
        place.sync()
        assert place.row().generation == generation
        if "WAL" not in modes:
            assert restored(place) == place.database().read_bytes()
    states = list(states_of(place.replica / "app"))
    wrong = [(where, why) for where, content in states if (why := mixture_in(content, tmp_path / "state.db"))]
    assert wrong == [], f"{len(wrong)} of {len(states)} after {writers.kills} kills"
    assert len(states) > 1
    print(f"{len(states)} states, {writers.kills} kills")
