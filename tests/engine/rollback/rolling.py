"""A scan of a database that real transactions change between any two of its steps. The scan must find a committed
state.

By hand, for many seeds: ``python -m tests.engine.rollback.rolling --seeds 0 500``
"""

from __future__ import annotations

import argparse
import contextlib
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from tests.adapters.files.sqlite_process import SqliteError, SqliteProcess
from tests.engine.following import Following
from walsyncd.adapters.files.inotify import Event
from walsyncd.adapters.journal.page_map_file import PageMapWriter
from walsyncd.core.stored.segment import decode_body
from walsyncd.engine.content.base_entries import BaseEntries
from walsyncd.engine.content.bridge_body import BridgeBody
from walsyncd.engine.rollback import page_scan
from walsyncd.engine.rollback.committed_moment import Hindrance
from walsyncd.engine.rollback.journal_capture import JournalCapture
from walsyncd.engine.rollback.journal_pages import JournalProofs, JournalSource
from walsyncd.engine.rollback.page_scan import PageScan, ScanOrder, ScanResult
from walsyncd.engine.rollback.rolling_moments import RollingMoments

PAGE = 1024
CHANGES = (
    "UPDATE t SET v = randomblob(length(v)) WHERE k % 97 = 3",
    "UPDATE t SET v = randomblob(700) WHERE k IN (SELECT k FROM t ORDER BY random() LIMIT 5)",
    "DELETE FROM t WHERE k IN (SELECT k FROM t ORDER BY random() LIMIT 20)",
    "INSERT INTO t (v) SELECT randomblob(700) FROM t LIMIT 30",
    "INSERT INTO t (v) VALUES (randomblob(20000))",
    "DELETE FROM t WHERE length(v) > 1000",
    "UPDATE t SET v = zeroblob(300) WHERE k % 5 = 1",
)


@dataclass
class Outcome:
    """What some scans found. ``rolled`` counts those that had a result though transactions ended during them."""

    scans: int = 0
    accepted: int = 0
    rolled: int = 0
    moments: int = 0
    hindered: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        for name in ("scans", "accepted", "rolled", "moments"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.hindered += other.hindered
        self.wrong += other.wrong


class Scans:
    """Gives the events to the proofs, as the scans of a followed database do."""

    def __init__(self, proofs: JournalProofs) -> None:
        self.proofs = proofs

    def note(self, event: Event) -> None:
        self.proofs.note(event)

    def lose_events(self) -> None:
        self.proofs.lose()

    def drop(self) -> None:
        pass


class Writers:
    """Two connections in processes of their own, of which at most one is in a transaction."""

    def __init__(self, path: Path, rng: random.Random, modes: tuple[str, ...], missed: float) -> None:
        self.path, self.rng, self.modes, self.missed = path, rng, modes, missed
        self.applications = [SqliteProcess(path), SqliteProcess(path)]
        self.inside: SqliteProcess | None = None
        self.ended = 0
        self.spills = False
        self.mode = modes[0]
        self.story: list[str] = []

    def setup(self) -> None:
        rng = self.rng
        self._do(
            self.applications[0],
            f"PRAGMA page_size = {PAGE}",
            f"PRAGMA auto_vacuum = {rng.choice([0, 0, 1, 2])}",
            "CREATE TABLE t (k INTEGER PRIMARY KEY, v)",
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400) "
            "INSERT INTO t (v) SELECT randomblob(700) FROM n",
            "DELETE FROM t WHERE k % 9 = 2",
        )
        self._switch(self.modes[0])

    def _switch(self, mode: str) -> None:
        self.mode = mode
        for app in self.applications:
            self._do(app, f"PRAGMA journal_mode = {mode}", "SELECT count(*) FROM t")

    def act(self, drain: Any) -> None:
        """Do one thing. ``drain`` takes in the events, except where they come too late."""
        rng = self.rng
        if self.inside is None:
            app = rng.choice(self.applications)
            if rng.random() < 0.03 and len(self.modes) > 1:
                self._switch(rng.choice(self.modes))
            self.spills = rng.random() < (0.02 if self.mode == "delete" else 0.004)
            synchronous = rng.choice(["normal", "full"]) if rng.random() < 0.1 else "off"
            self._do(app, f"PRAGMA cache_size = {3 if self.spills else 2000}", f"PRAGMA synchronous = {synchronous}")
            if self._do(app, rng.choice(["BEGIN", "BEGIN IMMEDIATE"]), rng.choice(CHANGES)):
                self.inside = app
        elif rng.random() < 0.5:
            self._do(self.inside, *rng.sample(CHANGES, 2))
        elif rng.random() < 0.03:
            self.story.append("killed")
            self.applications.remove(self.inside)
            self.inside.kill()
            self.applications.append(SqliteProcess(self.path))
            self._switch(self.mode)
            self.inside = None
            drain()
        else:
            if rng.random() < 0.2:
                self._do(self.inside, "SAVEPOINT s", rng.choice(CHANGES), rng.choice(["ROLLBACK TO s", "RELEASE s"]))
            if rng.random() >= self.missed:
                drain()
            is_rolled_back = rng.random() < (0.05 if self.spills else 0.3)  # after a spill the journal leaves doubt
            self._do(self.inside, "ROLLBACK" if is_rolled_back else "COMMIT")
            self.inside = None
            self.ended += 1
        if rng.random() >= self.missed:
            drain()

    def _do(self, app: SqliteProcess, *sql: str) -> bool:
        self.story += [f"{self.applications.index(app)}: {each}" for each in sql]
        try:
            app.execute(*sql)
        except SqliteError as error:
            self.story.append(str(error))
            with contextlib.suppress(SqliteError):
                app.execute("ROLLBACK")
            if self.inside is app:
                self.inside = None
            return False
        return True

    def close(self) -> None:
        for app in self.applications:
            app.kill()


