"""How a base and the commits beside it arrive over a slow uplink, with and without TLS.

    python tests/bench/slow_line.py --megabits 0.5 2 10

There are one database whose base does not compress, a writer that commits a row and waits until its segment is stored,
the daemon, a proxy that limits the rate of all connections together, and moto. The base's ratio is the time from the
start of the daemon to its manifest, divided by the time that the bytes need at that rate. The aim is 1.5.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sqlite3
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from botocore.exceptions import BotoCoreError

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.rig import daemon, machine_load, mebibytes, quantile, s3_section, workplace
from tests.certificates import make_certificate
from tests.stores import Store, run_moto
from tests.throttle import run_throttle

AIM = 1.5
PAUSE_S = 2.0
BASE_BYTES_MIN = 9 << 20
RUN_S_MAX = 1800.0


@contextlib.contextmanager
def big_database(path: Path, size: int) -> Iterator[sqlite3.Connection]:
    """Make a database of about ``size`` bytes that do not compress. Its connection stays open."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("pragma journal_mode=wal")
    connection.execute("create table t(x)")
    for _ in range(size >> 18):
        connection.execute("insert into t values (?)", (os.urandom(1 << 18),))
    connection.execute("pragma wal_checkpoint(truncate)")
    try:
        yield connection
    finally:
        connection.close()


def measure(folder: Path, store: Store, *, megabits: float, tls: bool, seconds: float) -> None:
    """Measure one rate, and print its line."""
    bytes_per_s = megabits * 1e6 / 8
    bucket = store.make_bucket()
    certificate = make_certificate(folder) if tls else None
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    client = store.client()
    waits: list[float] = []
    (folder / "data").mkdir()
    database = folder / "data/app.db"
    size = max(BASE_BYTES_MIN, int(bytes_per_s * seconds))
    with (
        run_throttle(store.endpoint_url, bytes_per_s=bytes_per_s, tls=context) as line,
        big_database(database, size) as writer,
        machine_load() as load,
    ):
        section = s3_section(store, bucket, line.endpoint_url)
        if certificate is not None:
            section += f'ca_file = "{certificate}"\n'
        with daemon(folder, section, [database]) as running:

            def keys() -> list[tuple[str, int]]:
                while True:
                    with contextlib.suppress(BotoCoreError):  # moto closes connections at any time
                        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
                        return [(each["Key"], each["Size"]) for page in pages for each in page.get("Contents", [])]

            began_s = time.monotonic()
            running.wait_for_start(1)
            base_bytes, base_s = 0, 0.0
            while not base_s and time.monotonic() - began_s < RUN_S_MAX:
                seen = {key for key, _ in keys() if "/wal/" in key}
                writer.execute("insert into t values (?)", (os.urandom(1000),))
                committed_s = time.monotonic()
                while not {key for key, _ in keys() if "/wal/" in key} - seen:
                    time.sleep(0.05)
                waits.append(time.monotonic() - committed_s)
                if any(key.endswith(".json.zst") and "/base/" in key for key, _ in keys()):
                    base_s = time.monotonic() - began_s
                    base_bytes = sum(size for key, size in keys() if key.endswith(".db.zst"))
                time.sleep(PAUSE_S)
            away = len(running.events("storage_went_away")) + len(running.events("base_abandoned"))
        needed_s = base_bytes / bytes_per_s
        print(
            f"{megabits:4g} Mbit/s {'TLS  ' if tls else 'plain'}  base {mebibytes(base_bytes)}: "
            f"{base_s / needed_s:.2f} of the time its bytes need ({base_s:.0f} s; aim {AIM})   "
            f"commits: {len(waits)}, p50 {quantile(waits, 0.5):.2f} s, max {max(waits):.2f} s   "
            f"PUTs {line.requests.get('PUT', 0)}, outages and bases abandoned {away}   {load()}",
            flush=True,
        )


def main() -> None:
    """Measure each rate, plain and with TLS."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabits", type=float, nargs="+", default=[0.5, 2, 10])
    parser.add_argument("--tls", choices=["both", "yes", "no"], default="both")
    parser.add_argument("--seconds", type=float, default=60.0, help="what a base needs at least")
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    ways = {"both": [False, True], "yes": [True], "no": [False]}[arguments.tls]
    with run_moto() as store:
        for megabits in arguments.megabits:
            for tls in ways:
                with workplace(arguments.folder) as folder:
                    measure(folder, store, megabits=megabits, tls=tls, seconds=arguments.seconds)


if __name__ == "__main__":
    main()
