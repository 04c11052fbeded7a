"""A database and its daemon over days that pass when the test says so: a calendar, a storage that uses it, a story.

The daemon is real and runs in the test's process. The caller gives the store. Only the clocks are made up: the daemon's
wall clock, the store's ``Date``, and when each object was stored.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.running import Place, running, wait_for
from walsyncd.adapters.storage.counting_storage import CountingStorage, Requests
from walsyncd.adapters.storage.interface import ObjectInfo, Storage, StoredPart
from walsyncd.core.keep.retention import DAY_MS, HOUR_MS
from walsyncd.core.limits import Limits
from walsyncd.core.restore.plan import AtPosition
from walsyncd.core.stored.layout import Key, SegmentKey, parse_key
from walsyncd.core.stored.position import parse_position
from walsyncd.engine.restore.replica import Replica
from walsyncd.engine.restore.restorer import find_plan, restore
from walsyncd.errors import WalsyncdError

RETENTION_DAYS = 2


class Calendar:
    """The wall clock, which the test moves forward."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    @property
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self.ahead_ms

    def rule(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make this the daemon's wall clock from now on."""
        clock = SimpleNamespace(
            time_ns=lambda: 1_000_000 * self.now_ms,
            monotonic_ns=time.monotonic_ns,
            clock_gettime_ns=time.clock_gettime_ns,
            CLOCK_BOOTTIME=time.CLOCK_BOOTTIME,
        )
        monkeypatch.setattr("walsyncd.adapters.system.clock.time", clock)


class AgingStorage(CountingStorage):
    """``inner`` with the times of a calendar.

    ``changed`` is called after every change, and with ``singly`` after each object.
    """

    def __init__(self, inner: Storage, calendar: Calendar) -> None:
        super().__init__(inner, Requests())
        self._calendar = calendar
        self._ahead_ms: dict[str, int] = {}
        self.changed: Callable[[], object] = lambda: None
        self.singly = False

    def clock_ms(self) -> int:
        return self._calendar.now_ms

    def put(self, key: str, body: bytes, *, metadata: Mapping[str, str]) -> str:
        self._ahead_ms[key] = self._calendar.ahead_ms
        etag = super().put(key, body, metadata=metadata)
        self.changed()
        return etag

    def put_blocks(self, key: str, blocks: Iterator[bytes], *, sha256: str | None = None) -> None:
        self._ahead_ms[key] = self._calendar.ahead_ms
        super().put_blocks(key, blocks, sha256=sha256)
        self.changed()

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[StoredPart]) -> str:
        self._ahead_ms[key] = self._calendar.ahead_ms
        etag = super().complete_upload(key, upload_id, parts)
        self.changed()
        return etag

    def delete(self, keys: Sequence[str]) -> None:
        for part in [[key] for key in keys] if self.singly else [keys]:
            super().delete(part)
            self.changed()

    def head(self, key: str) -> ObjectInfo | None:
        info = super().head(key)
        return info and self._aged(info)

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        return map(self._aged, super().list(prefix, start_after=start_after))

    def _aged(self, info: ObjectInfo) -> ObjectInfo:
        return replace(info, modified_ms=info.modified_ms + self._ahead_ms.get(info.key, 0))


@dataclass(frozen=True, slots=True)
class Moment:
    """A stored commit, and how many rows ``t`` had then."""

    position: str
    rows: int
    at_ms: int


@dataclass
class Story:
    """Days of one database, ``app``. Every sync is a moment to which it can be restored while that is promised."""

    place: Place
    storage: AgingStorage
    calendar: Calendar
    writer: SqliteProcess
    moments: list[Moment] = field(default_factory=list)
    rows: int = 1
    compacts: bool = True
    """Whether a closed epoch becomes one object, which it does not while deletion is refused."""

    def commit(self) -> None:
        """Commit one row more, and store it."""
        self.writer.execute(f"insert into t values ({self.rows})")
        self.rows += 1
        self.moments.append(Moment(self.place.sync(), self.rows, self.calendar.now_ms))

    def day(self) -> None:
        """Store an epoch of three commits with a base in between. The next day's base closes it."""
        self.writer.execute("pragma wal_checkpoint(restart)")
        self.commit()
        before = self.place.row().base_key
        self.place.ask(op="snapshot", name="app")
        wait_for(lambda: self.place.row().base_key != before)
        self.commit()
        self.commit()
        wait_for(lambda: not self.compacts or not self._is_any_closed())
        self.calendar.ahead_ms += DAY_MS

    def _is_any_closed(self) -> bool:
        with self.place.journal() as journal:
            return bool(journal.closed_epochs())

    def wait_for_whole(self) -> None:
        """Wait until a closed epoch is one object that was read back. The hour of its segments has begun then."""

        def is_stored() -> bool:
            with self.place.journal() as journal:
                return any(whole.state == "stored" for whole in journal.wholes(self.place.row().id))

        wait_for(is_stored)

    def prune(self) -> Mapping[str, Any]:
        """Prune by command two hours later, and return the result."""
        self.calendar.ahead_ms += 2 * HOUR_MS
        self.place.ask(op="prune", names=["app"])
        wait_for(lambda: "waiting" not in self.place.ask(op="pruned", name="app"))
        return self.place.ask(op="pruned", name="app")

    def keys(self, kind: type[Key]) -> list[Any]:
        """Return the stored objects of a kind."""
        names = [info.key for info in self.storage.list("app/")]
        return [key for name in names if isinstance(key := parse_key(name.removeprefix("app/")), kind)]

    def segments(self, epoch: int) -> list[SegmentKey]:
        return [key for key in self.keys(SegmentKey) if key.epoch == epoch]

    def check(self) -> list[Moment]:
        """Assert that all that is promised can be restored exactly.

        The rest may be refused. Return what could be restored.
        """
        had = [moment for moment in self.moments if self._is_exact(moment)]
        promised = [each for each in self.moments if each.at_ms > self.calendar.now_ms - RETENTION_DAYS * DAY_MS]
        assert set(promised) <= set(had)
        assert self.moments[-1] in had
        return had

    def _is_exact(self, moment: Moment) -> bool:
        out = self.place.folder / "restored.db"
        replica = Replica(self.storage, "app")
        try:
            plan = find_plan(replica, AtPosition(parse_position(moment.position)))
            restore(replica, plan, out, force=True)
        except WalsyncdError:
            return False
        connection = sqlite3.connect(out)
        rows = [x for (x,) in connection.execute("select x from t order by x")]
        connection.close()
        assert rows == list(range(moment.rows))
        return True


@contextmanager
def told(place: Place, inner: Storage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Story]:
    """Begin a story."""
    calendar = Calendar()
    calendar.rule(monkeypatch)
    storage = AgingStorage(inner, calendar)
    settings = place.settings("app")
    entries = tuple(replace(entry, retention_s=86_400.0 * RETENTION_DAYS) for entry in settings.databases)
    with (
        wal_database(place.database()) as writer,
        running(replace(settings, databases=entries), storage, limits=Limits(upkeep_calm_s=0.0)),
    ):
        place.sync()
        yield Story(place, storage, calendar, writer)