class Rolled:
    """A database whose content at the beginning is known, and scans of it."""

    def __init__(self, folder: Path, seed: int, modes: tuple[str, ...], missed: float) -> None:
        self.rng = random.Random(seed)
        self.path = folder / "app.db"
        self.writers = Writers(self.path, self.rng, modes, missed)
        self.writers.setup()
        self.follow = Following(self.path, folder / "f").begin()
        self.known = BaseEntries(PageMapWriter(folder / "f" / "maps" / "1.map", PAGE), PAGE)
        self.base = self.path.read_bytes()
        self.known.took(0, self.base)
        tracked = self.follow.tracked
        environment = self.follow.environment
        count_writes = partial(environment.count_journal_writes, self.path)
        source = JournalSource(JournalCapture(self.path), tracked.open, environment.drain, count_writes)
        self.proofs = JournalProofs(source, file_bytes_min=0)
        tracked.scans = Scans(self.proofs)  # type: ignore[assignment]
        self.outcome = Outcome()

    def close(self) -> None:
        self.writers.close()
        self.proofs.forget()
        self.follow.__exit__(None, None, None)

    def scan(self, busy: float) -> None:
        """Scan once. ``busy`` is how often something is done between two steps of the scan."""
        rng, writers, drain = self.rng, self.writers, self.follow.environment.drain
        writers.story.clear()
        answer, took = Future[ScanResult](), []

        def body(_size: int) -> BridgeBody:
            environment = self.follow.environment
            return BridgeBody(environment.journal, self.known, self.follow.state.stream, (1, 2), body_bytes_max=1 << 26)

        def take(moments: RollingMoments) -> object:
            took.append(moments)
            return original(moments)

        pages = self.proofs.pages(self.path.stat().st_size, PAGE, is_all=rng.random() < 0.3)
        assert pages is not None
        order = ScanOrder(self.follow.tracked, self.follow.state.stream, PAGE, pages, body, lambda: True, lambda: None)
        steps: Iterator[object] = PageScan(self.follow.environment, order, answer, lambda: None).steps()
        original, ended = RollingMoments.take, writers.ended
        with mock.patch.object(RollingMoments, "take", take):
            for number, _ in enumerate(steps):
                is_busy = rng.random() < busy if number < 400 else writers.inside is not None
                if is_busy:
                    writers.act(drain)
        self._judge(answer.result(0), len(took), writers.ended > ended)

    def _judge(self, found: ScanResult, moments: int, is_rolled: bool) -> None:
        outcome = self.outcome
        outcome.scans += 1
        outcome.moments += moments
        if found.hindrance is not None:
            outcome.hindered[found.hindrance.name] += 1
            assert found.hindrance in Hindrance
            return
        outcome.accepted += 1
        outcome.rolled += is_rolled
        raw = self.path.read_bytes()
        now = raw[: int.from_bytes(raw[28:32]) * PAGE]
        then = self._applied(found)
        if now != then:
            other = [
                n
                for n in range(1, len(now) // PAGE + 1)
                if now[(n - 1) * PAGE : n * PAGE] != then[(n - 1) * PAGE : n * PAGE]
            ]
            story = "\n   ".join(self.writers.story)
            outcome.wrong.append(
                f"pages {other}, {len(now)} and {len(then)} bytes after {moments} moments:\n   {story}"
            )
        self.proofs.accepted()
        self.base = now
        self.known = BaseEntries(PageMapWriter(self.path.parent / "f" / "maps" / f"{outcome.scans}.map", PAGE), PAGE)
        self.known.took(0, now)

    def _applied(self, found: ScanResult) -> bytes:
        """Return the known content with the transaction that was found, as SQLite would apply it."""
        if found.new is None:
            return self.base
        assert isinstance(found.new.body, bytes)
        wal = b"".join(part for part in decode_body([found.new.body]) if isinstance(part, bytes))[32:]
        content, frame = bytearray(self.base), PAGE + 24
        for at in range(0, len(wal), frame):
            number, size = (int.from_bytes(wal[at + k : at + k + 4], "big") for k in (0, 4))
            content.extend(bytes(max(0, number * PAGE - len(content))))
            content[(number - 1) * PAGE : number * PAGE] = wal[at + 24 : at + frame]
            if size:
                del content[size * PAGE :]
        return bytes(content)


def run(seed: int, *, scans: int = 8, modes: tuple[str, ...] = ("delete",), missed: float = 0.02) -> Outcome:
    """Scan one database some times. ``missed`` is how often events are taken in too late."""
    rng = random.Random(seed)
    with (
        tempfile.TemporaryDirectory(prefix="rolling-") as folder,
        mock.patch.object(page_scan, "BLOCK_BYTES", rng.choice([4, 16, 40]) * PAGE),
        mock.patch.object(page_scan, "CACHED_BLOCKS", rng.choice([1, 1, 4])),
        mock.patch.object(page_scan, "LAST_BYTES_MAX", rng.choice([2, 10, 60]) * PAGE),
        mock.patch.object(page_scan, "TRY_S", 1e-4),
        mock.patch.object(page_scan, "TURN_BYTES", 1),
        mock.patch.object(page_scan, "HINDERED_S_MAX", 0.5),
    ):
        rolled = Rolled(Path(folder), seed, modes, missed)
        try:
            for _ in range(scans):
                rolled.scan(rng.choice([0.05, 0.2, 0.5, 0.9]))
        finally:
            rolled.close()
        return rolled.outcome


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs=2, default=[0, 20])
    parser.add_argument("--modes", default="delete,delete,delete,persist,truncate")
    parser.add_argument("--missed", type=float, default=0.02)
    options = parser.parse_args()
    total = Outcome()
    for seed in range(*options.seeds):
        modes = options.modes.split(",")
        random.Random(seed).shuffle(modes)
        total.add(run(seed, modes=tuple(modes), missed=options.missed))
    print(total)


if __name__ == "__main__":
    main()
