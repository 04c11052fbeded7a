"""A daemon's journal and uploader for tests, which spool segments, ship them, and look at the result."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.fakes import Deaths, FakeStorage, Killed
from walsyncd.adapters.journal.journal import Advance, Journal, NewObject, ObjectKind, ObjectRow, SpoolFile
from walsyncd.adapters.journal.journal_schema import Connection
from walsyncd.core.follow.gap import Gap
from walsyncd.core.stored.layout import SegmentKey, format_key
from walsyncd.engine.ship.ownership import Identity
from walsyncd.engine.ship.uploader import Uploader

G1 = "20261122T105600Z-00000001"
G2 = "20261122T105700Z-00000002"
NAME = "app"
T0 = 1_700_000_000_000
FLUSH_S_MAX = 30.0  # seconds: far more than anything here takes
WAIT_S_MAX = 60.0

_runs = itertools.count(1)


@contextmanager
def begun_journal(folder: Path) -> Iterator[Journal]:
    """Return a journal in which database ``NAME`` has begun generation ``G1``."""
    with Journal.open(folder) as journal:
        row = journal.database(NAME, "/srv/app.db")
        journal.begin_generation(row.id, G1, "first", "{}", 0)
        yield journal


def segment(
    first: int, last: int, *, generation: str = G1, epoch: int = 1, body: bytes | SpoolFile | None = None
) -> NewObject:
    """Return a segment whose body, unless given, says which frames it holds."""
    previous = (0 if epoch == 1 else 7) if first == 1 else None
    key = SegmentKey(generation, epoch, first, last, T0 + last, previous)
    whole = b"".join(f"<{epoch}:{frame}>".encode() for frame in range(first, last + 1))
    return NewObject(
        ObjectKind.SEGMENT,
        format_key(key),
        whole if body is None else body,
        epoch,
        first,
        last,
        T0 + last,
        generation,
    )


@dataclass
class Told:
    """What the uploader reported to the daemon."""

    stored: list[ObjectRow] = field(default_factory=list)
    lost: list[tuple[int, str]] = field(default_factory=list)
    rewound: list[str] = field(default_factory=list)
    crashes: list[BaseException] = field(default_factory=list)

    def on_stored(self, row: ObjectRow) -> None:
        self.stored.append(row)

    def on_rewound(self, database_id: int, reason: str) -> None:
        self.rewound.append(reason)

    def on_generation_lost(self, database_id: int, gap: Gap) -> None:
        self.lost.append((database_id, gap.reason))


@dataclass
class Run:
    """One run of the daemon over a state directory."""

    journal: Journal
    storage: FakeStorage
    uploader: Uploader
    told: Told
    database_id: int

    def spool(self, *objects: NewObject, begin: bool = False) -> list[ObjectRow]:
        """Journal objects, and tell the uploader."""
        rows = self.journal.advance([Advance(self.database_id, "{}", objects, begin)])
        self.uploader.offer(rows)
        return rows

    def flush(self) -> None:
        """Start, ship all there is, stop."""
        self.uploader.start()
        self.uploader.stop(FLUSH_S_MAX)


@contextmanager
def run_daemon(
    state_dir: Path,
    storage: FakeStorage,
    *,
    generation: str | None = G1,
    machine_id: str = "machine-1",
    uploads_max: int = 1,
) -> Iterator[Run]:
    """Run with one database. Its generation begins unless the journal has one."""
    told = Told()
    with Journal.open(state_dir) as journal:
        journal.sweep()
        row = journal.database(NAME, "/srv/app.db")
        if generation is not None and row.last_generation < generation:
            journal.begin_generation(row.id, generation, "test", "{}", T0)
        run_id = f"run-{next(_runs)}"
        journal.begin_run(run_id)
        uploader = Uploader(
            journal,
            storage,
            told,
            told.crashes.append,
            identity=Identity("host-1", machine_id, run_id),
            uploads_max=uploads_max,
        )
        try:
            yield Run(journal, storage, uploader, told, row.id)
        finally:
            uploader.stop()


@contextmanager
def mortal(monkeypatch: pytest.MonkeyPatch, storage: FakeStorage, deaths: Deaths) -> Iterator[None]:
    """Within the block, every storage call and every transaction of a journal has a point before and one after it."""
    transaction = Connection._transaction

    @contextmanager
    def deadly(self: Connection) -> Iterator[object]:
        with transaction(self) as connection:
            yield connection
            deaths.point()
        deaths.point()

    storage.before = storage.after = lambda _call: deaths.point()
    with monkeypatch.context() as patch:
        patch.setattr(Connection, "_transaction", deadly)
        try:
            yield
        finally:
            storage.before = storage.after = lambda _call: None


def assert_alive(told: Told) -> None:
    """Assert that no thread ended with anything but a kill."""
    bugs = [error for error in told.crashes if not isinstance(error, Killed)]
    if bugs:
        raise bugs[0]


def wait_for(fact: Callable[[], object]) -> None:
    """Wait until something that other threads do has happened."""
    pause = threading.Event()
    for _ in range(int(WAIT_S_MAX / 0.01)):
        if fact():
            return
        pause.wait(0.01)
    pytest.fail("it did not happen")
