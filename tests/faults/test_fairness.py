"""Tests that no database's commits wait while one database's large base is uploaded to a slow store."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.e2e.comparison import assert_same
from tests.e2e.daemon import Daemon, s3_section, wait_until
from tests.e2e.workload import counted, create, insertion
from tests.faults.faults import ALL, Exchange, Fault, Kind
from tests.faults.proxy import FaultProxy
from tests.stores import Store
from walsyncd.core.stored.base import PART_SIZE_MIN

MEBIBYTES = 300
OTHERS = ("one", "two", "three")
ROUNDS = 4
PART_SECONDS = 0.2  # the additional time of each part
PARTS_MEANWHILE = 20  # of 38 parts: the others must be done before the store takes more than these
HOLD_SECONDS_MAX = 90.0
UPLOADS_MAX = 2
MEMORY_SLACK = 64 << 20  # what allocators keep, and followed commits: a fifth of the base


class SlowStore(FaultProxy):
    """A store that delays every part of a base, and stops at one of them until ``others_are_done``."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, seed=1, faults_max=0)
        self.others_are_done = threading.Event()
        self.parts_begun = 0

    def choose(self, kind: Kind, target: str) -> Fault | None:
        super().choose(kind, target)
        if kind is not Kind.PART:
            return None
        number = int(parse_qs(urlsplit(target).query)["partNumber"][0])
        self.parts_begun = max(self.parts_begun, number)
        seconds = PART_SECONDS if number <= PARTS_MEANWHILE else HOLD_SECONDS_MAX

        def act(exchange: Exchange) -> None:
            self.others_are_done.wait(seconds)
            exchange.say(exchange.ask_store())

        return Fault("slow", ALL, act)

    def positions(self, *words: str) -> list[int]:
        """Return the indexes, among all requests, of the PUTs that have these words in their keys."""
        return [
            place
            for place, (kind, target) in enumerate(self.asked)
            if kind is Kind.PUT and all(word in target for word in words)
        ]


@contextmanager
def slow(store: Store) -> Iterator[SlowStore]:
    proxy = SlowStore(store)
    try:
        yield proxy
    finally:
        proxy.others_are_done.set()
        proxy.close()


def create_large(file: Path) -> Path:
    """Create a database of ``MEBIBYTES`` that does not compress."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("CREATE TABLE large (data BLOB)")
        connection.execute(
            "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?)"
            " INSERT INTO large SELECT randomblob(1048576) FROM number",
            (MEBIBYTES,),
        )
    return create(file)


def memory_bytes(daemon: Daemon, name: str) -> int:
    """Return ``VmRSS`` or, for the highest value so far, ``VmHWM``."""
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    return int(re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)[1]) << 10  # type: ignore[index]


@contextmanager
def application(file: Path) -> Iterator[sqlite3.Connection]:
    """Return an application that keeps the database open.

    A close is a gap now and then, whose new base waits for the large one.
    """
    with closing(sqlite3.connect(file, isolation_level=None, timeout=20)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint=0")
        yield connection


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nobody_waits_for_a_large_base(tmp_path: Path, seaweedfs: Store) -> None:
    """With two uploads at a time, all commits are stored before the large base is, those of the large database too.

    Memory grows with the parts in flight, not with the base.
    """
    with slow(seaweedfs) as proxy:
        storage = s3_section(seaweedfs, seaweedfs.make_bucket(), endpoint_url=proxy.endpoint_url)
        storage["timeout"] = "25s"  # the longest; a part that is held for longer is only sent again
        names = (*OTHERS, "large")
        databases = [{"path": str(tmp_path / f"data/{name}.db"), "name": name} for name in names]
        with (
            Daemon(tmp_path, databases, storage=storage, settings={"uploads_max": UPLOADS_MAX}) as daemon,
            ExitStack() as stack,
        ):
            files = [create(daemon.data / f"{name}.db", rows=3) for name in OTHERS]
            daemon.start().sync(*OTHERS)
            wait_until(lambda: all(daemon.status(name)["last_base_ms"] for name in OTHERS), "the others have bases")
            large = create_large(tmp_path / "large.db").rename(daemon.data / "large.db")
            before_bytes = memory_bytes(daemon, "VmHWM")
            wait_until(lambda: proxy.parts_begun, "the large base is under way")
            applications = [stack.enter_context(application(file)) for file in (*files, large)]
            before = len(proxy.asked)
            for _ in range(ROUNDS):
                for connection in applications:
                    for statement in counted(insertion(3, 1000)):
                        connection.execute(statement)
                daemon.sync(*OTHERS)
            daemon.look("large")  # a sync would wait for its base
            wait_until(lambda: proxy.positions("/large/", "/wal/"), "its own commits are stored")
            meanwhile = len(proxy.asked)
            assert proxy.parts_begun <= PARTS_MEANWHILE + 2  # the base did not wait for the end of their commits either
            assert proxy.positions("/large/", ".json.zst") == []
            for name in names:
                assert [place for place in proxy.positions(f"/{name}/", "/wal/") if before <= place < meanwhile]
            proxy.others_are_done.set()
            wait_until(lambda: proxy.positions("/large/", ".json.zst"), "the large base is complete")
            grown = memory_bytes(daemon, "VmHWM") - before_bytes
            assert grown < (2 + UPLOADS_MAX) * PART_SIZE_MIN + MEMORY_SLACK, f"{grown >> 20} MiB more"
            assert_same(daemon.restore(OTHERS[0]), files[0])
            daemon.sync()
