"""Following by hand: SQLite runs in another process, events and journal are real, and stored WALs are
restored again.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.own_connections import followed_here
from walsyncd.adapters.files.inotify import InotifyReader
from walsyncd.adapters.files.source import boot_id
from walsyncd.adapters.journal.journal import Advance, Journal, ObjectKind
from walsyncd.config import DatabaseSpec
from walsyncd.core.follow.decision import Cursor
from walsyncd.core.follow.follow_state import FollowState, format_follow_state, parse_follow_state
from walsyncd.core.limits import DEFAULT_LIMITS, Limits
from walsyncd.core.stored.segment import decode_body
from walsyncd.engine.follow.begin_generation import begin_step
from walsyncd.engine.follow.environment import Environment
from walsyncd.engine.follow.event_pump import EventPump
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.look import take_step
from walsyncd.engine.follow.step import Step
from walsyncd.engine.follow.wal_pairs import WalPairs

STEPS_MAX = 2000
CHECKPOINT, RESTART, TRUNCATE = (f"PRAGMA wal_checkpoint{mode}" for mode in ("", "(RESTART)", "(TRUNCATE)"))


def spec_of(path: Path, *, presence: bool = False) -> DatabaseSpec:
    """Return the specification of a database, as the configuration gives it."""
    return DatabaseSpec(
        path=path,
        name="app",
        configured_as=str(path),
        entry="database[0]",
        upload_interval_s=1.0,
        snapshot_interval_s=86400.0,
        retention_s=604800.0,
        presence=presence,
    )


class Following:
    """Follows ``path`` as the daemon does, one step at a time. ``begin`` takes the base."""

    def __init__(self, path: Path, folder: Path, *, presence: bool = False, limits: Limits = DEFAULT_LIMITS) -> None:
        folder.mkdir(exist_ok=True)
        self._guard = ExitStack()
        self._guard.enter_context(followed_here(str(path)))
        self.path = path
        self.folder = folder
        self.presence = presence
        self.journal = Journal.open(folder / "state")
        self.row_id = self.journal.database("app", str(path)).id
        self.boot_id = boot_id()
        self.ahead_ms = 0
        self.limits = limits
        self.steps: list[Step] = []
        self.base = b""
        self._restores = 0
        self._open()

    def _open(self) -> None:
        self.watcher = InotifyReader()
        self.watch = EventPump(self.watcher, self._woken, lambda: None)
        self.environment = Environment(
            self.journal,
            self.watch.drain,
            self.boot_id,
            wall_ms=self._wall_ms,
            machine_ms=self._wall_ms,
            monotonic_ms=lambda: time.monotonic_ns() // 1_000_000 + self.ahead_ms,
            limits=self.limits,
            count_journal_writes=self.watch.count_journal_writes,
        )
        self.tracked = FollowedDatabase(spec_of(self.path, presence=self.presence), self.row_id, WalPairs(self.path))
        self.watch.add(self.tracked)

    def _wall_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self.ahead_ms

    def _woken(self, _databases: Iterable[FollowedDatabase]) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._close()
        self.journal.close()
        self._guard.close()

    def _close(self) -> None:
        self.tracked.drop_pending()
        self.tracked.presence.want(wanted=False)
        self.tracked.wal_pairs.clear()
        self.watcher.close()

    @property
    def state(self) -> FollowState:
        assert self.tracked.state is not None
        return self.tracked.state

    @property
    def cursor(self) -> Cursor:
        assert self.state.cursor is not None
        return self.state.cursor

    def begin(self) -> Self:
        """Begin a generation and copy the base, fuzzily as bases are."""
        generation = "20261122T105600Z-00000001"
        while (step := begin_step(self.tracked, self.environment, generation)).state is None:
            self.tracked.apply(step)
            time.sleep(0.001)
        self.journal.begin_generation(self.row_id, generation, "test", format_follow_state(step.state), 0)
        self.tracked.begin(step.state, "", 0)
        self.base = self.path.read_bytes()
        return self

    def step(self) -> Step:
        """Take one step, make it durable, and apply it as the follower does."""
        self.tracked.presence.update()
        step = take_step(self.tracked, self.environment)
        self.steps.append(step)
        if step.state is not None and step.gap is None:
            self.journal.advance([Advance(self.row_id, format_follow_state(step.state), step.objects)])
        self.tracked.apply(step)
        return step

    def look(self, *, until: Callable[[Step], bool] = lambda step: step.caught_up and step.again_s != 0) -> Step:
        """Take steps until one has caught up or shows a gap, and return that step."""
        for _ in range(STEPS_MAX):
            step = self.step()
            if step.gap or until(step):
                return step
            if step.again_s != 0:
                time.sleep(0.001)
        raise AssertionError(f"not caught up: {step}")

    def settled(self) -> Step:
        """Look after everything has had time to become quiet."""
        self.look()
        self.ahead_ms += 5_000
        return self.look()

    def gap(self) -> str:
        """Look, and return the gap that the look must find."""
        step = self.look()
        assert step.gap is not None, step
        return step.gap.reason

    def finds_gap(self, words: str) -> None:
        """Assert that a look finds a gap, and that its reason has these words."""
        reason = self.gap()
        assert words in reason, reason

    def sees_all(self, app: SqliteProcess) -> None:
        """Assert that a look finds no gap, and that what was stored is what the application sees."""
        assert not self.look().gap
        self.proves(app)

    def recovered(self) -> list[int]:
        """Return how many transactions each restart of the WAL left to be read in the old incarnation, if
        it left any.
        """
        return [step.recovered for step in self.steps if step.recovered]

    @contextmanager
    def opened(self) -> Iterator[SqliteProcess]:
        """Return a process that has opened the database. The follower has read the events of that."""
        with SqliteProcess(self.path) as app:
            app.execute("SELECT * FROM t")
            self.watch.drain()
            yield app

    def die(self) -> None:
        """End the daemon at once."""
        self._close()

    def restart(self) -> Self:
        """Start the daemon again, with nothing but the journal."""
        row = self.journal.database_by_id(self.row_id)
        assert row.follow is not None
        self._open()
        self.tracked.resume(parse_follow_state(row.follow))
        self.tracked.wal_pairs.look_around()
        return self

    def reboot(self) -> None:
        """Make the next start one after a reboot."""
        self.boot_id = f"not {self.boot_id}"

    def epochs(self) -> dict[int, bytes]:
        """Return the stored WAL of each epoch, from the segments' bodies. Each segment must continue the one before."""
        wals: dict[int, bytes] = {}
        reached: dict[int, int] = {}
        for row in self.journal.pending(self.row_id):
            assert row.kind is ObjectKind.SEGMENT
            assert row.first == reached.get(row.epoch, 0) + 1
            reached[row.epoch] = row.last
            content = b"".join(x for x in decode_body([self.journal.body(row)]) if isinstance(x, bytes))
            wals[row.epoch] = wals.get(row.epoch, b"") + content
        return wals

    def restored(self, query: str = "SELECT * FROM t ORDER BY rowid") -> list[Any]:
        """Return what SQLite makes of the base and the stored WALs."""
        self._restores += 1
        path = self.folder / f"restored-{self._restores}.db"
        path.write_bytes(self.base)
        for _, wal in sorted(self.epochs().items()):
            Path(f"{path}-wal").write_bytes(wal)
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA user_version")
            assert not Path(f"{path}-wal").exists()
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            return [list(row) for row in connection.execute(query).fetchall()]

    def proves(self, app: SqliteProcess) -> None:
        """Assert that what was stored is what the application sees."""
        expected = app.execute("SELECT * FROM t ORDER BY rowid")
        assert self.restored() == expected


def insert(value: int) -> str:
    """Return the statement of a transaction of one row."""
    return f"INSERT INTO t VALUES ({value})"


def closed_database(path: Path) -> None:
    """Make a database in WAL mode that nobody has open."""
    wal_database(path).close()


def committed(path: Path, *values: int, watch: EventPump | None = None) -> None:
    """Open, commit, close. ``watch`` reads the events as they come, as its thread does."""
    with SqliteProcess(path) as app:
        app.execute("SELECT * FROM t")
        if watch is not None:
            watch.drain()
        app.execute("SELECT * FROM t", *(insert(value) for value in values))
        app.close()
    if watch is not None:
        watch.drain()


def open_files(folder: Path) -> int:
    """Return how many descriptors this process has of files below a folder, of deleted ones too."""
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the descriptor by which they are listed
            count += str(descriptor.readlink()).startswith(str(folder))
    return count


def rows(path: Path) -> list[list[int]]:
    """Return the rows of the source."""
    with SqliteProcess(path) as app:
        found = app.execute("SELECT * FROM t ORDER BY rowid")
        app.close()
        return found
