"""Tests that the stores of the tests are reachable on this machine only, and that buckets are not shared."""

from __future__ import annotations

from tests.stores import Store, listening_addresses

LOOPBACK = "0100007F"  # 127.0.0.1 as /proc/net/tcp has it


def test_nothing_listens_elsewhere(seaweedfs: Store, rclone: Store) -> None:
    """Every port that the servers open is on 127.0.0.1 only."""
    for store in (seaweedfs, rclone):
        assert store.process_id is not None
        assert listening_addresses(store.process_id) == {LOOPBACK}


def test_buckets_are_new(moto: Store) -> None:
    """No other test sees a test's bucket."""
    assert moto.make_bucket() != moto.make_bucket()
