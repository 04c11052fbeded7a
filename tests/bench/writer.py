"""An application: commits one row at a time to a WAL database, in a process of its own.

With ``--rate`` it commits so many times a second, on a grid, and otherwise in a tight loop. The first line that it
prints is ``ready``. It begins when it reads a line, and ends with one JSON object on stdout.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

SCHEMA = """
CREATE TABLE IF NOT EXISTS entry (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, city TEXT NOT NULL, amount REAL, seen INTEGER, note TEXT
);
CREATE INDEX IF NOT EXISTS entry_name ON entry (name);
"""
TIMES_MAX = 50_000
_Rows: TypeAlias = Sequence[tuple[object, ...]]
INSERT = "INSERT INTO entry (name, city, amount, seen, note) VALUES (?, ?, ?, ?, ?)"
_WORDS = (
    "the",
    "order",
    "was",
    "shipped",
    "from",
    "storage",
    "to",
    "customer",
    "after",
    "payment",
    "of",
    "invoice",
    "late",
)
_CITIES = ("Zürich", "Oslo", "Porto", "Kraków", "Graz", "Lyon", "Bergen", "Utrecht")


def row(source: random.Random, size: int = 0) -> tuple[str, str, float, int, str]:
    """Return a row as applications have them: names, numbers, a few words.

    With ``size`` it has so many bytes of words instead.
    """
    note = " ".join(source.choices(_WORDS, k=size or source.randrange(4, 24)))[: size or None]
    name = f"{source.choice(_WORDS)}.{source.randrange(1_000_000)}"
    return name, source.choice(_CITIES), round(source.random() * 1000, 2), source.getrandbits(40), note


def connect(path: Path, synchronous: str = "NORMAL") -> sqlite3.Connection:
    """Return a connection to a WAL database with one table."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=60)  # Litestream locks it for seconds
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.executescript(SCHEMA)
    return connection


@dataclass(frozen=True, slots=True)
class Written:
    """What a writer did: its commits, the seconds from first to last, and the seconds spent in commits.

    ``returned_s`` is when each commit of a paced writer returned, by the monotonic clock. It is empty above
    ``TIMES_MAX``.
    """

    commits: int
    elapsed_s: float
    committing_s: float
    returned_s: list[float]

    @property
    def rate(self) -> float:
        """Commits a second."""
        return self.commits / self.elapsed_s


@dataclass(frozen=True, slots=True)
class Writer:
    """A writer process that has opened the database."""

    process: subprocess.Popen[str]

    def write(self) -> Written:
        """Let it write, and wait for the end. It stays connected."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return Written(**json.loads(self.process.stdout.readline()))


@contextmanager
def writer(
    path: Path,
    *,
    rate: float = 0.0,
    seconds: float = 0.0,
    commits: int = 0,
    synchronous: str = "NORMAL",
    row_bytes: int = 0,
) -> Iterator[Writer]:
    """Run a writer that writes for so long, or so many commits, at every ``write()``."""
    arguments = [sys.executable, __file__, str(path), f"--rate={rate}", f"--seconds={seconds}"]
    arguments += [f"--commits={commits}", f"--synchronous={synchronous}", f"--row-bytes={row_bytes}"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"the writer of {path} did not start")
        yield Writer(process)
        assert process.stdin is not None
        process.stdin.close()


def _paced(connection: sqlite3.Connection, source: random.Random, rows: _Rows, rate: float, seconds: float) -> Written:
    returned: list[float] = []
    keeps_times = rate * seconds <= TIMES_MAX
    number = 0
    committing = 0.0
    began = time.monotonic()
    for number in range(1, int(rate * seconds) + 1):
        # The writer leaves the grid a little, because a daemon must not profit from ticking in step with it.
        pause = began + (number + source.uniform(-0.1, 0.1)) / rate - time.monotonic()
        if pause > 0:
            time.sleep(pause)
        asked = time.monotonic()
        connection.execute(INSERT, rows[number % len(rows)])
        now = time.monotonic()
        if keeps_times:
            returned.append(now)
        committing += now - asked
    return Written(number, time.monotonic() - began, committing, returned)


def _tight(connection: sqlite3.Connection, rows: _Rows, seconds: float, commits: int) -> Written:
    began = time.monotonic()
    end = began + seconds
    number = 0
    while number < commits if commits else time.monotonic() < end:
        connection.execute(INSERT, rows[number % len(rows)])
        number += 1
    elapsed = time.monotonic() - began
    return Written(number, elapsed, elapsed, [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--commits", type=int, default=0)
    parser.add_argument("--synchronous", default="NORMAL")
    parser.add_argument("--row-bytes", type=int, default=0)
    asked = parser.parse_args()
    connection = connect(asked.path, asked.synchronous)
    source = random.Random(7)
    rows = [row(source, asked.row_bytes) for _ in range(1000)]
    print("ready", flush=True)
    for _ in sys.stdin:
        if asked.rate:
            written = _paced(connection, source, rows, asked.rate, asked.seconds)
        else:
            written = _tight(connection, rows, asked.seconds, asked.commits)
        print(json.dumps(asdict(written)), flush=True)
    connection.close()


if __name__ == "__main__":
    main()
