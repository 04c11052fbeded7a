"""Runs real SQLite step by step, and compares the file after each step with what the journals prove.

Two processes change one database, one after the other, in every journal mode. Some are killed. After most steps the
pages that differ are compared with the pages that ``changed_pages`` names. One that differs and is not named is a page
that a replica would lack.

By hand, for many seeds::

    python -m tests.core.rollback.lockstep --library sqlite3 --steps 120 --seeds 0 100
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from inotify_simple import INotify, flags

from tests.core.rollback.journals import reader
from walsyncd.core.rollback.changed_pages import ChangedPages, ScanReason, SeenJournal, changed_pages
from walsyncd.core.rollback.journal_trail import Doubt, FileEvent, JournalNow, JournalTrail
from walsyncd.core.sqlite.dbheader import parse_database_header
from walsyncd.core.sqlite.rollback_journal import RollbackJournal, parse_kept_journal, parse_rollback_journal

ROOT = Path(__file__).parents[3]
PAGE_SIZES = (512, 1024, 4096, 8192, 65536)
JOURNAL_MODES = ("delete", "delete", "delete", "persist", "persist", "truncate", "memory", "off", "wal")


@dataclass
class Findings:
    """The findings of a run. ``unexplained`` names the pages that the proof lacks."""

    steps: int = 0
    proven: int = 0
    proven_changes: int = 0
    pages_changed: int = 0
    pages_not_journalled: int = 0
    kills: int = 0
    hot_journals: int = 0
    cuts: int = 0
    """Kept journals that may have been cut."""
    fits: int = 0
    """Kept journals that may look cut, and were not."""
    scans: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)

    def add(self, other: Findings) -> None:
        for name in ("steps", "proven", "proven_changes", "pages_changed", "pages_not_journalled", "kills"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.hot_journals += other.hot_journals
        self.cuts += other.cuts
        self.fits += other.fits
        self.scans += other.scans
        self.errors += other.errors
        self.unexplained += other.unexplained


class Application:
    """A process with one connection to the database."""

    def __init__(self, library: str, path: Path, saved: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.core.rollback.worker", library, str(path), str(saved)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, sql: list[str], writes_left: int | None = None) -> list[str] | None:
        """Run statements. Return the errors, or None if the process was killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"sql": sql, "writes_left": writes_left}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        return json.loads(line) if line else None

    def stop(self) -> None:
        """Close the connection, and end the process."""
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()


