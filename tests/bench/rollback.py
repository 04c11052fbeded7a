"""What following a large database in rollback mode costs: bytes stored and CPU for each small commit.

    python tests/bench/rollback.py --mebibytes 1024 --commits 60 --rate 1

A writer commits one row at a time, at a rate, in mode DELETE and then in mode PERSIST. After each run the replica's
head, and some of the moments before it, are restored and compared with the file, byte for byte; the head also by hand,
with the ``zstd`` and ``sqlite3`` programs. The figures are printed as shares of the aim for a commit, beside those of a
base of the same database.
"""

from __future__ import annotations

import argparse
import hashlib
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.rig import ROOT, Daemon, Usage, clean_environment, daemon, folder_section, machine_load, workplace
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.core.follow.follow_state import parse_follow_state
from walsyncd.core.restore.plan import AtPosition, Head, Target
from walsyncd.core.stored.position import Position
from walsyncd.engine.restore.replica import Replica
from walsyncd.engine.restore.restorer import find_plan, restore

BYTES_AIM = 20 << 10
CPU_AIM_S = 0.005
ROW_BYTES = 3500
KEPT_MOMENTS = 3


@dataclass(frozen=True, slots=True)
class Cost:
    """What was stored and used for each commit, the base's bytes, and how many states were compared."""

    stored: float
    cpu_s: float
    base_bytes: int
    objects: int
    compared: int


def fill(path: Path, mebibytes: int) -> int:
    """Make the database. Return its rows."""
    rows = mebibytes * (1 << 20) // (ROW_BYTES + 600)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("CREATE TABLE t (k INTEGER PRIMARY KEY, v BLOB)")
        numbers = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < ?)"
        connection.execute(f"{numbers} INSERT INTO t SELECT x, randomblob({ROW_BYTES}) FROM n", (rows,))
    return rows


def digest(path: Path) -> bytes:
    """Return the digest of a file. Another process reads it, because a close here would drop SQLite's locks."""
    done = subprocess.run(["sha256sum", str(path)], capture_output=True, check=True)
    return done.stdout.split()[0]


def stored_bytes(replica: Path, pattern: str) -> tuple[int, int]:
    """Return bytes and number of the objects whose name fits."""
    sizes = [file.stat().st_size for file in replica.rglob(pattern)]
    return sum(sizes), len(sizes)


def restored(replica: Path, folder: Path, target: Target) -> bytes:
    """Return the digest of the replica at a target."""
    path = folder / "restored.db"
    path.unlink(missing_ok=True)
    source = Replica(DirectoryStorage(replica.parent), replica.name)
    restore(source, find_plan(source, target), path)
    return hashlib.sha256(path.read_bytes()).hexdigest().encode()


def by_hand(replica: Path, folder: Path) -> bytes:
    """Return the digest of the head, restored with zstd and sqlite3 alone. Each epoch's WAL is applied in turn."""
    (generation,) = (each for each in replica.iterdir() if each.is_dir())
    (base,) = (generation / "base").glob("*.db.zst")
    path = folder / "by-hand.db"
    for name in (path, Path(f"{path}-wal")):
        name.unlink(missing_ok=True)
    with path.open("wb") as output:
        subprocess.run(["zstd", "-dcq", str(base)], stdout=output, check=True)
    whole = {file.name[:8]: [file] for file in (generation / "whole").glob("*.wal.zst")}
    parts = {epoch.name: sorted(epoch.glob("*.wal.zst")) for epoch in (generation / "wal").iterdir()}
    for _, files in sorted({**parts, **whole}.items()):
        with Path(f"{path}-wal").open("wb") as output:
            subprocess.run(["zstd", "-dcq", *map(str, files)], stdout=output, check=True)
        subprocess.run(["sqlite3", str(path), "PRAGMA user_version"], stdout=subprocess.DEVNULL, check=True)
        if Path(f"{path}-wal").exists():
            raise RuntimeError("sqlite3 has not applied the WAL")
    return hashlib.sha256(path.read_bytes()).hexdigest().encode()


