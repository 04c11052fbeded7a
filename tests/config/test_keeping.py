"""Tests of the rules of retention: contradictions are refused with the key and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from walsyncd.config import load
from walsyncd.config.settings import Keep
from walsyncd.errors import UsageError


def _load(folder: Path, storage: str = "", database: str = "") -> None:
    file = folder / "config.toml"
    file.write_text(f'[storage]\nurl = "s3://b/p"\n{storage}\n[[database]]\npath = "/a.db"\n{database}\n')
    load(file)


@pytest.mark.parametrize(
    ("storage", "database", "key", "said"),
    [
        ("", 'retention = "1h"', "database[1].retention", "shorter than snapshot_interval = '1d'"),
        ("", "keep_daily = 14\nkeep_weekly = 2", "database[1].keep_weekly", "keep_daily = 14"),
        ("", "keep_daily = 62\nkeep_monthly = 2", "database[1].keep_monthly", "keep_daily = 62"),
        ("", "keep_weekly = 9\nkeep_monthly = 2", "database[1].keep_monthly", "keep_weekly = 9"),
        ("", "keep_daily = -1", "database.1.keep_daily", ""),
        ("", "snapshot_wal_ratio = 0", "database.1.snapshot_wal_ratio", ""),
        ("delete = false", "", "storage.expire_after", "is missing"),
        ('expire_after = "30d"', "", "storage.expire_after", "delete = false"),
        ('delete = false\nexpire_after = "16d"', "", "storage.expire_after", "'16d'"),
        ('delete = false\nexpire_after = "30d"', "keep_daily = 3", "database[1].keep_", "lifecycle"),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, storage: str, database: str, key: str, said: str) -> None:
    """The message names the key, its value and what it contradicts."""
    with pytest.raises(UsageError) as caught:
        _load(tmp_path, storage, database)
    text = str(caught.value).replace("database[1]", "database.1") if "database.1" in key else str(caught.value)
    assert key in text
    assert said in text


@pytest.mark.parametrize(
    ("storage", "database"),
    [
        ("", "keep_daily = 14\nkeep_weekly = 8\nkeep_monthly = 12"),
        ('delete = false\nexpire_after = "17d"', ""),
        ("", 'retention = "24h"'),
    ],
)
def test_what_fits_together_is_taken(tmp_path: Path, storage: str, database: str) -> None:
    """The rules each keep something more, and the lifecycle rule leaves time to spare."""
    _load(tmp_path, storage, database)


def test_rules_come_from_the_defaults_and_can_be_switched_off(tmp_path: Path) -> None:
    """0 in a [[database]] is a value, not the absence of one."""
    file = tmp_path / "config.toml"
    file.write_text(
        '[storage]\nurl = "s3://b/p"\n[defaults]\nkeep_daily = 5\nsnapshot_wal_ratio = 2\n'
        '[[database]]\npath = "/a.db"\n[[database]]\npath = "/b.db"\nkeep_daily = 0\nkeep_monthly = 3\n'
    )
    first, second = load(file).databases
    assert (first.keep, second.keep) == (Keep(daily=5), Keep(monthly=3))
    assert first.snapshot_wal_ratio == 2.0
