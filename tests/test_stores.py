"""The stores of the tests stay on this machine and between themselves."""

from __future__ import annotations

from tests.stores import Store, listening_addresses

LOOPBACK = "0100007F"  # 127.0.0.1 as /proc/net/tcp has it


def test_nothing_listens_elsewhere(seaweedfs: Store, rclone: Store) -> None:
    """Every port that the servers open is on 127.0.0.1 only."""
    for store in (seaweedfs, rclone):
        assert store.process_id is not None
        assert listening_addresses(store.process_id) == {LOOPBACK}


def test_buckets_are_new(moto: Store) -> None:
    """Each bucket is one that no other test sees."""
    assert moto.make_bucket() != moto.make_bucket()