def synced(process: Daemon, folder: Path) -> Position:
    """Wait until all that is committed now is stored. Return the position."""
    command = [sys.executable, "-m", "walsyncd", "sync", "--config", str(folder / "walsyncd.toml"), "--timeout", "10m"]
    subprocess.run(command, env=clean_environment(), cwd=ROOT, capture_output=True, check=True)
    (row,) = process.databases()
    assert row.follow is not None
    return parse_follow_state(row.follow).stream.position


def measure(folder: Path, mode: str, *, mebibytes: int, commits: int, rate: float) -> Cost:
    """Make one run in one journal mode."""
    path, replica = folder / "data" / "app.db", folder / "replica"
    path.parent.mkdir()
    rows = fill(path, mebibytes)
    moments: dict[Position, bytes] = {}
    with daemon(folder, folder_section(replica), [path]) as process:
        process.wait_for_bases()
        (store,) = (each for each in replica.rglob("owner.json"))
        database = store.parent
        with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as connection:
            connection.execute(f"PRAGMA journal_mode = {mode}").fetchall()
            connection.execute("UPDATE t SET v = v WHERE k = 1")
            synced(process, folder)
            before, used = stored_bytes(database, "*.wal.zst"), Usage.of(process.process.pid)
            begun_s = time.monotonic()
            for number in range(commits):
                time.sleep(max(0.0, begun_s + number / rate - time.monotonic()))
                connection.execute("UPDATE t SET v = randomblob(?) WHERE k = ?", (ROW_BYTES, 1 + number * 7919 % rows))
            synced(process, folder)
            after, left = stored_bytes(database, "*.wal.zst"), Usage.of(process.process.pid)
            for number in range(KEPT_MOMENTS):
                connection.execute("UPDATE t SET v = randomblob(?) WHERE k = ?", (ROW_BYTES, 2 + number))
                moments[synced(process, folder)] = digest(path)
        head, base_bytes = digest(path), stored_bytes(database, "*.db.zst")[0]
    for moment, content in moments.items():
        if restored(database, folder, AtPosition(moment)) != content:
            raise RuntimeError(f"{mode}: the state at {moment} is not what the file was")
    if restored(database, folder, Head()) != head:
        raise RuntimeError(f"{mode}: the head is not the file")
    if by_hand(database, folder) != head:
        raise RuntimeError(f"{mode}: the head by hand is not the file")
    stored, cpu_s = (after[0] - before[0]) / commits, (left.cpu_s - used.cpu_s) / commits
    return Cost(stored, cpu_s, base_bytes, after[1] - before[1], len(moments) + 2)


def main() -> None:
    """Print both journal modes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mebibytes", type=int, default=1024)
    parser.add_argument("--commits", type=int, default=60)
    parser.add_argument("--rate", type=float, default=1.0, help="commits a second")
    parser.add_argument("--folder", type=Path, help="where to work; its disk is measured, too")
    options = parser.parse_args()
    with machine_load() as load:
        for mode in ("DELETE", "PERSIST"):
            with workplace(options.folder) as folder:
                cost = measure(folder, mode, mebibytes=options.mebibytes, commits=options.commits, rate=options.rate)
            print(f"{mode:8} {options.commits} commits, {options.rate:g} a second, {options.mebibytes} MiB")
            print(f"   stored a commit / aim   {cost.stored / BYTES_AIM:8.3f}   ({cost.stored / 1024:.1f} KiB)")
            print(f"   stored a commit / base  {cost.stored / cost.base_bytes:8.6f}")
            print(f"   CPU a commit / aim      {cost.cpu_s / CPU_AIM_S:8.3f}   ({1000 * cost.cpu_s:.2f} ms)")
            print(f"   objects {cost.objects}, states compared exactly {cost.compared}, one of them by hand")
        print(load())


if __name__ == "__main__":
    main()
