"""What a bridged gap costs, and what a scan costs a writer beside it.

    python tests/bench/bridge.py --mib 1024 --pages 2000 --seconds 4 --rounds 10

1. A database of ``--mib`` is stored, with a page map. While the daemon is stopped, ``--pages`` of its pages are changed
and the WAL is truncated twice, so that nothing can be proven. The next daemon bridges the gap. The bridge is compared
with those pages in one zstd stream of the same level, and with the base. 2. A writer commits in a tight loop, with the
daemon beside it, without a scrub and beside one, for ``--seconds`` each. Of ``--rounds`` such pairs every second one
begins with the scrub, so that a machine that becomes faster or slower meanwhile makes no difference. The median is
printed, once for a file in the page cache, and once for one that is not.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from statistics import median

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.rig import (
    Daemon,
    Usage,
    daemon,
    folder_section,
    machine_load,
    mebibytes,
    workplace,
)
from tests.bench.writer import writer
from walsyncd.adapters.system.control_socket import ask, socket_path
from walsyncd.core.content.page_entry import Entries, entries_of_pages
from walsyncd.core.stored.zstd import zstd

PAGE_SIZE = 4096
ROW_BYTES = 3500  # so that each row has a page of its own
BLOCK_BYTES = 4 << 20
LEVEL = 1  # the level of a segment
SIZE_GOAL, CPU_GOAL_S, SPEED_GOAL = 1.2, 2.0, 0.95
ROUNDS = 10
SCRUB_POLL_S = 0.1

APPLICATION = """
import random, sqlite3, sys
path, rows, seed, row_bytes = sys.argv[1], *map(int, sys.argv[2:])
source = random.Random(seed)
words = [source.randbytes(5).hex() for _ in range(2000)]
def text():
    return " ".join(source.choices(words, k=320))[:row_bytes]
connection = sqlite3.connect(path, isolation_level=None)
connection.execute("PRAGMA journal_mode = WAL")
connection.execute("CREATE TABLE IF NOT EXISTS page (id INTEGER PRIMARY KEY, y)")
(count,) = connection.execute("SELECT count(*) FROM page").fetchone()
connection.execute("BEGIN")
if count:
    for id in source.sample(range(1, count + 1), rows):
        connection.execute("UPDATE page SET y = ? WHERE id = ?", (text(), id))
else:
    connection.executemany("INSERT INTO page (y) VALUES (?)", ((text(),) for _ in range(rows)))
