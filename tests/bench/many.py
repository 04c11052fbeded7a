"""What many small databases cost: the first base of each, then the commands that go over all of them.

    python -m tests.bench.many --databases 1000

Each database is a small WAL database that nobody has open, in a folder of its own. The daemon takes the first base of
each. Then it ends, and each command runs in a process of its own. Seconds, CPU seconds and peak memory are printed.
With a store (SeaweedFS on this machine), Litestream replicates as many such databases into a bucket of its own, and
both are printed as a ratio. Litestream has no command that restores or prunes all databases: those rows are walsyncd's
alone.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.litestream import Replica, configure, has_litestream, replicating
from tests.bench.restore import Run, run
from tests.bench.rig import (
    Usage,
    daemon,
    folder_section,
    machine_load,
    mebibytes,
    s3_section,
    seaweedfs,
    workplace,
)
from tests.bench.writer import connect
from tests.stores import Store
from walsyncd.adapters.storage.s3.s3_storage import S3Storage

FOLDER, SEAWEEDFS = "folder", "seaweedfs"
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("status",),
    ("check",),
    ("ls",),
    ("prune", "--dry-run"),
)
WAIT_S_MAX = 3600.0
POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Bases:
    """What the first bases of all databases took."""

    seconds: float
    cpu_s: float
    rss_bytes: int


def make_databases(folder: Path, count: int, size: int) -> str:
    """Make so many databases of about ``size`` bytes, and return the pattern that finds them."""
    template = folder / "template.db"
    folder.mkdir(parents=True)
    with closing(connect(template, "OFF")) as connection:
        while template.stat().st_size < size:
            connection.execute("INSERT INTO entry (name, city, note) VALUES ('a', 'b', hex(randomblob(400)))")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for number in range(count):
        place = folder / f"tenant-{number:05}"
        place.mkdir()
        shutil.copyfile(template, place / "data.db")
    template.unlink()
    return str(folder / "*" / "data.db")


def first_bases(folder: Path, storage: str, pattern: str, count: int) -> Bases:
    """Start the daemon, and wait until each database has a base and nothing is left to ship."""
    began = time.monotonic()
    with daemon(folder, storage, [pattern]) as follower:
        while len(rows := follower.databases()) < count or not all(
            row.base_key and not row.spooled_bytes for row in rows
        ):
            if follower.process.poll() is not None or time.monotonic() > began + WAIT_S_MAX:
                raise RuntimeError(f"the daemon did not come that far:\n{follower.log.read_text()[-4000:]}")
            time.sleep(POLL_S)
        seconds, usage = time.monotonic() - began, Usage.of(follower.process.pid)
    return Bases(seconds, usage.cpu_s, usage.rss_bytes)


def commands(folder: Path, count: int) -> dict[str, Run]:
    """Run each command over all databases."""
    file = folder / "walsyncd.toml"
    file.chmod(0o640)  # check wants nobody else to read a secret
    config = ["--config", str(file)]
    start = [sys.executable, "-m", "walsyncd"]
    done = {" ".join(words): run([*start, *words, *config]) for words in COMMANDS}
    out = folder / "restored"
    done["restore --all"] = run([*start, "restore", "--all", "-o", str(out), *config])
    if (restored := len([*out.glob("**/data.db")])) != count:
        raise RuntimeError(f"{restored} of {count} databases were restored")
    return done


def litestream_bases(folder: Path, store: Store, count: int, size: int) -> Bases:
    """Have Litestream replicate as many such databases of its own, and wait until each has an object."""
    bucket, folder = store.make_bucket(), folder / "litestream"
    make_databases(folder / "tenants", count, size)
    databases = sorted(folder.glob("tenants/*/data.db"))
    config = configure(folder, databases, Replica(folder, store, bucket))
    storage, began = S3Storage(store.settings(bucket)), time.monotonic()
    with closing(storage), replicating(folder, config) as process:
        while len(storage.folders("replica/")) < count:
            if process.poll() is not None or time.monotonic() > began + WAIT_S_MAX:
                raise RuntimeError("Litestream did not come that far")
            time.sleep(POLL_S)
        seconds, usage = time.monotonic() - began, Usage.of(process.pid)
    return Bases(seconds, usage.cpu_s, usage.rss_bytes)


def report_bases(name: str, bases: Bases, count: int, other: Bases | None) -> None:
    """Print what the first bases took."""
    each = f"{1000 * bases.seconds / count:.2f} ms and {1000 * bases.cpu_s / count:.2f} ms CPU each"
    print(
        f"{name:10} first bases of {count}   {bases.seconds:7.2f} s   CPU {bases.cpu_s:7.2f} s   "
        f"RSS {mebibytes(bases.rss_bytes)}   ({each})"
    )
    if other is not None:
        print(
            f"{'':10} Litestream / walsyncd = {other.seconds / bases.seconds:.2f} of the time, "
            f"{other.cpu_s / bases.cpu_s:.2f} of the CPU, {other.rss_bytes / bases.rss_bytes:.2f} of the memory"
        )


def report_commands(name: str, done: dict[str, Run]) -> None:
    """Print what each command took."""
    for words, took in done.items():
        print(
            f"{name:10} {words:22} {took.seconds:7.2f} s   CPU {took.cpu_s:7.2f} s   peak {mebibytes(took.peak_bytes)}"
        )


def measure(folder: Path, *, count: int, size: int, storages: list[str]) -> None:
    """Run the benchmark in ``folder`` and print the result."""
    with machine_load() as load:
        pattern = make_databases(folder / "tenants", count, size)
        for name in storages:
            place = folder / f"with-{name}"
            place.mkdir()
            if name == FOLDER:
                measure_one(name, place, folder_section(place / "bucket"), pattern, count)
                continue
            with seaweedfs(folder) as store:
                other = litestream_bases(folder, store, count, size) if has_litestream() else None
                measure_one(name, place, s3_section(store, store.make_bucket()), pattern, count, other)
        print(load())


def measure_one(name: str, folder: Path, storage: str, pattern: str, count: int, other: Bases | None = None) -> None:
    """Measure one storage."""
    report_bases(name, first_bases(folder, storage, pattern, count), count, other)
    report_commands(name, commands(folder, count))


def main() -> None:
    """Parse arguments, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--databases", type=int, default=1000)
    parser.add_argument("--kibibytes", type=int, default=92, help="of each database")
    parser.add_argument("--storages", nargs="+", choices=(FOLDER, SEAWEEDFS), default=[FOLDER, SEAWEEDFS])
    parser.add_argument("--folder", type=Path, help="work below this folder")
    asked = parser.parse_args()
    with workplace(asked.folder) as folder:
        measure(folder, count=asked.databases, size=asked.kibibytes << 10, storages=asked.storages)


if __name__ == "__main__":
    main()
