"""How long a plan takes, and how much memory, over a listing of very many objects.

Names as LIST gives them are parsed, sorted, and planned for three targets. The time of LIST itself is the store's:
``--store`` puts that many empty objects into a SeaweedFS and lists them.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.rig import machine_load, mebibytes, seaweedfs, workplace
from walsyncd.adapters.storage.s3.s3_storage import S3Storage
from walsyncd.core.restore.coverage import Listing, listing_of
from walsyncd.core.restore.plan import AtPosition, AtTime, Head, Plan, Target, make_plan
from walsyncd.core.stored.layout import BaseKey, Key, ManifestKey, SegmentKey, format_key, parse_key
from walsyncd.core.stored.position import Position
from walsyncd.engine.restore.replica import Replica

GENERATION = "20261122T105600Z-3f9c1a2b"
BEGAN_MS = 1_795_344_960_000
SEGMENTS_AN_EPOCH = 200
FRAMES_A_SEGMENT = 12
BASES = 8


def names(count: int) -> Iterator[str]:
    """Return a week of one generation: ``count`` segments and a few bases."""
    frame = previous = 0
    epoch = 1
    for number in range(count):
        first, frame = frame + 1, frame + FRAMES_A_SEGMENT
        time_ms = BEGAN_MS + number * 6000
        yield format_key(SegmentKey(GENERATION, epoch, first, frame, time_ms, previous if first == 1 else None))
        if number % (count // BASES) == 0:
            base = BaseKey(GENERATION, epoch, frame, f"{number:08x}")
            yield format_key(base)
            yield format_key(ManifestKey(base, epoch, frame, time_ms))
        if number % SEGMENTS_AN_EPOCH == SEGMENTS_AN_EPOCH - 1:
            previous, frame, epoch = frame, 0, epoch + 1


def measure(count: int) -> None:
    """Parse and plan. Print seconds and memory."""
    listed = list(names(count))
    before = _peak_bytes()
    began = time.monotonic()
    keys: list[Key] = [key for key in map(parse_key, listed) if key is not None]
    listing = listing_of(keys)
    print(f"parse {len(keys)} names: {time.monotonic() - began:.2f} s")
    middle = keys[len(keys) // 2]
    assert isinstance(middle, SegmentKey)
    targets: list[Target] = [
        Head(),
        AtTime(middle.time_ms),
        AtPosition(Position(GENERATION, middle.epoch, middle.last)),
    ]
    for target in targets:
        _plan(listing, target)
    print(f"memory: {mebibytes(_peak_bytes() - before)} more than before")


def _plan(listing: Listing, target: Target) -> None:
    began = time.monotonic()
    plan = make_plan(listing, target)
    assert isinstance(plan, Plan)
    print(f"plan {type(target).__name__}: {time.monotonic() - began:.2f} s, {len(plan.objects)} objects to read")


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def measure_store(folder: Path, count: int) -> None:
    """List a real store."""
    with seaweedfs(folder) as store:
        storage = S3Storage(store.settings(store.make_bucket()))
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: storage.put(f"db/{name}", b"x", metadata={}), names(count)))
        began = time.monotonic()
        found = sum(1 for _ in Replica(storage, "db").objects(GENERATION))
        print(f"list {found} objects of a SeaweedFS: {time.monotonic() - began:.2f} s")
        storage.close()


def main() -> None:
    """Parse arguments, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--store", action="store_true", help="list them from a SeaweedFS too")
    parser.add_argument("--folder", type=Path, help="work below this folder")
    asked = parser.parse_args()
    with machine_load() as load:
        measure(asked.objects)
        if asked.store:
            with workplace(asked.folder) as folder:
                measure_store(folder, asked.objects)
        print(load())


if __name__ == "__main__":
    main()