connection.execute("COMMIT")
connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
connection.execute("UPDATE page SET y = y WHERE id = 1")
connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
"""


def application(database: Path, rows: int, seed: int) -> None:
    """Fill the database with so many rows, or change so many."""
    subprocess.run([sys.executable, "-c", APPLICATION, str(database), str(rows), str(seed), str(ROW_BYTES)], check=True)


def entries(database: Path) -> Entries:
    """Return the hash of each page."""
    parts: list[Entries] = []
    with database.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            parts.append(entries_of_pages(block, PAGE_SIZE))
    return np.concatenate(parts)


def stored_size(database: Path, before: Entries, after: Entries) -> tuple[int, int]:
    """Return how many pages differ, and what they take in one zstd stream."""
    pages = np.flatnonzero(before != after[: len(before)]).tolist() + list(range(len(before), len(after)))
    packer = zstd.ZstdCompressor(level=LEVEL)
    size = 0
    with database.open("rb") as file:
        for page in pages:
            size += len(packer.compress(os.pread(file.fileno(), PAGE_SIZE, page * PAGE_SIZE)))
    return len(pages), size + len(packer.flush())


def wait_for_event(running: Daemon, name: str) -> dict[str, object]:
    """Return the first line of that name in the log, when it comes."""
    running.wait_for(lambda _: bool(running.events(name)))
    return dict(running.events(name)[0])


def measure_bridge(folder: Path, database: Path, pages: int) -> str:
    """Measure the first part, and return lines for people."""
    storage = folder_section(folder / "replica")
    with daemon(folder, storage, [database], options='scrub_interval = "off"') as running:
        running.wait_for_bases()
        wait_for_event(running, "page_map_made")
        running.wait_until_shipped()
        (row,) = running.databases()
    before = entries(database)
    application(database, pages, seed=2)
    count, size = stored_size(database, before, entries(database))
    with daemon(folder, storage, [database], options='scrub_interval = "off"') as running:
        running.wait_for_start(2)
        start = Usage.of(running.process.pid)
        bridged = wait_for_event(running, "gap_bridged")
        running.wait_until_shipped()
        end = Usage.of(running.process.pid)
        if running.events("generation_began")[1:]:
            raise RuntimeError("the gap ended the generation")
    stored = int(str(bridged["stored_bytes"]))
    return (
        f"bridge over {count} changed pages of {mebibytes(database.stat().st_size)}: {mebibytes(stored)}, "
        f"{stored / size:.2f} of the pages' stored size (goal: {SIZE_GOAL} at most), "
        f"{stored / row.base_bytes:.4f} of the base ({mebibytes(row.base_bytes)})\n"
        f"CPU of the bridge: {end.cpu_s - start.cpu_s:.2f} s (goal: {CPU_GOAL_S} at most), "
        f"{end.at_s - start.at_s:.1f} s at the scans' pace"
    )


@contextmanager
def scrubbing(folder: Path, before_each: Callable[[], None]) -> Iterator[None]:
    """Scrub again and again.

    The daemon is asked directly, because starting the command would cost more than the scan.
    """
    stopped, asked_once = threading.Event(), threading.Event()
    control = socket_path(folder / "state")

    def run() -> None:
        while not stopped.is_set():
            before_each()
            asked = ask(control, {"op": "scrub", "names": []}, timeout_s=60)
            asked_once.set()
            done: object = None
            while asked is not None and not done:
                time.sleep(SCRUB_POLL_S)
                answer = ask(control, {"op": "scrubbed", "databases": asked["databases"]}, timeout_s=60)
                done = answer["done"] if answer is not None else {"": "the daemon ended"}

    thread = threading.Thread(target=run)
    thread.start()
    asked_once.wait(60.0)
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def measure_speed(folder: Path, database: Path, seconds: float, rounds: int) -> list[str]:
    """Measure the second part, and return lines for people."""

    def drop_cache() -> None:
        with database.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def keep_cache() -> None:
        """Keep the file in the page cache."""

    lines: list[str] = []
    options = 'scrub_interval = "off"'
    with (
        daemon(folder, folder_section(folder / "replica"), [database], options=options) as running,
        writer(database, seconds=seconds) as application,
    ):
        running.wait_until_shipped()
        application.write()
        for cache, prepare in (("in the page cache", keep_cache), ("not in the page cache", drop_cache)):
            ratios: list[float] = []
            for number in range(rounds):
                rates: dict[bool, float] = {}
                for is_beside in (bool(number % 2), not number % 2):
                    prepare()
                    with scrubbing(folder, prepare) if is_beside else nullcontext():
                        rates[is_beside] = application.write().rate
                ratios.append(rates[True] / rates[False])
            told = ", ".join(f"{ratio:.2f}" for ratio in sorted(ratios))
            lines.append(
                f"writer beside a scan, file {cache}: {median(ratios):.2f} of its speed without one ({told}; "
                f"goal: {SPEED_GOAL} at least)"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024, help="size of the database")
    parser.add_argument("--pages", type=int, default=2000, help="pages that are changed in the gap")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each run of the writer; 0: none")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="pairs of runs of the writer")
    parser.add_argument("--folder", type=Path, help="where everything lies; its disk is what is measured")
    asked = parser.parse_args()
    with workplace(asked.folder) as folder, machine_load() as load:
        database = folder / "app" / "app.db"
        database.parent.mkdir()
        application(database, asked.mib * (1 << 20) // PAGE_SIZE, seed=1)
        with closing(sqlite3.connect(database)) as connection:
            assert connection.execute("PRAGMA page_size").fetchone() == (PAGE_SIZE,)
        print(measure_bridge(folder, database, asked.pages))
        if asked.seconds:
            print(*measure_speed(folder, database, asked.seconds, asked.rounds), sep="\n")
        print(load())


if __name__ == "__main__":
    main()
