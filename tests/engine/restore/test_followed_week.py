"""Tests that a copy that nobody looks after stays right, whatever happens to it, to its readers and to the storage."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.restore.followed_week import live

TRANSACTIONS = 80


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system that can be full. All transactions of the test fit into it, however late they come."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256m,mode=755", "none", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ordinary_readers_and_a_followed_copy_get_along(tmp_path: Path) -> None:
    """Readers open and close the copy, and there are restarts, kills, new generations and bases.

    Nobody has to intervene.
    """
    week = live(tmp_path, tmp_path, transactions=TRANSACTIONS, seed=11)
    assert week.refused == []
    assert week.happened.total() > 0


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.timeout(600)
def test_disk_that_is_full_for_a_while_is_waited_for(tmp_path: Path, small_disk: Path) -> None:
    """The follower may end with the disk as the reason.

    After it is started again it continues, and readers always see whole transactions.
    """
    week = live(tmp_path, small_disk, transactions=TRANSACTIONS, seed=13, disk_fills=True)
    reasons = ("no space left", "are free", "make room on its file system")
    assert all(any(reason in why.lower() for reason in reasons) for why in week.refused), week.refused
