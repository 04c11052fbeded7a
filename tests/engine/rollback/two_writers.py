"""Two writers in other processes, in all rollback modes, that are killed at times.

Each commit keeps one number in all rows, which lie on many pages. Where they differ, a state is a mixture of commits.
"""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tests.adapters.files.sqlite_process import SqliteProcess
from walsyncd.core.stored.layout import BaseKey, ManifestKey, SegmentKey, parse_key
from walsyncd.core.stored.segment import decode_body
from walsyncd.core.stored.zstd import zstd

ROWS = 40

_WRITER = """
import random, sqlite3, sys
path, seed, modes = sys.argv[1], int(sys.argv[2]), sys.argv[3].split(",")
draw = random.Random(seed)
app = sqlite3.connect(path, isolation_level=None, timeout=60)
while True:
    try:
        kind = draw.random()
        if kind < 0.05:
            app.execute("PRAGMA journal_mode=" + draw.choice(modes)).fetchall()
        elif kind < 0.08:
            app.execute("VACUUM")
        elif kind < 0.11:
            app.execute("PRAGMA locking_mode=" + draw.choice(["EXCLUSIVE", "NORMAL", "NORMAL"])).fetchall()
            app.execute("SELECT count(*) FROM t").fetchall()
        else:
            app.execute("PRAGMA cache_size=" + draw.choice(["3", "2000"]))
            app.execute("BEGIN " + draw.choice(["", "IMMEDIATE", "EXCLUSIVE"]))
            number = app.execute("SELECT max(n) FROM t").fetchone()[0] + 1
            size = draw.choice([10, 900, 3000])
            app.execute("UPDATE t SET n = ?, y = randomblob(?)", (number, size))
            if draw.random() < 0.3:
                app.execute("INSERT INTO junk SELECT randomblob(20000)")
                app.execute("DELETE FROM junk WHERE rowid < (SELECT max(rowid) - 5 FROM junk)")
            app.execute(draw.choice(["COMMIT", "COMMIT", "COMMIT", "ROLLBACK"]))
        if draw.random() < 0.1:
            import time; time.sleep(draw.random() * 0.1)
    except sqlite3.OperationalError:
        if app.in_transaction:
            app.execute("ROLLBACK")
"""


@dataclass
class TwoWriters:
    """Writers of ``path``. ``modes`` are the journal modes that they choose from."""

    path: Path
    modes: tuple[str, ...]
    seed: int
    kills: int = 0
    _running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def create(self, page_size: int) -> None:
        """Make the database."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as app:
            app.execute(f"PRAGMA page_size={page_size}")
            app.execute("CREATE TABLE t (x INTEGER PRIMARY KEY, n, y)")
            app.execute("CREATE TABLE junk (y)")
            app.executemany("INSERT INTO t VALUES (?, 0, randomblob(900))", [(row,) for row in range(ROWS)])

    def write_for(self, seconds: float) -> None:
        """Write, and kill a writer now and then, until the time is over. The last ones are killed, too."""
        draw = random.Random(self.seed)
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            while len(self._running) < 2:
                self._running.append(self._start(draw.randrange(1 << 30)))
            time.sleep(draw.uniform(0.2, 0.8))
            self._kill(self._running.pop(draw.randrange(2)))
        while self._running:
            self._kill(self._running.pop())
        with SqliteProcess(self.path) as app:
            app.execute("PRAGMA busy_timeout = 60000", "SELECT count(*) FROM t")
            app.close()

    def _start(self, seed: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", _WRITER, str(self.path), str(seed), ",".join(self.modes)])

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        self.kills += 1


def states_of(replica: Path) -> Iterator[tuple[str, bytes]]:
    """Yield each state of the newest generation that a restore could give from its first base on, with its position."""
    generation = max(folder.name for folder in replica.iterdir() if folder.is_dir())
    keys = [parse_key(str(path.relative_to(replica))) for path in (replica / generation).rglob("*.zst")]
    manifest = min((key for key in keys if isinstance(key, ManifestKey)), key=lambda key: (key.epoch, key.frame))
    base = manifest.base
    assert isinstance(base, BaseKey)
    content = bytearray(_unpacked(next((replica / generation / "base").glob(f"*{base.random}.db.zst"))))
    segments = sorted((key for key in keys if isinstance(key, SegmentKey)), key=lambda key: (key.epoch, key.first))
    if (manifest.epoch, manifest.frame) == (base.epoch, base.frame):
        yield "base", bytes(content)
    for segment in segments:
        if (segment.epoch, segment.last) <= (base.epoch, base.frame):
            continue
        path = next(
            (replica / generation / "wal" / f"{segment.epoch:08x}").glob(f"{segment.first:08x}-{segment.last:08x}.*")
        )
        wal = b"".join(part for part in decode_body([path.read_bytes()]) if isinstance(part, bytes))
        yield from _applied(content, wal[32:] if segment.first == 1 else wal, segment)


def _applied(content: bytearray, frames: bytes, segment: SegmentKey) -> Iterator[tuple[str, bytes]]:
    page_size = (len(frames) // (segment.last - segment.first + 1)) - 24
    for number in range(segment.last - segment.first + 1):
        at = number * (page_size + 24)
        page, size = (int.from_bytes(frames[at + k : at + k + 4], "big") for k in (0, 4))
        content.extend(bytes(max(0, page * page_size - len(content))))
        content[(page - 1) * page_size : page * page_size] = frames[at + 24 : at + 24 + page_size]
        if size:
            del content[size * page_size :]
            yield f"{segment.epoch:x}/{segment.first + number:x}", bytes(content)


def _unpacked(path: Path) -> bytes:
    with zstd.open(path, "rb") as file:
        content = file.read()
    assert isinstance(content, bytes)
    return content


def mixture_in(content: bytes, scratch: Path) -> str:
    """Return why a state was never committed, or an empty text."""
    scratch.write_bytes(content)
    try:
        with closing(sqlite3.connect(f"file:{scratch}?immutable=1", uri=True)) as app:
            numbers = {n for (n,) in app.execute("SELECT n FROM t")}
            sound = app.execute("PRAGMA integrity_check").fetchone()[0]
            count = app.execute("SELECT count(*) FROM t").fetchone()[0]
    except sqlite3.DatabaseError as error:
        return str(error)
    if len(numbers) != 1:
        return f"rows of {len(numbers)} commits"
    return "" if sound == "ok" and count == ROWS else f"{count} rows, {sound}"
