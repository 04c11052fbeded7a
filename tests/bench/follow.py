"""How fast the follower reads, verifies, re-stamps, compresses and spools, compared with zstd alone.

    python tests/bench/follow.py --mebibytes 256 --commits 10000

The follower's own loop runs in this process, with a real journal and spool on disk, on a WAL that another process has
written and holds open. Beside it ``zstd`` level 1 (the same library, one thread) compresses the same file. The same
rows come in three ways: a long backlog of large transactions, a backlog of single-row commits, and single-row commits
that are followed one by one, which costs most. CPU seconds are those of this process. Wall time is printed too, because
the spool's fsyncs wait without computing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.rig import machine_load, mebibytes, workplace
from walsyncd.adapters.files.inotify import InotifyReader
from walsyncd.adapters.files.source import boot_id
from walsyncd.adapters.journal.journal import Journal, ObjectRow
from walsyncd.config import DatabaseSpec
from walsyncd.core.stored.zstd import zstd
from walsyncd.engine.follow.environment import Environment
from walsyncd.engine.follow.event_pump import EventPump
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.follower import Follower
from walsyncd.engine.follow.schedule import Schedule
from walsyncd.engine.follow.wal_pairs import WalPairs

GOAL = 0.5
ROWS_A_LARGE_COMMIT = 2000
LIVE_COMMITS_MAX = 1000  # each commit is an fsync of its own
_OPTIONS: dict[int, int] = {zstd.CompressionParameter.compression_level: 1, zstd.CompressionParameter.checksum_flag: 1}
_READ_BYTES = 4 << 20  # as much as the follower reads at once

# Commits as told: a number of transactions, and the rows in each. It never checkpoints, so that all stays in one WAL.
_FEEDER = """
import random, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from tests.bench.writer import INSERT, connect, row
connection = connect(Path(sys.argv[1]))
connection.execute("PRAGMA wal_autocheckpoint = 0")
connection.execute("PRAGMA cache_size = -200000")
source = random.Random(7)
print("ready", flush=True)
for line in sys.stdin:
    transactions, rows = map(int, line.split())
    for _ in range(transactions):
        connection.execute("BEGIN")
        connection.executemany(INSERT, (row(source) for _ in range(rows)))
        connection.execute("COMMIT")
    print("done", flush=True)
"""


class Feeder:
    """The application: a process with a WAL database open."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._line()

    def commit(self, transactions: int, rows: int) -> None:
        """Make so many transactions of so many rows. They are committed when this returns."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{transactions} {rows}\n")
        self._process.stdin.flush()
        self._line()

    def _line(self) -> None:
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise RuntimeError("the feeder died")


@contextmanager
def feeder(path: Path) -> Iterator[Feeder]:
    """Return a feeder of the database at ``path``."""
    root = str(Path(__file__).parents[2])
    arguments = [sys.executable, "-c", _FEEDER, str(path), root]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Feeder(process)
        assert process.stdin is not None
        process.stdin.close()


class RateLimit:
    """The follower of one database without its threads: ``catch_up`` runs it in this one."""

    def __init__(self, folder: Path, path: Path) -> None:
        self._schedule = Schedule()
        self.journal = Journal.open(folder / "state")
        self._watcher = InotifyReader()
        self._event_pump = EventPump(self._watcher, self._schedule.wake, lambda: None)
        spec = DatabaseSpec(path, "bench", str(path), "database[1]", 1.0, 86_400.0, 86_400.0, presence=False)
        self._tracked = FollowedDatabase(spec, self.journal.database("bench", str(path)).id, WalPairs(path))
        self.spooled_bytes = self.objects = 0
        self._follower = Follower(
            self.journal,
            Environment(self.journal, self._event_pump.drain, boot_id()),
            self._schedule,
            offer=self._offer,
            leaves_at_once=lambda _: False,
            base_due=lambda _: None,
            is_spool_full=lambda: False,
        )
        self._event_pump.add(self._tracked)
        self._tracked.wal_pairs.look_around()

    def _offer(self, rows: list[ObjectRow]) -> None:
        self.objects += len(rows)
        self.spooled_bytes += sum(row.size for row in rows)

    def catch_up(self) -> None:
        """Look until everything that is committed now is spooled."""
        caught_up = self._follower.request(self._tracked, lambda _: None)
        while not caught_up.done():
            self._follower.round([self._tracked])
        caught_up.result()

    def close(self) -> None:
        """Close the files."""
        self._watcher.close()
        self.journal.close()


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds that something took."""

    cpu_s: float
    wall_s: float


