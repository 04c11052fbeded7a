"""Random applications as processes, which treat a database as applications normally do.

It is a part of test_state_machine.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.adapters.files.sqlite_process import SqliteError, SqliteProcess
from tests.engine.keeping import Keeping
from tests.engine.oracle import History, committed
from walsyncd.core.limits import Limits

APPLICATIONS_MAX = 3
TOTALS: Counter[str] = Counter()
"""What all runs saw together."""

choices = st.integers(0, APPLICATIONS_MAX - 1)
sizes = st.sampled_from([10, 600, 4000])


class Application:
    """One process with one connection."""

    def __init__(self, path: Path, module: str, *settings: str) -> None:
        self.module = module
        self.process = SqliteProcess(path, module=module)
        self.reads = self.writes = False
        self.process.execute("PRAGMA busy_timeout=0", *settings)

    def tries(self, *statements: str) -> bool:
        """Return whether all statements succeeded.

        One that is refused, for example because another process is busy, does nothing.
        """
        try:
            self.process.execute(*statements)
        except SqliteError:
            return False
        return True

    def end_transaction(self, how: str) -> None:
        """Commit or roll back what is open. If a commit is refused, it is rolled back."""
        if not self.tries(how):
            self.tries("ROLLBACK")
        self.reads = self.writes = False


class Gentle(RuleBasedStateMachine):
    """Applications that commit, roll back, checkpoint, read for long, vacuum, open and close, with a look after each
    step.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.path = Path(self.folder.name, "app.db")
        self.history = History()
        self.applications: list[Application] = []
        self.values = 0
        self.began = False

    @initialize(
        page_size=st.sampled_from([512, 4096, 65536]),
        auto_vacuum=st.sampled_from([0, 1, 2]),
        batch=st.sampled_from([4120, 4 << 20]),
        epoch=st.sampled_from([20 * 4120, 64 << 20]),
    )
    def begin(self, page_size: int, auto_vacuum: int, batch: int, epoch: int) -> None:
        first = Application(self.path, "sqlite3", f"PRAGMA page_size={page_size}", f"PRAGMA auto_vacuum={auto_vacuum}")
        first.process.execute(
            "PRAGMA journal_mode=WAL",
            "CREATE TABLE t (i INTEGER PRIMARY KEY, x)",
            "CREATE TABLE w (k TEXT PRIMARY KEY, x) WITHOUT ROWID",
            "INSERT INTO t VALUES (0, '')",
            "PRAGMA wal_checkpoint",
        )
        self.applications.append(first)
        self.note()
        limits = Limits(batch_bytes=batch, epoch_bytes=epoch)
        self.keeping = Keeping(self.path, Path(self.folder.name, "daemon"), self.history, limits)
        self.keeping.keep_up()
        self.began = True

    def teardown(self) -> None:
        try:
            if self.began and self.keeping.alive:
                self.keeping.__exit__()
            if self.began:
                TOTALS.update(self.keeping.gaps)
                TOTALS["= commits"] += len(self.history.commits)
                stored = self.keeping.stored
                TOTALS["= positions"] += self.keeping.positions + (stored.positions if stored is not None else 0)
                TOTALS["= bases"] += self.keeping.bases
                TOTALS["= runs"] += 1
        finally:
            for application in self.applications:
                application.process.kill()
            self.folder.cleanup()

    # -- after each step --------------------------------------------------------------------------------------------

    def note(self) -> None:
        """Note that the database may be in another state now."""
        self.history.note(committed(self.path))

    def after(self) -> None:
        """Look, which must find everything and no gap."""
        self.note()
        gap = self.keeping.keep_up()
        assert not gap, gap

    def application(self, choice: int) -> Application:
        return self.applications[choice % len(self.applications)]

    def free(self, choice: int) -> Application:
        """Return an application that has no transaction open. If necessary it commits one now."""
        application = self.application(choice)
        if application.writes or application.reads:
            application.end_transaction("COMMIT")
            self.after()
        return application

    # -- rules ------------------------------------------------------------------------------------------------------

    def _changes(self, size: int, rows: int) -> list[str]:
        self.values += 1
        numbers = f"WITH RECURSIVE v(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM v WHERE n < {rows}) SELECT n FROM v"
        return [
            f"INSERT INTO t SELECT {self.values * 1000} + n, randomblob({size}) FROM ({numbers})",
            f"INSERT INTO w VALUES ('{self.values}', randomblob({size // 10}))",
            f"UPDATE t SET x = randomblob({size}) WHERE i % 7 = {self.values % 7}",
        ]

    @precondition(lambda self: self.applications)
    @rule(choice=choices, size=sizes, rows=st.integers(1, 4), times=st.integers(1, 5))
    def commit(self, choice: int, size: int, rows: int, times: int = 1) -> None:
        application = self.free(choice)
        for _ in range(times):
            if not application.tries("BEGIN IMMEDIATE", *self._changes(size, rows), "COMMIT"):
                application.tries("ROLLBACK")
            self.after()

    @precondition(lambda self: self.applications)
    @rule(choice=choices)
    def shrink(self, choice: int) -> None:
        application = self.free(choice)
        application.tries("DELETE FROM t WHERE i % 2")
        self.after()
        application.tries("PRAGMA incremental_vacuum(5)")
        self.after()

    @precondition(lambda self: self.applications)
    @rule(choice=choices, size=sizes, spill=st.booleans())
    def open_transaction(self, choice: int, size: int, spill: bool) -> None:
        """Open a transaction that stays open. If it spills, its frames are in the WAL."""
        application = self.free(choice)
        if application.tries(f"PRAGMA cache_size={3 if spill else 2000}", "BEGIN IMMEDIATE"):
            application.writes = True
            application.tries(*self._changes(size, 30 if spill else 2))
            if application.module == "apsw" or not spill:  # an older SQLite then commits frames without checksums
                application.tries("SAVEPOINT s", *self._changes(size, 20), "ROLLBACK TO s", *self._changes(10, 1))
        self.after()

    @precondition(lambda self: any(application.writes or application.reads for application in self.applications))
    @rule(choice=choices, how=st.sampled_from(["COMMIT", "ROLLBACK"]))
    def end_transaction(self, choice: int, how: str) -> None:
        busy = [application for application in self.applications if application.writes or application.reads]
        busy[choice % len(busy)].end_transaction(how)
        self.after()

    @precondition(lambda self: self.applications)
    @rule(choice=choices)
    def read_for_long(self, choice: int) -> None:
        application = self.free(choice)
        application.reads = application.tries("BEGIN", "SELECT count(*) FROM t")

    @precondition(lambda self: self.applications)
    @rule(choice=choices, mode=st.sampled_from(["PASSIVE", "FULL", "RESTART", "TRUNCATE"]))
    def checkpoint(self, choice: int, mode: str) -> None:
        self.application(choice).tries(f"PRAGMA wal_checkpoint({mode})")
        self.after()

    @precondition(lambda self: self.applications)
    @rule(choice=choices, pages=st.sampled_from([0, 1, 10]), limit=st.sampled_from([-1, 20000]))
    def checkpoint_automatically(self, choice: int, pages: int, limit: int) -> None:
        self.application(choice).tries(f"PRAGMA wal_autocheckpoint={pages}", f"PRAGMA journal_size_limit={limit}")

    @precondition(lambda self: self.applications)
    @rule(choice=choices)
    def vacuum(self, choice: int) -> None:
        self.free(choice).tries("VACUUM")
        self.after()

    @precondition(lambda self: len(self.applications) < APPLICATIONS_MAX)
    @rule(module=st.sampled_from(["sqlite3", "apsw"]))
    def open(self, module: str) -> None:
        application = Application(self.path, module)
        if application.tries("SELECT count(*) FROM t"):
            self.applications.append(application)
        else:
            application.process.kill()
        self.after()

    @precondition(lambda self: self.applications)
    @rule(choice=choices)
    def close(self, choice: int) -> None:
        self.applications.pop(choice % len(self.applications)).process.close()
        self.after()

    @rule()
    def wait(self) -> None:
        """Wait long enough for whatever needs time to appear."""
        self.keeping.ahead_ms += 5_000
        self.after()

    @rule(now=st.booleans())
    def take_base(self, now: bool) -> None:
        """Take a base at once, or begin one that ends later, with anything in between."""
        if self.keeping.stored is None or not self.keeping.alive:
            return
        if self.keeping._copying is not None or now:
            self.keeping.take_base()
        else:
            self.keeping.keep_up()
            self.keeping.begin_base()
