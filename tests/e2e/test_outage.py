"""Tests of storage that is away for a while: the application does not notice, nothing is lost, and the log reports it
once.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.comparison import assert_same
from tests.e2e.daemon import Daemon, s3_section, wait_until
from tests.e2e.proxy import run_proxy
from tests.e2e.workload import Writer, create
from tests.stores import Store


@pytest.mark.slow
def test_everything_is_shipped_when_storage_is_back(tmp_path: Path, seaweedfs: Store) -> None:
    """One line reports that it is away, one that it is back, and the head equals the source."""
    with run_proxy(seaweedfs) as proxy:
        storage = s3_section(seaweedfs, seaweedfs.make_bucket(), endpoint_url=proxy.endpoint_url)
        with Daemon(tmp_path, [tmp_path / "data/app.db"], storage=storage) as daemon:
            file = create(daemon.data / "app.db")
            daemon.start().sync()
            with Writer("module", file, seed=3, count=60, calm=daemon.control) as writer:
                writer.wait_for(20)
                proxy.cut()
                writer.finish()
                daemon.wait_for("storage_went_away")
                wait_until(lambda: daemon.status("app")["spool_objects"] > 0, "objects wait")
                assert daemon.walsyncd("sync", "--timeout", "1s").code == 1
                proxy.mend()
                daemon.sync()
                assert_same(daemon.restore("app"), file)
                writer.close()
            assert len(daemon.lines("storage_went_away")) == 1
            assert len(daemon.lines("storage_came_back")) == 1
            assert daemon.status("app")["spool_objects"] == 0


def test_it_starts_and_stops_without_storage(tmp_path: Path, seaweedfs: Store) -> None:
    """What the daemon read meanwhile is in the spool. Its exit code says so, and the next start ships it."""
    with run_proxy(seaweedfs) as proxy:
        storage = s3_section(seaweedfs, seaweedfs.make_bucket(), endpoint_url=proxy.endpoint_url)
        with Daemon(tmp_path, [tmp_path / "data/app.db"], storage=storage) as daemon:
            file = create(daemon.data / "app.db", rows=10)
            daemon.start().sync()
            daemon.stop()
            proxy.cut()
            daemon.start()
            with Writer("apsw", file, seed=4, count=10, calm=daemon.control) as writer:
                writer.finish()
                writer.close()
            daemon.wait_for("storage_went_away")
            assert daemon.stop() == 75
            proxy.mend()
            daemon.start().sync()
            assert_same(daemon.restore("app"), file)
