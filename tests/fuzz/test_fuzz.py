"""Runs every part of the fuzzer for a short while. ``python -m tests.fuzz PART --seconds 3600`` runs for longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.__main__ import PARTS

SEEDS = {"bucket": 40, "control": 6, "names": 40, "side-files": 4, "store": 25}  # some seconds each


@pytest.mark.parametrize("part", PARTS)
def test_nothing_breaks(tmp_path: Path, part: str) -> None:
    """Every input has an answer, and no promise is broken."""
    for seed in range(SEEDS[part]):
        folder = tmp_path / str(seed)
        folder.mkdir()
        PARTS[part](seed, folder)
