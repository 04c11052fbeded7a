"""Tests of restoring through the fault proxy: temporary faults are survived, a refusal is reported, the target is whole
or missing.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.comparison import assert_same
from tests.e2e.daemon import Daemon, Result, run_walsyncd, s3_section
from tests.e2e.workload import counted, create, insertion
from tests.faults.faults import PASSING
from tests.faults.proxy import run_fault_proxy
from tests.stores import Store

ROWS = 400  # rows of 10 kB, and as much again in the index: a base of more than one range
FAULTS_MAX = 10


@pytest.fixture
def source(tmp_path: Path, seaweedfs: Store) -> Path:
    """Return a database with a base and a few segments in a bucket. ``config.toml`` beside ``data`` has the address."""
    bucket = seaweedfs.make_bucket()
    storage = s3_section(seaweedfs, bucket)
    with Daemon(tmp_path, [tmp_path / "data/app.db"], storage=storage) as daemon:
        file = create(daemon.data / "app.db", rows=ROWS, row_bytes=10_000)
        daemon.start().sync()
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            connection.execute("PRAGMA wal_autocheckpoint=0")
            for _ in range(3):
                for statement in counted(insertion(5, 1000)):
                    connection.execute(statement)
                daemon.sync()
            daemon.stop()
    return file


def restore(source: Path, endpoint_url: str, output: Path) -> Result:
    """Restore as an operator does who reaches the storage by ``endpoint_url``."""
    config = source.parents[1] / "config.toml"
    environment = {"WALSYNCD_STORAGE__ENDPOINT_URL": endpoint_url, "WALSYNCD_STORAGE__TIMEOUT": "1s"}
    return run_walsyncd("restore", "--config", config, "app", "-o", output, environment=environment)


@pytest.mark.slow
def test_a_restore_outlasts_what_passes(tmp_path: Path, seaweedfs: Store, source: Path) -> None:
    """After answers that are lost, cut, slow or 5xx, the file equals the source, page for page."""
    for seed in (1, 2):
        output = tmp_path / f"restored-{seed}.db"
        with run_fault_proxy(seaweedfs, seed=seed, faults_max=FAULTS_MAX, only=PASSING) as proxy:
            result = restore(source, proxy.endpoint_url, output)
            assert result.code == 0, result.stderr
            assert proxy.met.total() > 0
        assert_same(output, source)


@pytest.mark.slow
def test_a_restore_that_is_refused_leaves_nothing(tmp_path: Path, seaweedfs: Store, source: Path) -> None:
    """Wherever the refusal comes, the exit code is 1, there is no target, and the next try restores all of it."""
    folder = tmp_path / "restored"
    folder.mkdir()
    output = folder / "app.db"
    refused = 0
    with run_fault_proxy(seaweedfs, seed=3, faults_max=4, only=frozenset({"403 AccessDenied"})) as proxy:
        while (result := restore(source, proxy.endpoint_url, output)).code:
            refused += 1
            assert result.code == 1
            assert "AccessDenied" in result.stderr
            assert not output.exists()
            assert refused <= 4, result.stderr  # the number of faults is limited
    assert refused > 0
    assert_same(output, source)
    assert [path.name for path in folder.iterdir()] == ["app.db"]
