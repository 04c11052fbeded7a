"""Two writers in processes of their own, which are killed at times, and a copy of the database that applies what
journals name.

Each accepted moment is checked in two ways: the copy equals the file, and it is a committed state (the sum of all
accounts is constant, and SQLite finds the file whole).

By hand: ``python -m tests.engine.rollback.soak --seconds 60 --seeds 0 5``
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from walsyncd.adapters.files.inotify import InotifyReader, Kind
from walsyncd.adapters.files.rollback_files import JournalSight, WriterLocks, journal_sight, writer_locks
from walsyncd.adapters.files.source import OpenFile, Role, open_file
from walsyncd.core.sqlite.freelist import free_leaves
from walsyncd.engine.rollback.committed_moment import FileTimes, Hindrance, MomentStart, begin_moment, end_moment
from walsyncd.engine.rollback.journal_capture import JournalCapture
from walsyncd.engine.rollback.journal_pages import JournalProofs, JournalSource

ROOT = Path(__file__).parents[3]
PAGE = 1024
ACCOUNTS = 300
TOTAL = 100 * ACCOUNTS

_WRITER = """
import random, sqlite3, sys, time
path, seed, pause_s, modes = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4].split(",")
rng = random.Random(seed)
db = sqlite3.connect(path, isolation_level=None, timeout=5)
db.execute("PRAGMA cache_spill = 1")
while True:
    try:
        if rng.random() < 0.02:
            db.execute(f"PRAGMA journal_mode = {rng.choice(modes)}").fetchall()
        if rng.random() < 0.05:
            db.execute(f"PRAGMA cache_size = {rng.choice([3, 2000])}")
        if rng.random() < 0.05:
            db.execute(f"PRAGMA synchronous = {rng.choice(['off', 'normal', 'full'])}")
        if rng.random() < 0.003:
            db.execute("VACUUM")
        db.execute(rng.choice(["BEGIN", "BEGIN IMMEDIATE"]))
        for _ in range(rng.choice([1, 1, 2, 30])):
            a, b, n = rng.randrange(300), rng.randrange(300), rng.randrange(9)
            db.execute("UPDATE a SET v = v - ?, t = zeroblob(?) WHERE k = ?", (n, rng.choice([10, 300]), a))
            db.execute("UPDATE a SET v = v + ? WHERE k = ?", (n, b))
        if rng.random() < 0.2:
            db.execute("INSERT INTO l SELECT randomblob(500) FROM a LIMIT ?", (rng.randrange(60),))
        if rng.random() < 0.2:
            db.execute("DELETE FROM l WHERE rowid % 3 = ?", (rng.randrange(3),))
        db.execute("ROLLBACK" if rng.random() < 0.25 else "COMMIT")
    except sqlite3.OperationalError:
        if db.in_transaction:
            db.execute("ROLLBACK")
    time.sleep(pause_s * rng.random())
