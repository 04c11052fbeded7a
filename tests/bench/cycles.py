"""How many cycles of open, commit and close end in a gap, without presence and with it.

    python tests/bench/cycles.py --cycles 100 --rates 1 10 100 0

One application opens the database for every transaction and closes it again, so many times a second (0: as fast as
possible), beside the daemon, with a folder for storage. With presence the WAL outlives the cycles and restarts every
``--pages``; each restart must be proven in spite of all the closes. A gap means that commits were not seen, or could
not be proven to have been: the generation ends, or a bridge ships what differs. A doubt that a scan clears is counted
apart. What is stored of each generation is restored and must hold every row up to its last: a gap that was missed would
show there as a hole. It also prints how often each rule decided at the end of a WAL, as ``walsyncd_wal_restarts_total``
counts it.
"""

from __future__ import annotations

import argparse
import contextlib
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.rig import Daemon, clean_environment, daemon, folder_section, machine_load, workplace

CYCLES_S_MAX = 600
GENERATIONS_MAX = 20  # rows restored of one run
NOTHING_TO_RESTORE, UNREACHABLE = 3, 4  # exit codes of restore

APPLICATION = """
import contextlib, sqlite3, sys, time
path, cycles, rate, pages = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
began = time.monotonic()
for cycle in range(cycles):
    if rate:
        time.sleep(max(0.0, began + cycle / rate - time.monotonic()))
    with contextlib.closing(sqlite3.connect(path, timeout=60)) as connection, connection:
        connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
        connection.execute("INSERT INTO t (x) VALUES (randomblob(200))")
print(cycles / (time.monotonic() - began))
"""


def create(path: Path) -> None:
    """Create a database in WAL mode, and close it."""
    path.parent.mkdir()
    script = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript(sys.argv[2])"
    tables = "PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, x); CREATE INDEX i ON t (x);"
    subprocess.run([sys.executable, "-c", script, str(path), tables], check=True)


def cycle(database: Path, cycles: int, rate: float, pages: int) -> float:
    """Run the application. Return how many cycles a second it made."""
    arguments = [sys.executable, "-c", APPLICATION, str(database), str(cycles), str(rate), str(pages)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=CYCLES_S_MAX, check=False)
    if done.returncode:
        raise RuntimeError(f"the application failed: {done.stderr}")
    return float(done.stdout)


def gaps(running: Daemon) -> Counter[str]:
    """Return why generations ended and gaps were bridged, without the numbers."""
    reasons = (event["reason"] for name in ("generation_ended", "gap_found") for event in running.events(name))
    return Counter(" ".join("N" if word.isdigit() else word for word in reason.split()) for reason in reasons)


def missed(folder: Path, replica: Path, generations: Sequence[str]) -> tuple[int, list[str]]:
    """Return how many of these generations could be restored, and those in which a row is missing."""
    restored, holes = 0, []
    for generation in generations:
        output = folder / f"{generation}.db"
        asked = ["restore", replica.as_uri(), "-o", str(output), "--generation", generation]
        done = subprocess.run(
            [sys.executable, "-m", "walsyncd", *asked],
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=CYCLES_S_MAX,
            check=False,
        )
        if done.returncode in {NOTHING_TO_RESTORE, UNREACHABLE}:  # the generation ended before its base was complete
            continue
        if done.returncode:
            raise RuntimeError(f"restore of {generation} failed: {done.stderr}")
        restored += 1
        with contextlib.closing(sqlite3.connect(output)) as connection:
            count, last = connection.execute("SELECT count(*), coalesce(max(id), 0) FROM t").fetchone()
        if count != last:
            holes.append(f"{generation}: {count} rows of {last}")
    return restored, holes


def measure(folder: Path, *, cycles: int, rate: float, presence: bool, pages: int) -> str:
    """Make one run in a folder of its own. Return a line for people."""
    folder.mkdir()
    database = folder / "app" / "app.db"
    create(database)
    options = f"presence = {str(presence).lower()}"
    with daemon(folder, folder_section(folder / "replica"), [database], options=options, level="debug") as running:
        running.wait_for_start(1)
        running.wait_for_bases()
        reached = cycle(database, cycles, rate, pages)
        running.wait_until_shipped()
        found = gaps(running)
        generations = [str(event["generation"]) for event in running.events("generation_began")][:GENERATIONS_MAX]
        taken = len(running.events("presence_taken"))
        rules = Counter(str(line["by"]) for line in running.events("wal_restart_proven"))
        cleared = len(running.events("doubt_cleared"))
        (row,) = running.databases()
    restored, holes = missed(folder, folder / "replica" / row.name, generations)
    total = sum(found.values())
    wanted = f"{rate:g}/s" if rate else "full speed"
    line = (
        f"presence {'on ' if presence else 'off'}  {wanted:>10}  ({reached:7.1f}/s)  {cycles} cycles  gaps {total}"
        f"  in 100: {100 * total / cycles:.2f}  cleared {cleared}  taken {taken}  proven by {dict(rules.most_common())}"
        f"  missed {len(holes)} in {restored} generations"
    )
    return "\n".join([line, *holes, *(f"    {count} times {reason}" for reason, count in found.most_common())])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every rate without and with presence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--cycles", type=int, default=100)
    parser.add_argument("--rates", type=float, nargs="+", default=[1.0, 10.0, 100.0, 0.0])
    parser.add_argument("--pages", type=int, default=1000, help="wal_autocheckpoint: so soon the WAL restarts")
    parser.add_argument("--presence", choices=("on", "off", "both"), default="both")
    args = parser.parse_args(arguments)
    with workplace(args.folder) as folder, machine_load() as load:
        for number, rate in enumerate(args.rates):
            for presence in (False, True):
                if args.presence in {"both", "on" if presence else "off"}:
                    place = folder / f"{number}-{presence}"
                    print(
                        measure(place, cycles=args.cycles, rate=rate, presence=presence, pages=args.pages), flush=True
                    )
        print(load())


if __name__ == "__main__":
    main()
