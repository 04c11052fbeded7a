"""What following costs the application: its commits a second with the daemon beside it, over those without.

    python tests/bench/burden.py --seconds 10 --rounds 3

One process commits single rows in a tight loop (or ``--rate`` a second: then the time that a commit takes is compared
instead), in WAL mode, with SQLite's own checkpoints. There is no daemon, one that ships into a folder, and one that
ships to SeaweedFS, in turn and in several rounds. The median of the rounds' ratios counts, since a machine is not
equally fast at all times. The store runs on the same machine and takes its share of the cores too, as no real one
would. In the other cases it is idle.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.rig import (
    Daemon,
    Usage,
    cpu_share,
    daemon,
    folder_section,
    machine_load,
    mebibytes,
    s3_section,
    seaweedfs,
    workplace,
)
from tests.bench.writer import Writer, Written, writer
from tests.stores import Store

GOAL = 0.95
ALONE, FOLDER, SEAWEEDFS = "alone", "folder", "seaweedfs"
_SAMPLE_S = 0.25


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the writer, and what the daemon beside it did, if there was one."""

    rate: float
    commit_us: float
    """What one commit took."""
    wal_bytes: int
    cpu: float = 0.0
    """The share of one core while the writer wrote."""
    cpu_a_commit_us: float = 0.0
    caught_up_s: float = 0.0
    """Seconds from the writer's end until all was stored."""
    gaps: tuple[str, ...] = ()
    """Why each generation ended."""
    tails: int = 0
    resident: tuple[int, ...] = ()
    """Bytes of memory: before, at a third, at two thirds and at the end of the run."""


@dataclass(slots=True)
class Sampler:
    """Samples a process's resident memory until it is told to stop."""

    pid: int
    sizes: list[int] = field(default_factory=list)
    _done: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self._done.wait(_SAMPLE_S):
            self.sizes.append(Usage.of(self.pid).rss_bytes)

    def stop(self) -> None:
        self._done.set()

    def thirds(self) -> tuple[int, ...]:
        """Return the first sample, those after one and two thirds, and the last."""
        last = len(self.sizes) - 1
        return tuple(self.sizes[last * third // 3] for third in range(4)) if self.sizes else ()


@contextmanager
def sampled(pid: int) -> Iterator[Sampler]:
    """Sample a process while the block runs."""
    sampler = Sampler(pid)
    thread = threading.Thread(target=sampler.run)
    thread.start()
    try:
        yield sampler
    finally:
        sampler.stop()
        thread.join()


def run_once(folder: Path, case: str, store: Store, *, rate: float, seconds: float, synchronous: str) -> Run:
    """Run once on a new database."""
    folder.mkdir()
    database = folder / "app" / "app.db"
    database.parent.mkdir()
    wal = database.with_name("app.db-wal")
    with writer(database, rate=rate, seconds=seconds, synchronous=synchronous) as application:
        if case == ALONE:
            written = application.write()
            return Run(written.rate, commit_us(written), wal.stat().st_size)
        storage = folder_section(folder / "bucket") if case == FOLDER else s3_section(store, store.make_bucket())
        with daemon(folder, storage, [database]) as follower:
            follower.wait_for_bases()
            return watched(application, follower, wal)


def commit_us(written: Written) -> float:
    """Microseconds that a commit took."""
    return 1e6 * written.committing_s / written.commits


def watched(application: Writer, follower: Daemon, wal: Path) -> Run:
    """Let the application write. Return what the daemon does meanwhile and until it has caught up."""
    pid = follower.process.pid
    with sampled(pid) as sampler:
        before = Usage.of(pid)
        written = application.write()
        after = Usage.of(pid)
    ended = time.monotonic()
    follower.wait_until_shipped()
    return Run(
        written.rate,
        commit_us(written),
        wal.stat().st_size,
        cpu_share(before, after),
        1e6 * (Usage.of(pid).cpu_s - before.cpu_s) / written.commits,
        time.monotonic() - ended - 1.0,  # the wait itself needs a quiet second
        tuple(event["reason"] for event in follower.events("generation_ended")),
        len(follower.events("wal_tail_recovered")),
        sampler.thirds(),
    )


def report(case: str, synchronous: str, runs: list[Run], alone: list[Run]) -> None:
    """Print one case, as a ratio to the runs without a daemon."""
    ratios = [before.commit_us / after.commit_us for before, after in zip(alone, runs, strict=True)]
    rates = f"{median(run.rate for run in runs):.0f} of {median(run.rate for run in alone):.0f} commits/s"
    times = (
        f"{median(run.commit_us for run in runs):.0f} instead of {median(run.commit_us for run in alone):.0f} µs each"
    )
    slowest, fastest = min(run.rate for run in alone), max(run.rate for run in alone)
    print(
        f"{synchronous:6} {case:9}  speed of a commit with / without = {median(ratios):.3f}, "
        f"rounds {min(ratios):.2f} … {max(ratios):.2f} (goal {GOAL})\n"
        f"{'':16}  {rates}, {times}; rounds without the daemon differ among themselves by {fastest / slowest:.2f}"
    )
    wal_ratio = max(run.wal_bytes for run in runs) / max(run.wal_bytes for run in alone)
    last = runs[-1]
    gaps = [gap for run in runs for gap in run.gaps]
    print(
        f"{'':16}  daemon {last.cpu:.0%} of a core, {last.cpu_a_commit_us:.0f} µs CPU a commit; "
        f"caught up {max(run.caught_up_s for run in runs):.1f} s after the end\n"
        f"{'':16}  WAL with / without = {wal_ratio:.2f} ({mebibytes(last.wal_bytes)}); "
        f"gaps {len(gaps)} (goal 0), recovered tails {sum(run.tails for run in runs)}\n"
        f"{'':16}  RSS over the run: {' → '.join(mebibytes(size) for size in last.resident)}"
    )
    for reason in sorted(set(gaps)):
        print(f"{'':16}  gap: {reason}")


def measure(
    folder: Path, cases: list[str], synchronous: list[str], *, rate: float, seconds: float, rounds: int
) -> None:
    """Run the benchmark in ``folder`` and print what came out."""
    with seaweedfs(folder) as store, machine_load() as load:
        for mode in synchronous:
            runs: dict[str, list[Run]] = {case: [] for case in [ALONE, *cases]}
            for number in range(rounds):
                for case, done in runs.items():
                    place = folder / f"{mode}-{case}-{number}"
                    done.append(run_once(place, case, store, rate=rate, seconds=seconds, synchronous=mode))
            for case in cases:
                report(case, mode, runs[case], runs[ALONE])
        print(load())


def main() -> None:
    """Parse arguments, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each run")
    parser.add_argument("--rate", type=float, default=0.0, help="commits a second; 0: as fast as it goes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", nargs="+", choices=(FOLDER, SEAWEEDFS), default=[FOLDER, SEAWEEDFS])
    parser.add_argument("--synchronous", nargs="+", choices=("NORMAL", "FULL"), default=["NORMAL", "FULL"])
    parser.add_argument("--folder", type=Path, help="work below this folder")
    asked = parser.parse_args()
    with workplace(asked.folder) as folder:
        measure(folder, asked.cases, asked.synchronous, rate=asked.rate, seconds=asked.seconds, rounds=asked.rounds)


if __name__ == "__main__":
    main()