class Stopwatch:
    """Measures a block. ``cost`` is known after it."""

    def __enter__(self) -> Stopwatch:
        self._began = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.cost = Cost(time.process_time() - self._began[0], time.perf_counter() - self._began[1])


def zstd_alone(file: Path, offset: int) -> tuple[Cost, int]:
    """Return what it takes to read and compress a file from ``offset`` on, and the size of the result."""
    compressor = zstd.ZstdCompressor(options=_OPTIONS)
    size = 0
    with file.open("rb", buffering=0) as source, Stopwatch() as watch:
        source.seek(offset)
        while block := source.read(_READ_BYTES):
            size += len(compressor.compress(block))
        size += len(compressor.flush(zstd.ZstdCompressor.FLUSH_FRAME))
    return watch.cost, size


def follow(line: RateLimit, wal: Path, name: str, offset: int) -> None:
    """Catch up with what the WAL holds from ``offset`` on, and print how that compares."""
    before = line.spooled_bytes, line.objects
    with Stopwatch() as watch:
        line.catch_up()
    alone, compressed = zstd_alone(wal, offset)
    size = wal.stat().st_size - offset
    ours = watch.cost
    spooled, objects = line.spooled_bytes - before[0], line.objects - before[1]
    print(
        f"{name:22} {mebibytes(size)}: follow / zstd -1 = {alone.cpu_s / ours.cpu_s:.2f} by CPU, "
        f"{alone.wall_s / ours.wall_s:.2f} by wall time (goal {GOAL})\n"
        f"{'':22} {size / ours.cpu_s / 1e6:.0f} MB/s of CPU, {size / ours.wall_s / 1e6:.0f} MB/s of wall time; "
        f"zstd {size / alone.cpu_s / 1e6:.0f} MB/s\n"
        f"{'':22} spooled {spooled / size:.1%} in {objects} objects, zstd {compressed / size:.1%}"
    )


def measure(folder: Path, *, size: int, commits: int) -> None:
    """Run the benchmark in ``folder`` and print the result."""
    path = folder / "app" / "app.db"
    path.parent.mkdir()
    wal = path.with_name("app.db-wal")
    with feeder(path) as application, closing(RateLimit(folder, path)) as line, machine_load() as load:
        line.catch_up()
        begin = wal.stat().st_size
        while wal.stat().st_size - begin < size:
            application.commit(10, ROWS_A_LARGE_COMMIT)
        follow(line, wal, "large transactions", begin)

        begin = wal.stat().st_size
        application.commit(commits, 1)
        with Stopwatch() as backlog:
            follow(line, wal, f"{commits} commits at once", begin)
        print(f"{'':22} {1e6 * backlog.cost.cpu_s / commits:.0f} µs CPU a commit, zstd alone included")

        with Stopwatch() as live:
            for _ in range(live_commits := min(commits, LIVE_COMMITS_MAX)):
                application.commit(1, 1)
                line.catch_up()
        print(
            f"{'one by one':22} {1e6 * live.cost.cpu_s / live_commits:.0f} µs CPU a commit, "
            f"{1e6 * live.cost.wall_s / live_commits:.0f} µs with its fsync and the application's own time"
        )
        print(load())


def main() -> None:
    """Parse arguments, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mebibytes", type=float, default=256.0, help="of WAL, at least")
    parser.add_argument("--commits", type=int, default=10_000, help="single-row commits")
    parser.add_argument("--folder", type=Path, help="work below this folder")
    asked = parser.parse_args()
    with workplace(asked.folder) as folder:
        measure(folder, size=int(asked.mebibytes * (1 << 20)), commits=asked.commits)


if __name__ == "__main__":
    main()