class Statements:
    """Makes random statements."""

    def __init__(self, rng: random.Random, other: Path) -> None:
        self._rng = rng
        self._other = other
        self._tables = 0
        self._page_size = rng.choice(PAGE_SIZES)

    def setup(self) -> list[str]:
        rng = self._rng
        return [
            f"PRAGMA page_size = {self._page_size}",
            f"PRAGMA auto_vacuum = {rng.randrange(3)}",
            "CREATE TABLE t (k INTEGER PRIMARY KEY, v BLOB)",
            "CREATE INDEX i ON t (v)",
            self._insert(),
        ]

    def settings(self) -> list[str]:
        """Return the settings of a connection that is opened."""
        rng = self._rng
        limits = [-1, -1, -1, 0, 1000, 4096, *(512 + records * (self._page_size + 8) for records in (2, 3, 6))]
        return [
            f"PRAGMA secure_delete = {rng.randrange(2)}",
            f"PRAGMA cache_size = {rng.choice([3, 10, 2000])}",
            f"PRAGMA synchronous = {rng.choice(['off', 'normal', 'full', 'extra'])}",
            f"PRAGMA mmap_size = {rng.choice([0, 0, 1 << 20])}",
            f"PRAGMA journal_size_limit = {rng.choice(limits)}",
            "PRAGMA busy_timeout = 50",
            f"ATTACH '{self._other}' AS other",
            f"PRAGMA main.journal_mode = {rng.choice(JOURNAL_MODES[:5])}",
        ]

    def step(self) -> list[str]:
        rng = self._rng
        choice = rng.random()
        if choice < 0.45:
            return [self._change()]
        if choice < 0.75:
            return self._transaction()
        if choice < 0.80:
            return [f"PRAGMA main.journal_mode = {rng.choice(JOURNAL_MODES)}"]
        if choice < 0.84:
            return [f"PRAGMA cache_size = {rng.choice([3, 10, 2000])}", "SELECT count(*) FROM t"]
        if choice < 0.87:
            return [f"PRAGMA main.locking_mode = {rng.choice(['exclusive', 'normal', 'normal'])}", self._change()]
        if choice < 0.90:
            return ["VACUUM"]
        if choice < 0.93:
            return [f"PRAGMA incremental_vacuum({rng.randint(1, 9)})"]
        if choice < 0.96:
            return [f"PRAGMA synchronous = {rng.choice(['off', 'normal', 'full', 'extra'])}", self._change()]
        return self._table()

    def _transaction(self) -> list[str]:
        rng = self._rng
        begin = rng.choice(["BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
        inner = [self._change() for _ in range(rng.randint(0, 4))]
        if rng.random() < 0.4:
            saved = [self._change() for _ in range(rng.randint(1, 3))]
            inner += ["SAVEPOINT s", *saved, rng.choice(["ROLLBACK TO s", "RELEASE s"])]
        if rng.random() < 0.2:
            inner.append(f"PRAGMA incremental_vacuum({rng.randint(1, 9)})")
        inner += [self._change() for _ in range(rng.randint(0, 2))]
        if rng.random() < 0.2:
            inner.append("INSERT INTO other.o VALUES (randomblob(100))")
        return [begin, *inner, rng.choice(["COMMIT", "COMMIT", "ROLLBACK"])]

    def _insert(self) -> str:
        count, size = self._rng.choice([(1, 30), (3, 700), (40, 100), (1, 20000), (4, 5000)])
        return (
            f"INSERT INTO t (v) SELECT randomblob({size}) FROM "
            f"(WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < {count}) SELECT x FROM n)"
        )

    def _change(self) -> str:
        rng = self._rng
        some = f"k % {rng.randint(1, 12)} = {rng.randrange(3)}"
        return rng.choice(
            [
                self._insert(),
                self._insert(),
                f"UPDATE t SET v = randomblob(length(v)) WHERE {some}",
                f"UPDATE t SET v = randomblob({rng.choice([10, 900, 9000])}) WHERE k IN (SELECT k FROM t LIMIT 3)",
                f"DELETE FROM t WHERE {some}",
                "DELETE FROM t WHERE k IN (SELECT k FROM t ORDER BY random() LIMIT 5)",
                "UPDATE t SET v = v WHERE k IN (SELECT k FROM t LIMIT 1)",
                f"PRAGMA user_version = {rng.randrange(1000)}",
            ]
        )

    def _table(self) -> list[str]:
        self._tables += 1
        fill = f"INSERT INTO x{self._tables} SELECT v FROM t"
        make = [f"CREATE TABLE x{self._tables} (v)", fill]
        return make if self._rng.random() < 0.5 else [f"DROP TABLE IF EXISTS x{self._tables - 1}"]


class Judge:
    """Follows one database as the daemon does, but step by step and with every journal."""

    def __init__(self, folder: Path, seed: int, library: str) -> None:
        self.findings = Findings()
        self._rng = random.Random(seed)
        self._seed = seed
        self._library = library
        self._path = folder / "app.db"
        self._saved = folder / "saved"
        self._saved.mkdir()
        self._statements = Statements(self._rng, folder / "other.db")
        self._trail = JournalTrail()
        self._before: bytes | None = None
        self._last: list[str] = []
        self._inotify = INotify(nonblocking=True)
        maker = self._open()
        maker.run([*self._statements.setup(), f"ATTACH '{folder / 'other.db'}' AS o", "CREATE TABLE o.o (v)"])
        maker.stop()
        self._inotify.add_watch(str(folder), flags.MODIFY | flags.CREATE | flags.DELETE)
        self._applications = [self._settled(), self._settled()]

    def _open(self) -> Application:
        return Application(self._library, self._path, self._saved)

    def _settled(self) -> Application:
        application = self._open()
        application.run(self._statements.settings())
        return application

    def close(self) -> None:
        for application in self._applications:
            application.stop()
        self._inotify.close()

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.findings.steps += 1
            self._step()
            if self._rng.random() < 0.75:
                self._look()

    def _step(self) -> None:
        which = self._rng.randrange(2) if self._rng.random() < 0.5 else 0
        sql = self._statements.step()
        writes_left = self._rng.choice([0, 2, 5, 12, 30]) if self._rng.random() < 0.06 else None
        errors = self._applications[which].run(sql, writes_left)
        self._last = [*self._last, *sql][-30:]
        if errors is None:
            self.findings.kills += 1
            self.findings.hot_journals += (self._journal() or b"\x00")[0] != 0
            self._applications[which].stop()
            self._applications[which] = self._settled()
            self._last.append("(killed)")
        elif errors:
            self._last.append(f"(errors: {errors})")
            self.findings.errors.update(each.split(":")[-1].strip() for each in errors)
            self._applications[which].run(["ROLLBACK"])
        if self._rng.random() < 0.03:
            self._applications[which].stop()
            self._applications[which] = self._settled()

    def _take_events(self) -> None:
        name = self._path.name
        for event in self._inotify.read(timeout=0):
            mask = event.mask
            if mask & flags.Q_OVERFLOW:
                self._trail.raise_doubt(Doubt.EVENTS_LOST)
            elif not event.name and mask & flags.MODIFY:
                self._trail.take(FileEvent.JOURNAL_COUNTED)
            elif event.name == f"{name}-journal":
                if mask & flags.CREATE:
                    self._trail.journal_created(is_held=True)
                elif mask & flags.DELETE:
                    self._trail.journal_deleted(is_held=True)
                else:
                    self._trail.journal_written()
            elif event.name == name:
                self._trail.database_written()
            elif event.name in {f"{name}-wal", f"{name}-shm"}:
                self._trail.raise_doubt(Doubt.WAL)

    def _journal(self) -> bytes | None:
        file = self._path.with_name(f"{self._path.name}-journal")
        return file.read_bytes() if file.exists() else None

    def _look(self) -> None:
        journal = self._journal()
        if journal and journal[0]:
            return
        self._take_events()
        now = self._path.read_bytes()
        header = parse_database_header(now)
        if header is None or header.page_size is None or header.wal_mode:
            self._trail.raise_doubt(Doubt.WAL)
            return
        at_rest = JournalNow.ABSENT if journal is None else JournalNow.IDLE
        if self._before is not None:
            self._compare(self._before, now, header.page_size, journal)
        self._before = now
        self._trail.restart(at_rest)
        if at_rest is JournalNow.IDLE:
            self._inotify.add_watch(f"{self._path}-journal", flags.MODIFY)
        for file in self._saved.iterdir():
            file.unlink()
        self._last.clear()

    def _prove(
        self, before: bytes, now: bytes, size: int, journal: bytes | None
    ) -> tuple[ChangedPages | ScanReason, set[int]]:
        doubt = self._trail.doubt_now(JournalNow.ABSENT if journal is None else JournalNow.IDLE)
        saved = [each.read_bytes() for each in sorted(self._saved.iterdir())]
        deleted = [parse_rollback_journal(reader(raw), size) for raw in saved]
        runs = self._trail.runs_of_deleted
        if doubt is None:
            assert len(runs) == len(deleted), "a journal was deleted and not saved"
        journals = [SeenJournal(each, count) for each, count in zip(deleted, runs, strict=False)]
        if journal is not None and self._trail.is_journal_written:
            kept = parse_kept_journal(reader(journal), len(journal), size)
            is_whole, runs_of_kept = self._trail.is_whole, self._trail.database_runs
            journals.append(SeenJournal(kept, runs_of_kept, is_kept=True, is_whole=is_whole))
            self.findings.cuts += isinstance(kept, RollbackJournal) and kept.may_be_cut and not is_whole
            self.findings.fits += isinstance(kept, RollbackJournal) and kept.may_be_cut and is_whole
        journalled = {n for each in journals if isinstance(each.content, RollbackJournal) for n in each.content.records}
        if doubt is not None:
            return doubt, journalled
        counter = int.from_bytes(before[24:28])
        pages = lambda number: now[(number - 1) * size : number * size]  # noqa: E731
        return changed_pages(counter, now[:100], journals, pages, size), journalled

    def _compare(self, before: bytes, now: bytes, size: int, journal: bytes | None) -> None:
        found, journalled = self._prove(before, now, size, journal)
        if not isinstance(found, ChangedPages):
            self.findings.scans[f"{type(found).__name__}.{found.name}"] += 1
            return
        numbers = range(1, found.page_count + 1)
        changed = {n for n in numbers if before[(n - 1) * size : n * size] != now[(n - 1) * size : n * size]}
        self.findings.proven += 1
        self.findings.proven_changes += bool(changed)
        self.findings.pages_changed += len(changed)
        self.findings.pages_not_journalled += len(changed - journalled)
        lacking = changed - set(found.numbers.tolist())
        if lacking:
            story = "\n    ".join(self._last)
            self.findings.unexplained.append(f"seed {self._seed}: pages {sorted(lacking)} after\n    {story}")


def run(seed: int, steps: int, library: str = "apsw") -> Findings:
    """Run one seed in a temporary folder."""
    folder = Path(tempfile.mkdtemp(prefix="lockstep-"))
    judge = Judge(folder, seed, library)
    try:
        judge.run(steps)
    finally:
        judge.close()
        shutil.rmtree(folder)
    return judge.findings


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--library", choices=["apsw", "sqlite3"], default="apsw")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seeds", type=int, nargs=2, default=[0, 10])
    options = parser.parse_args()
    total = Findings()
    for seed in range(*options.seeds):
        total.add(run(seed, options.steps, options.library))
    for name in (
        "steps",
        "proven",
        "proven_changes",
        "pages_changed",
        "pages_not_journalled",
        "kills",
        "hot_journals",
        "cuts",
        "fits",
    ):
        print(f"{name:24} {getattr(total, name):,}")
    print("scans", dict(total.scans.most_common()))
    print("errors", dict(total.errors.most_common(8)))
    print(f"unexplained: {len(total.unexplained)}", *total.unexplained[:5], sep="\n")


if __name__ == "__main__":
    main()