"""


@dataclass
class Verdict:
    """What a run saw. ``wrong`` names what must not happen."""

    accepted: int = 0
    by_journal: int = 0
    kills: int = 0
    hindered: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Looks:
    """Looks at the file (``FileLooks``)."""

    def __init__(self, soak: Soak, file: OpenFile) -> None:
        self._soak = soak
        self._file = file

    def events(self) -> int:
        self._soak.drain()
        return self._soak.events

    def is_watched(self) -> bool:
        return True

    def page_1(self) -> bytes:
        return self._file.pread(0, PAGE)

    def locks(self) -> WriterLocks:
        return writer_locks(self._file)

    def journal(self) -> JournalSight:
        return journal_sight(self._soak.path)

    def times(self) -> FileTimes:
        identity = self._file.identity()
        return FileTimes(identity.size, identity.mtime_ns, identity.ctime_ns, settled=False)

    def is_named(self) -> bool:
        return self._file.still_named()


class Soak:
    """A database and its copy."""

    def __init__(self, folder: Path, seed: int, pause_s: float, modes: str) -> None:
        self.path = folder / "app.db"
        self.events = 0
        self.verdict = Verdict()
        self._rng = random.Random(seed)
        self._arguments = (str(pause_s), modes)
        self._copy = folder / "copy.db"
        self._pages: dict[int, bytes] = {}
        self._seen = -1
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute(f"PRAGMA page_size = {PAGE}")
            connection.execute("CREATE TABLE a (k INTEGER PRIMARY KEY, v, t)")
            connection.execute("CREATE TABLE l (v)")
            connection.executemany("INSERT INTO a VALUES (?, 100, NULL)", [(k,) for k in range(ACCOUNTS)])
            connection.commit()
        self._watcher = InotifyReader()
        self._watcher.add(self.path)
        count_writes = partial(self._watcher.count_journal_writes, self.path)
        source = JournalSource(JournalCapture(self.path), lambda: open_file(self.path), self.drain, count_writes)
        self._proofs = JournalProofs(source, file_bytes_min=0)
        self._writers = [self._writer(), self._writer()]

    def _writer(self) -> subprocess.Popen[bytes]:
        seed = str(self._rng.randrange(2**30))
        return subprocess.Popen([sys.executable, "-c", _WRITER, str(self.path), seed, *self._arguments])

    def drain(self) -> None:
        for event in self._watcher.drain():
            if event.role is Role.WAL or (event.role is Role.DATABASE and event.kind is not Kind.CLOSE_WRITE):
                self.events += 1
            self._proofs.note(event)

    def run(self, seconds: float, accepted_min: int) -> None:
        """Follow for some time, and longer until so many moments were accepted, but not for ever."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s or (
            self.verdict.by_journal < accepted_min and time.monotonic() < end_s + 60 and not self.verdict.wrong
        ):
            self._look()
            if self._rng.random() < 0.002:
                which = self._rng.randrange(2)
                self._kill(which)
                self._writers[which] = self._writer()

    def _kill(self, which: int) -> None:
        self.verdict.kills += 1
        self._writers[which].kill()
        self._writers[which].wait()

    def close(self) -> None:
        for writer in self._writers:
            writer.kill()
            writer.wait()
        self._proofs.forget()
        self._watcher.close()

    def _look(self) -> None:
        self.drain()
        if self.events == self._seen:
            time.sleep(0.0005)
            return
        file = open_file(self.path)
        assert file is not None
        with file:
            looks = Looks(self, file)
            start = begin_moment(looks)
            if isinstance(start, Hindrance):
                self.verdict.hindered[start.name] += 1
                time.sleep(0.0005)
                return
            self._moment(looks, start, file)

    def _moment(self, looks: Looks, start: MomentStart, file: OpenFile) -> None:
        pages = self._proofs.pages(start.times.size, PAGE, is_all=False)
        assert pages is not None
        listed = pages.at_moment(looks, start)
        count = int.from_bytes(start.page_1[28:32])
        numbers = sorted({1, *listed.numbers.tolist(), *range(listed.beyond + 1, count + 1)})
        read = {number: file.pread((number - 1) * PAGE, PAGE) for number in numbers if number <= count}
        raw = file.pread(0, count * PAGE)
        hindrance = end_moment(looks, start, read[1])
        if hindrance is not None or not pages.are_complete():
            self.verdict.hindered[hindrance.name if hindrance is not None else "UNPROVEN"] += 1
            return
        self._pages = {number: page for number, page in {**self._pages, **read}.items() if number <= count}
        self._proofs.accepted()
        self._seen = start.events
        self.verdict.accepted += 1
        self.verdict.by_journal += pages.reason is None
        if pages.reason is not None:
            self.verdict.reasons[pages.reason.name] += 1
        self._check(raw, count, numbers if pages.reason is None else None)

    def _check(self, raw: bytes, count: int, numbers: list[int] | None) -> None:
        copy = b"".join(self._pages.get(number, b"") for number in range(1, count + 1))
        if copy != raw:
            other = [n + 1 for n in range(count) if self._pages.get(n + 1) != raw[n * PAGE : (n + 1) * PAGE]]
            free = free_leaves(lambda n: raw[(n - 1) * PAGE : n * PAGE], count)
            kind = "in use" if set(other) - free else "free"
            self.verdict.wrong.append(f"{kind} pages {other} differ, named were {numbers}")
        self._copy.write_bytes(copy)
        with closing(sqlite3.connect(self._copy)) as connection:
            (whole,) = connection.execute("PRAGMA integrity_check").fetchone()
            (total,) = connection.execute("SELECT sum(v) FROM a").fetchone()
        if (whole, total) != ("ok", TOTAL):
            self.verdict.wrong.append(f"not a committed state: {whole}, the sum is {total}")


def run(seed: int, seconds: float, *, pause_s: float, modes: str, accepted_min: int = 0) -> Verdict:
    """Follow two writers. ``modes`` are the journal modes between which they switch."""
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        soak = Soak(Path(folder), seed, pause_s, modes)
        try:
            soak.run(seconds, accepted_min)
        finally:
            soak.close()
        return soak.verdict


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--seeds", type=int, nargs=2, default=[0, 3])
    parser.add_argument("--modes", default="delete,persist,truncate")
    parser.add_argument("--pause", type=float, default=0.02)
    options = parser.parse_args()
    for seed in range(*options.seeds):
        print(seed, run(seed, options.seconds, pause_s=options.pause, modes=options.modes), flush=True)


if __name__ == "__main__":
    main()
