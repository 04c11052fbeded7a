"""How fast a replica is made and restored, compared with Litestream on the same content and the same server.

Two databases with the same rows are replicated into one SeaweedFS, one by walsyncd, one by Litestream: first as they
are (the initial base: seconds until it is stored, stored bytes), then during further transactions. Both are then
restored in turns. Each round gives seconds, CPU seconds of all processes, and their peak memory.

With ``--wait`` both daemons run for so many seconds after the transactions before anything is restored. Meanwhile
walsyncd takes a new base because of the amount of WAL (five minutes after the last), and Litestream compacts. How well
a base compresses depends on the content: ``rows`` are half random numbers, ``documents`` are text (the sources of
Python's library).

Before each run as much memory is touched as a run fills with the file. The host of a virtual machine may have taken
back freed memory, and the next process that gets it pays for that (a second of walsyncd's restore; Litestream's takes
as long either way).

The application checkpoints by itself after walsyncd has read everything. Otherwise there might be a gap on a busy
machine, and the restore would read a newer base instead of the transactions, which is another task.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.litestream import NAME, Replica, configure, replicating
from tests.bench.rig import (
    WAIT_S_MAX,
    Usage,
    clean_environment,
    daemon,
    machine_load,
    mebibytes,
    s3_section,
    seaweedfs,
    workplace,
)
from tests.bench.writer import INSERT, connect, row
from tests.stores import Store, program
from walsyncd.adapters.storage.s3.s3_storage import S3Storage
from walsyncd.adapters.system.control_socket import ask_daemon

GOAL_RESTORE = 3.0
GOAL_BASE = 2.0
CORPUS_BYTES = 1 << 20
BATCH_ROWS = 20_000
CHECKPOINT_EVERY = 5_000  # transactions
OURS, THEIRS = "walsyncd", NAME


def make_database(path: Path, size: int, content: str) -> None:
    """Make a database of about ``size`` bytes of that content, with nothing left in its WAL."""
    fills = {"rows": _rows, "documents": _documents}
    with closing(connect(path, "OFF")) as connection:
        connection.execute("PRAGMA cache_size = -20000")  # a child's peak memory begins at ours
        fill = fills[content](connection)
        while path.stat().st_size < size:
            fill()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _rows(connection: sqlite3.Connection) -> Callable[[], object]:
    """Yield rows as applications have them, a batch at each call."""
    source = random.Random(11)
    corpus = " ".join(row(source)[4] for _ in range(CORPUS_BYTES // 80)).encode()
    fill = (
        "INSERT INTO entry (name, city, amount, seen, note) "
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
        "SELECT printf('customer.%d', abs(random()) % 1000000), substr('Oslo Porto Graz Lyon Bern', random() & 15, 6), "
        "round(abs(random()) % 100000 / 100.0, 2), abs(random()) % (1 << 40), "
        # the length of a BLOB; for a text it counts characters
        "CAST(substr(?, abs(random()) % ?, 40 + abs(random()) % 160) AS TEXT) FROM n"
    )
    return lambda: connection.execute(fill, (BATCH_ROWS, corpus, len(corpus) - 200))


def _documents(connection: sqlite3.Connection) -> Callable[[], object]:
    """Yield pieces of source files in any order, a batch at each call."""
    source = random.Random(13)
    texts = [file.read_text("utf-8", "replace") for file in sorted(Path(os.__file__).parent.glob("*.py"))]
    connection.execute("CREATE TABLE document (id INTEGER PRIMARY KEY, body TEXT)")

    def piece() -> tuple[str]:
        text, length = source.choice(texts), source.randrange(500, 8000)
        start = source.randrange(max(1, len(text) - length))
        return (text[start : start + length],)

    def fill() -> None:
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO document (body) VALUES (?)", [piece() for _ in range(BATCH_ROWS // 10)])
        connection.execute("COMMIT")

    return fill


def write(path: Path, transactions: int, settle: Callable[[], object]) -> None:
    """Commit so many transactions of one row each, which are the same for the same number.

    ``settle`` is called before each checkpoint.
    """
    source = random.Random(7)
    with closing(connect(path)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        for number in range(transactions):
            if number and number % CHECKPOINT_EVERY == 0:
                settle()
                connection.execute("PRAGMA wal_checkpoint")
            connection.execute(INSERT, row(source))
        settle()


def content_of(path: Path) -> tuple[int, float, int]:
    """Return the content, which must be the same in both restored databases."""
    with closing(sqlite3.connect(path)) as connection:
        count, amount, seen = connection.execute("SELECT count(*), total(amount), total(seen) FROM entry").fetchone()
    return int(count), round(float(amount), 2), int(seen)


@dataclass(frozen=True, slots=True)
class Run:
    """What one process needed."""

    seconds: float
    cpu_s: float
    peak_bytes: int


def run(arguments: list[str]) -> Run:
    """Run a program to its end. A RuntimeError has what it printed if it failed."""
    began = time.monotonic()
    process = subprocess.Popen(arguments, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    said = process.stdout.read()
    process.stdout.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{arguments[0]} failed:\n{said.decode()[-3000:]}")
    return Run(time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10)


class Walsyncd:
    """The daemon and the command, with a bucket of their own. ``wait_s`` is how long the daemon runs on at the end."""

    wait_s = 0.0

    def __init__(self, folder: Path, store: Store, database: Path) -> None:
        self.folder, self.database = folder, database
        self.storage = S3Storage(store.settings(store.make_bucket()))
        bucket = self.storage.url.removeprefix("s3://")
        self._section = s3_section(store, bucket)

    def replicate(self, change: Callable[[Callable[[], object]], None]) -> float:
        """Replicate while ``change`` continues. Return the seconds until the first base was stored."""
        began = time.monotonic()
        with daemon(self.folder, self._section, [self.database]) as running:
            running.wait_for_bases()
            seconds = time.monotonic() - began
            self.base_bytes, self.base_cpu_s = stored_bytes(self.storage), Usage.of(running.process.pid).cpu_s
            change(lambda: ask_daemon(running.state_dir, {"op": "sync"}, timeout_s=WAIT_S_MAX))
            running.wait_until_shipped()
            time.sleep(self.wait_s)
            running.wait_until_shipped()
            if ended := running.events("generation_ended"):
                raise RuntimeError(f"there was a gap: {ended[0]['reason']}")
        return seconds

    def restore(self, out: Path) -> Run:
        """Restore the head."""
        name = str(self.database).lstrip("/")
        config = self.folder / "walsyncd.toml"
        command = [sys.executable, "-m", "walsyncd", "restore", "--config", str(config), name, "-o", str(out)]
        return run(command)


class Litestream:
    """``litestream replicate`` and ``litestream restore``, with a bucket of their own, like `Walsyncd`."""

    wait_s = 0.0

    def __init__(self, folder: Path, store: Store, database: Path) -> None:
        self.folder, self.database = folder, database
        bucket = store.make_bucket()
        self.storage = S3Storage(store.settings(bucket))
        self._config = configure(folder, [database], Replica(folder, store, bucket))

    def replicate(self, change: Callable[[Callable[[], object]], None]) -> float:
        """Replicate like `Walsyncd.replicate`.

        Litestream's first object is its base, and no WAL is overwritten that it has not read.
        """
        began = time.monotonic()
        with replicating(self.folder, self._config) as process:
            wait_for(lambda: stored_bytes(self.storage) > 0)
            seconds = time.monotonic() - began
            self.base_bytes, self.base_cpu_s = stored_bytes(self.storage), Usage.of(process.pid).cpu_s
            change(lambda: None)
            wait_for(lambda: is_restorable(self))  # Litestream has no command that waits
            time.sleep(self.wait_s)
        return seconds

    def restore(self, out: Path) -> Run:
        """Restore the head."""
        return run([program(NAME), "restore", "-config", str(self._config), "-o", str(out), str(self.database)])


KINDS: dict[str, type[Walsyncd] | type[Litestream]] = {OURS: Walsyncd, THEIRS: Litestream}


def is_restorable(side: Walsyncd | Litestream) -> bool:
    """Return whether everything that was committed can be restored."""
    out = side.folder / "trial"
    side.restore(out)
    found = content_of(out)
    out.unlink()
    return found == content_of(side.database)


def stored_bytes(storage: S3Storage) -> int:
    """Return the bytes of all objects of a bucket."""
    return sum(info.size for info in storage.list(""))


def wait_for(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + WAIT_S_MAX
    while not is_so():
        if time.monotonic() > deadline:
            raise RuntimeError("it did not come that far")
        time.sleep(0.2)


def touch_memory(folder: Path, size: int) -> None:
    """Fill the page cache with so many bytes, and free them."""
    file = folder / "memory"
    with file.open("wb") as output:
        for _ in range(size >> 20):
            output.write(bytes(1 << 20))
    file.unlink()


def measure(
    folder: Path, size: int, transactions: int, rounds: int, *, content: str = "rows", wait_s: float = 0.0
) -> None:
    """Replicate twice, restore in turns, and print what came out."""
    with seaweedfs(folder) as store:
        sides: dict[str, Walsyncd | Litestream] = {}
        base_s: dict[str, float] = {}
        make_database(folder / "source.db", size, content)
        for name, kind in KINDS.items():
            (folder / name / "data").mkdir(parents=True)
            database = folder / name / "data" / "app.db"
            shutil.copyfile(folder / "source.db", database)
            sides[name] = kind(folder / name, store, database)
            sides[name].wait_s = wait_s
            touch_memory(folder, size)
            with closing(connect(database)) as application:  # Litestream needs an existing WAL
                application.execute(INSERT, row(random.Random(3)))
                base_s[name] = sides[name].replicate(partial(write, database, transactions))
        report_base(sides, base_s)
        runs: dict[str, list[Run]] = {OURS: [], THEIRS: []}
        for _ in range(rounds):
            for name, done in runs.items():
                out = folder / f"{name}.restored"
                touch_memory(folder, 3 * size // 2)
                done.append(sides[name].restore(out))
                if content_of(out) != content_of(sides[name].database):
                    raise RuntimeError(f"{name} restored something else")
                out.unlink()
        report_restore(runs, {name: stored_bytes(side.storage) for name, side in sides.items()})
        for side in sides.values():
            side.storage.close()


def report_base(sides: dict[str, Walsyncd | Litestream], base_s: dict[str, float]) -> None:
    """Report the initial base."""
    speed = base_s[THEIRS] / base_s[OURS]
    share = sides[OURS].base_bytes / sides[THEIRS].base_bytes
    print(f"initial base   {speed:.1f} times as fast (goal {GOAL_BASE}), {share:.2f} of the stored bytes (goal 0.5)")
    for name, seconds in base_s.items():
        side = sides[name]
        stored = mebibytes(side.base_bytes)
        print(f"{'':14} {name:10} {seconds:6.2f} s   CPU {side.base_cpu_s:6.2f} s   {stored} stored")


def report_restore(runs: dict[str, list[Run]], stored: dict[str, int]) -> None:
    """Report the restores, by their medians."""
    seconds = {name: median(each.seconds for each in done) for name, done in runs.items()}
    print(f"restore        {seconds[THEIRS] / seconds[OURS]:.1f} times as fast (goal {GOAL_RESTORE})")
    for name, done in runs.items():
        spread = f"{min(each.seconds for each in done):.2f} … {max(each.seconds for each in done):.2f}"
        print(
            f"{'':14} {name:10} {seconds[name]:6.2f} s ({spread})   CPU {median(each.cpu_s for each in done):6.2f} s   "
            f"peak {mebibytes(max(each.peak_bytes for each in done))}   {mebibytes(stored[name])} stored"
        )


def main() -> None:
    """Parse arguments, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mebibytes", type=int, default=1024)
    parser.add_argument("--transactions", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--content", choices=("rows", "documents"), default="rows")
    parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--small", action="store_true", help="a few MiB: does it run at all")
    parser.add_argument("--folder", type=Path, help="work below this folder")
    asked = parser.parse_args()
    if asked.small:
        asked.mebibytes, asked.transactions, asked.rounds = 8, 500, 1
    with workplace(asked.folder) as folder, machine_load() as load:
        size, transactions = asked.mebibytes << 20, asked.transactions
        measure(folder, size, transactions, asked.rounds, content=asked.content, wait_s=asked.wait)
        print(load())


if __name__ == "__main__":
    main()
