"""One run: a real daemon writes to a real store through the fault proxy. At the end the replica equals the source.

Small objects, uploads of segments and of bases, kills now and then, by seed. The faults are finite, and after the last
of them everything is well again: then a sync has to succeed, every late request lands, and what is restored is
compared with the source page for page.
"""

from __future__ import annotations

import random
import sqlite3
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.comparison import assert_same
from tests.e2e.daemon import Daemon, s3_section, wait_until
from tests.e2e.workload import counted, create, insertion
from tests.faults.faults import certain
from tests.faults.proxy import FaultProxy, run_fault_proxy
from tests.stores import Store
from walsyncd.adapters.system.control_socket import ask

NAME = "app"
ROWS = 900  # rows of 10 kB, and as much again in the index: a base of three parts
LARGE_ROWS = 1000  # the same, in one transaction: more than one PUT, however well its index compresses
SETTLE_SECONDS_MAX = 400.0


@dataclass(frozen=True, slots=True)
class Report:
    """The report of a run.

    ``generations`` is 1 if no fault ended one, and ``orphans`` counts uploads that nobody knew of.
    """

    seed: int
    seconds: float
    requests: int
    generations: int
    orphans: int
    kills: int
    opaque_etags: bool
    region: str
    met: dict[str, int] = field(default_factory=dict)
    unmet: list[tuple[str, str]] = field(default_factory=list)
    """Faults of ``certain`` that were not met, because their requests had been given up."""


def run(
    seed: int, folder: Path, store: Store, *, faults: int, only: frozenset[str] = frozenset(), kills_max: int = 10
) -> Report:
    """Make one run in ``folder``, which must be empty.

    ``faults`` by chance, of those in ``only``; without ``only`` there are those of ``certain`` too. AssertionError if
    the replica is not the source, or an upload is left open.
    """
    chance = random.Random(seed)
    begun = time.monotonic()
    bucket = store.make_bucket()
    opaque, region = chance.random() < 0.3, chance.choice(("", "", "eu-west-3"))
    chosen = [] if only else certain(seed)
    with run_fault_proxy(
        store, seed=seed, faults_max=faults, only=only, certain=chosen, opaque_etags=opaque, region=region
    ) as proxy:
        storage = {**s3_section(store, bucket, endpoint_url=proxy.endpoint_url), "timeout": "1s"}
        hasty = [sys.executable, str(Path(__file__).with_name("hasty.py"))]
        with Daemon(folder, [folder / f"data/{NAME}.db"], storage=storage, prefix=hasty) as daemon:
            file = create(daemon.data / f"{NAME}.db", rows=ROWS, row_bytes=10_000)
            daemon.start()
            kills = _write(daemon, file, chance, kills_max)
            _settle(daemon, proxy)
            _have_orphans_aborted(daemon, file, store, bucket)
            assert_same(daemon.restore(NAME), file)
            assert "all of it is sound" in daemon.done("verify", NAME)
            generations = daemon.lines("generation_began")
            orphans = daemon.lines("orphan_aborted")
    return Report(
        seed=seed,
        seconds=round(time.monotonic() - begun, 1),
        requests=len(proxy.asked),
        generations=len({line.get("generation") for line in generations}),
        orphans=len(orphans),
        kills=kills,
        opaque_etags=opaque,
        region=region,
        met=dict(sorted(proxy.met.items())),
        unmet=proxy.certain,
    )


def _write(daemon: Daemon, file: Path, chance: random.Random, kills_max: int) -> int:
    """Write transactions of all sizes, request a base, and kill now and then. Return the number of kills."""
    kills = 0
    with closing(sqlite3.connect(file, isolation_level=None, timeout=20)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint=0")
        for number in range(10):
            rows = LARGE_ROWS if number == 4 else chance.randint(1, 20)
            for statement in counted(insertion(rows, 10_000 if number == 4 else 1000)):
                connection.execute(statement)
            time.sleep(chance.uniform(0.0, 0.4))  # some are uploaded together, some alone
            if number == 6:
                ask(daemon.control, {"op": "snapshot", "name": NAME}, timeout_s=60)
            if chance.random() < 0.08 and kills < kills_max:
                daemon.kill()
                daemon.start()
                kills += 1
        daemon.look(NAME)
    return kills


def _settle(daemon: Daemon, proxy: FaultProxy) -> None:
    """Wait until all faults were met or nothing is requested any more, all late requests have landed, and a base is
    finished.
    """

    def is_stored() -> bool:
        return daemon.walsyncd("sync", "--timeout", "5s").code == 0 and daemon.walsyncd("ls", NAME).code == 0

    wait_until(is_stored, "all is stored", seconds_max=SETTLE_SECONDS_MAX)
    wait_until(lambda: daemon.status(NAME)["last_base_ms"], "a base is finished", seconds_max=SETTLE_SECONDS_MAX)
    proxy.settle()
    daemon.sync()


def _have_orphans_aborted(daemon: Daemon, file: Path, store: Store, bucket: str) -> None:
    """Assert that no upload stays open.

    One whose Create landed late is found when the daemon next claims the database.
    """
    if _uploads_left(store, bucket):
        daemon.stop()
        daemon.start()
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            for statement in counted(insertion(1, 1000)):
                connection.execute(statement)
            daemon.sync()
    wait_until(lambda: not _uploads_left(store, bucket), "no upload is open")


def _uploads_left(store: Store, bucket: str) -> int:
    with closing(store.client()) as client:
        return len(client.list_multipart_uploads(Bucket=bucket).get("Uploads", ()))
