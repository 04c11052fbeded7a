"""Tests of SIGKILL on the real daemon at random moments, with a real object store, while an application writes.

Thirty moments in a test; for more::

    UPLOAD_KILLS=300 UPLOAD_KILLS_SEED=7 pytest tests/e2e/test_upload_kills.py --timeout=3600
"""

from __future__ import annotations

import os
import random
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from tests.e2e.comparison import assert_same
from tests.e2e.daemon import Daemon, s3_section
from tests.e2e.workload import Writer, create
from tests.shipping import wait_for
from tests.stores import Store
from walsyncd.core.stored.layout import SegmentKey, parse_key

MOMENTS = int(os.environ.get("UPLOAD_KILLS", "30"))
SEED = int(os.environ.get("UPLOAD_KILLS_SEED", "1"))
RUN_SECONDS_MAX = 1.5  # seconds: a start takes half a second, and the base of the database below about as much
PREFIX = "hosts/one/app/"


def objects(store: Store, bucket: str) -> dict[str, str]:
    """Return names and ETags in the database's folder."""
    with closing(store.client()) as client:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=PREFIX)
        return {
            entry["Key"].removeprefix(PREFIX): entry["ETag"] for page in pages for entry in page.get("Contents", ())
        }


def assert_no_hole(names: dict[str, str]) -> None:
    """Assert that every epoch begins at frame 1, and each segment where the one before ended."""
    segments = sorted(
        (key for name in names if isinstance(key := parse_key(name), SegmentKey)),
        key=lambda key: (key.generation, key.epoch, key.first),
    )
    for before, after in pairwise([None, *segments]):
        assert after is not None
        same = before is not None and (before.generation, before.epoch) == (after.generation, after.epoch)
        assert after.first == (before.last + 1 if same and before is not None else 1), f"{before} and {after}"


@pytest.mark.slow
@pytest.mark.timeout(max(300, 20 * MOMENTS))
def test_killed_at_random_moments(tmp_path: Path, seaweedfs: Store) -> None:
    """The bucket never has a hole, no object changes, and in the end the replica is the database."""
    chance = random.Random(SEED)
    bucket = seaweedfs.make_bucket()
    seen: dict[str, str] = {}
    with Daemon(tmp_path, [tmp_path / "data/app.db"], storage=s3_section(seaweedfs, bucket)) as daemon:
        file = create(daemon.data / "app.db", rows=1200, row_bytes=10_000)
        with Writer("module", file, seed=SEED, only_counted=True, pause_s=0.02, calm=daemon.control) as writer:
            writer.wait_for(1)
            for _ in range(MOMENTS):
                daemon.start(wait=False)
                time.sleep(chance.uniform(0.2, RUN_SECONDS_MAX))  # the moment is what the test is about
                daemon.kill()
                now = objects(seaweedfs, bucket)
                now.pop("owner.json", None)
                assert_no_hole(now)
                assert not {name for name, etag in seen.items() if now.get(name, etag) != etag}, "an object changed"
                seen.update(now)
            daemon.start()
            writer.kill()
        daemon.sync()
        assert_same(daemon.restore("app"), file)
        assert "all of it is sound" in daemon.done("verify", "app")
        assert daemon.status("app")["spool_objects"] == 0
        daemon.stop()
        assert list((daemon.state / "spool").glob("*.part")) == []
        # The last request of a killed daemon may land after the next daemon looked. The daemon after that finds what it
        # left.
        daemon.start()
        with closing(seaweedfs.client()) as client:
            wait_for(lambda: client.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == [])
