"""Tests of SIGKILL at any moment: nothing that was read is read again, and nothing that was stored is sent again."""

from __future__ import annotations

import random
import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.comparison import assert_same, counter_of
from tests.e2e.daemon import Daemon, s3_section, wait_until
from tests.e2e.proxy import Proxy, run_proxy
from tests.e2e.workload import Writer, counted, create
from tests.stores import Store

KILLS = 10
PART_BYTES = 8 << 20
STORED_PARTS = 3


@pytest.mark.slow
def test_ten_kills_in_a_row(tmp_path: Path) -> None:
    """It is killed while starting, following, copying a base, or idle.

    The next run continues, and the end is the source.
    """
    chance = random.Random(1)
    with Daemon(tmp_path, [tmp_path / "data/app.db"]) as daemon:
        file = create(daemon.data / "app.db", rows=2000)
        with Writer("apsw", file, seed=1, pause_s=0.02, calm=daemon.control) as writer:
            writer.wait_for(1)
            for _ in range(KILLS):
                daemon.start(wait=False)
                time.sleep(chance.uniform(0.1, 1.2))  # the moment is what the test is about
                daemon.kill()
            daemon.start()
            writer.kill()
        daemon.sync()
        assert_same(daemon.restore("app"), file)
        assert "all of it is sound" in daemon.done("verify", "app")


def test_what_was_read_is_not_read_again(tmp_path: Path, seaweedfs: Store) -> None:
    """Commits spooled while storage was away are shipped after a kill, although the WAL that held them is gone."""
    with run_proxy(seaweedfs) as proxy:
        storage = s3_section(seaweedfs, seaweedfs.make_bucket(), endpoint_url=proxy.endpoint_url)
        with Daemon(tmp_path, [tmp_path / "data/app.db"], storage=storage) as daemon:
            file = create(daemon.data / "app.db")
            daemon.start().sync()
            proxy.cut()
            read: dict[str, int] = {}
            with closing(sqlite3.connect(file, isolation_level=None)) as connection:
                for number in range(1, 6):
                    for statement in counted():
                        connection.execute(statement)
                    read[daemon.look("app")] = number
                daemon.kill()
            assert not (daemon.data / "app.db-wal").exists()
            with closing(sqlite3.connect(file, isolation_level=None)) as connection:
                connection.execute("VACUUM")
            proxy.mend()
            daemon.start().sync()
            assert len(read) == 5
            for position, number in read.items():
                assert counter_of(daemon.restore("app", "--position", position)) == number
            assert_same(daemon.restore("app"), file)


def test_a_base_goes_on_after_a_kill(tmp_path: Path, seaweedfs: Store) -> None:
    """Parts that were stored before the kill keep their numbers and are not sent again."""
    bucket = seaweedfs.make_bucket()
    with run_proxy(seaweedfs) as proxy:
        storage = s3_section(seaweedfs, bucket, endpoint_url=proxy.endpoint_url)
        with Daemon(tmp_path, [tmp_path / "data/app.db"], storage=storage) as daemon:
            file = create(daemon.data / "app.db", rows=3200, row_bytes=10_000)  # the index takes as much again
            assert file.stat().st_size > (STORED_PARTS + 2) * PART_BYTES
            with Writer("module", file, seed=0, only_counted=True, count=3) as writer:
                writer.finish()
                proxy.hold(lambda request: _part_number(request) > STORED_PARTS)
                daemon.start()
                wait_until(lambda: max(_sent(proxy), default=0) > STORED_PARTS, "a part is held back")
                wait_until(lambda: _stored(seaweedfs, bucket) == [1, 2, 3], "the parts before it are stored")
                daemon.kill()
                proxy.cut()
                proxy.requests.clear()
                proxy.mend()
                daemon.start().sync()
                assert min(_sent(proxy)) > STORED_PARTS
                assert daemon.lines("base_resumed")[0]["parts_kept"] == STORED_PARTS
                assert daemon.lines("generation_ended") == []
                assert_same(daemon.restore("app"), file)


def test_a_base_without_a_wal_goes_on_after_a_kill(tmp_path: Path, seaweedfs: Store) -> None:
    """A commit comes in between. Unchanged parts are not sent again, and the end is exact."""
    bucket = seaweedfs.make_bucket()
    with run_proxy(seaweedfs) as proxy:
        storage = s3_section(seaweedfs, bucket, endpoint_url=proxy.endpoint_url)
        with Daemon(tmp_path, [tmp_path / "data/app.db"], storage=storage) as daemon:
            file = create(daemon.data / "app.db", rows=3200, row_bytes=10_000)
            with closing(sqlite3.connect(file, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode = DELETE").fetchall()
            proxy.hold(lambda request: _part_number(request) > STORED_PARTS)
            daemon.start()
            wait_until(lambda: max(_sent(proxy), default=0) > STORED_PARTS, "a part is held back")
            wait_until(lambda: _stored(seaweedfs, bucket) == [1, 2, 3], "the parts before it are stored")
            daemon.kill()
            with closing(sqlite3.connect(file, isolation_level=None)) as connection:
                connection.execute("PRAGMA user_version = 7")  # page 1 is in part 1
            proxy.cut()
            proxy.requests.clear()
            proxy.mend()
            daemon.start().sync()
            assert not {2, 3} & set(_sent(proxy))
            assert daemon.lines("base_resumed")[0]["parts_kept"] == STORED_PARTS - 1
            assert daemon.lines("generation_ended") == []
            assert_same(daemon.restore("app"), file)


def _part_number(request: str) -> int:
    found = re.search(r"^PUT .*[?&]partNumber=(\d+)", request)
    return int(found[1]) if found else 0


def _sent(proxy: Proxy) -> list[int]:
    """Return the numbers of the parts that were sent, in order."""
    return [number for number in map(_part_number, proxy.requests) if number]


def _stored(store: Store, bucket: str) -> list[int]:
    """Return the numbers of the parts that the store has of its one open upload."""
    with closing(store.client()) as client:
        (upload,) = client.list_multipart_uploads(Bucket=bucket)["Uploads"]
        parts = client.list_parts(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        return [part["PartNumber"] for part in parts.get("Parts", [])]
