"""A day of databases on a clock that is a number, by the parts that run in the daemon.

These parts are real: the segment builder and its segments, the journal, the uploader's decisions (``scheduler``,
``shipper``), bases (``snapshotter``, of a real file), compaction and pruning (``housekeeper``). These are simulated:
the application, whose WAL restarts after 1,000 frames as it does by default, the threads, which take turns, and the
store, which counts.
"""

from __future__ import annotations

import math
import os
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import numpy as np

from tests.fakes import Call, FakeStorage
from walsyncd.adapters.files.source import open_file
from walsyncd.adapters.journal.journal import Advance, Journal, ObjectRow
from walsyncd.adapters.storage.interface import ObjectInfo
from walsyncd.config import DatabaseSpec
from walsyncd.core.follow.decision import Cursor
from walsyncd.core.follow.follow_state import FollowState, Stream
from walsyncd.core.follow.gap import Gap
from walsyncd.core.keep.retention import DAY_MS
from walsyncd.core.send.pacing import BURST, Bucket
from walsyncd.core.sqlite.wal import FrameEnd, Frames
from walsyncd.engine.base.copy_queue import CopyQueue
from walsyncd.engine.base.snapshotter import Snapshotter
from walsyncd.engine.follow.copy_frames import close_epoch_if_due
from walsyncd.engine.follow.environment import Environment
from walsyncd.engine.follow.file_facts import file_facts
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.segment_builder import SegmentBuilder
from walsyncd.engine.follow.source_reader import SourceReader
from walsyncd.engine.follow.wal_pairs import WalPairs
from walsyncd.engine.ship.database_queue import DatabaseQueue
from walsyncd.engine.ship.ownership import Identity, Ownership
from walsyncd.engine.ship.scheduler import DrainQueue, Scheduler, Wait
from walsyncd.engine.ship.shipper import Shipper
from walsyncd.engine.upkeep.housekeeper import Housekeeper

GENERATION = "20261123T000000Z-3f9c1a2b"
BEGAN_MS = 1_795_392_000_000  # 2026-11-23, midnight UTC
PAGE_SIZE = 4096
ROW_BYTES = 400  # bytes that can't be compressed; measured: a row of 1 kB leaves 430 bytes
RESTART_FRAMES = 1000
PAGE, PAGES = 2, 2000  # the page that every commit writes, of so many
PAGE_KEYS, DELETE_KEYS = 1000, 1000  # bytes of an answer to LIST, of a DeleteObjects


class CountingStore(FakeStorage):
    """Counts S3's requests by what they cost. Objects are as old as ``now_ms`` says. Of bases only the size is kept."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        super().__init__()
        self.requests: Counter[str] = Counter()
        self._now_ms = now_ms
        self.stored_ms: dict[str, int] = {}
        self.before = self._count

    def _count(self, call: Call) -> None:
        match call.name:
            case "put_if":  # it looks, writes, and reads back
                self.requests.update(head=1, put=1, get=1)
            case "create_upload" | "upload_part" | "complete_upload":
                self.requests["multipart"] += 1
            case "folders" | "list_uploads" | "list_parts":
                self.requests["list"] += 1
            case "list" | "delete":
                pass
            case name:
                self.requests[name] += 1
        self.calls.clear()

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        found = list(super().list(prefix, start_after=start_after))
        self.requests["list"] += max(1, math.ceil(len(found) / PAGE_KEYS))
        return (replace(info, modified_ms=self.stored_ms[info.key]) for info in found)

    def get(self, key: str, *, first: int = 0, length: int | None = None) -> bytes:
        body = super().get(key, first=first, length=length)
        if "/whole/" in key:  # the object was read back, and is never read again
            self._lighten(key)
        return body

    def delete(self, keys: Sequence[str]) -> None:
        self.requests["delete"] += math.ceil(len(keys) / DELETE_KEYS)
        super().delete(keys)

    def clock_ms(self) -> int:
        return self._now_ms()

    def _make_visible(self, key: str, body: bytes, etag: str, metadata: Any) -> str:
        self.stored_ms[key] = self._now_ms()
        super()._make_visible(key, body, etag, metadata)
        self.visible.clear()
        if key.endswith(".db.zst"):
            self._lighten(key)
        return etag

    def _lighten(self, key: str) -> None:
        """Return as many zeros, which take no memory until somebody reads them."""
        self.objects[key].body = bytes(len(self.objects[key].body))


class PlayedRota(CopyQueue):
    """Knows which bases are due when, by our clock. A base is run from start to end when ``run_due`` is called."""

    def __init__(self, take: Callable[[FollowedDatabase], Any], now_ms: Callable[[], int]) -> None:
        super().__init__(take)
        self._now_ms = now_ms
        self.moments: dict[int, tuple[float, FollowedDatabase]] = {}

    def due(self, tracked: FollowedDatabase, delay_s: float, *, may_hasten: bool = True, anew: bool = False) -> None:
        moment = self._now_ms() + 1000 * delay_s
        known = None if anew else self.moments.get(tracked.row_id)
        if known is None or (moment < known[0] and may_hasten):
            self.moments[tracked.row_id] = (moment, tracked)

    def run_due(self) -> None:
        for row_id, (moment, tracked) in list(self.moments.items()):
            if moment <= self._now_ms():
                del self.moments[row_id]
                for _hold in self._take(tracked):
                    pass  # every answer exists at once

    @property
    def next_ms(self) -> float:
        return min((moment for moment, _ in self.moments.values()), default=math.inf)


class PlayedKeeper(Housekeeper):
    """A housekeeper whose thread sleeps in our time."""

    next_ms: float = math.inf

    def wake(self) -> None:
        super().wake()
        self.next_ms = 0.0

    def run_due(self, now_ms: int) -> None:
        if self.next_ms <= now_ms:
            wait_s = self.round()
            self.next_ms = math.inf if wait_s is None else now_ms + 1000 * wait_s


class Play:
    """Databases that all commit at the same moments. ``retention_s`` and all else have their defaults."""

    def __init__(self, folder: Path, journal: Journal, *, file_bytes: int, upload_interval_s: float) -> None:
        self.now_ms = BEGAN_MS - 30 * DAY_MS
        self._journal = journal
        self._folder = folder
        self._interval_s = upload_interval_s
        self._file_bytes = file_bytes
        self.storage = CountingStore(lambda: self.now_ms)
        self.dispatch = Scheduler(tasks_running_max=1)
        self.databases: list[FollowedDatabase] = []
        ownership = Ownership(journal, self.storage, Identity("host", "machine", "run"), lambda: self.now_ms)
        self._shipper = Shipper(
            journal,
            self.storage,
            ownership,
            self,
            resumed_upto=0,
            wall_ms=lambda: self.now_ms,
            monotonic_ms=lambda: float(self.now_ms),
        )
        journal.keep_bodies(1 << 30)
        self.keeper = PlayedKeeper(journal, self.storage, ownership, submit=_at_once, wall_ms=lambda: self.now_ms)
        self._snapshotter = Snapshotter(
            journal,
            self.storage,
            request=lambda tracked, then: _at_once(0, lambda: then(tracked)),
            interrupt=_interrupt,
            submit=_at_once,
            offer=self._offer,
            abort_leftovers=lambda: None,
            now_ms=lambda: self.now_ms,
            boot_id="boot",
        )
        self._copy_queue = self._snapshotter._copy_queue = PlayedRota(self._snapshotter._take, lambda: self.now_ms)

    def join(self, number: int) -> None:
        """Add a database, which gets a base as soon as it has committed."""
        path = self._folder / f"{number}.db"
        pages = (os.urandom(ROW_BYTES).ljust(PAGE_SIZE, b"\0") for _ in range(self._file_bytes // PAGE_SIZE))
        path.write_bytes(b"".join(pages))
        spec = DatabaseSpec(
            path, f"db-{number}", str(path), "database[1]", self._interval_s, 86_400.0, 7 * 86_400.0, presence=False
        )
        row = self._journal.database(spec.name, str(path))
        file = open_file(path)
        assert file is not None
        with file:
            facts = file_facts(file.identity(), "boot", None)
        tracked = FollowedDatabase(spec, row.id, WalPairs(path))
        tracked.resume(FollowState(Stream(GENERATION), None, 1, 0, facts))
        tracked.note_base(wanted="first generation")
        self._journal.begin_generation(row.id, GENERATION, "first generation", "{}", self.now_ms)
        queue = DatabaseQueue(row.id, row.name, Bucket(BURST, self.now_ms), 1000 * self._interval_s)
        self.dispatch.queues[row.id] = queue
        self.databases.append(tracked)

    def commit(self, tracked: FollowedDatabase, transactions: int, *, restarts: bool = False) -> None:
        """Make so many transactions of one row, which are seen at once. If the WAL is full, it restarts before."""
        if tracked.base.wanted and tracked.row_id not in self._copy_queue.moments:
            self._snapshotter.adopt(tracked)
            self.keeper.adopt(tracked)
        assert tracked.state is not None
        cursor = tracked.state.cursor or Cursor((1, 2), None, 0, (0, 0))
        environment = Environment(self._journal, lambda: None, "boot", wall_ms=lambda: self.now_ms)
        reader = SimpleNamespace(tracked=tracked, environment=environment)
        if restarts or cursor.frames + transactions > RESTART_FRAMES:
            cursor = Cursor(cursor.salts, None, 0, (0, 0))
            tracked.belief = replace(tracked.belief, state=tracked.state.entered(cursor))
        state = close_epoch_if_due(cast("SourceReader", reader), tracked.state, cursor)
        collector = SegmentBuilder(self._journal, state.stream, page_size=PAGE_SIZE, salts=(3, 4), seen_ms=self.now_ms)
        collector.add(_frames(transactions))
        new, stream = collector.finish()
        grown = Cursor(cursor.salts, None, cursor.frames + transactions, (0, 0))
        tracked.belief = replace(tracked.belief, state=replace(state, stream=stream, cursor=grown))
        self._offer(self._journal.advance([Advance(tracked.row_id, "{}", (new,))]))

    def age(self, days: int) -> None:
        """Let the databases begin so many days before ``BEGAN_MS`` and commit once a day. Old objects were pruned."""
        for day in range(days):
            self.run_until(BEGAN_MS - (days - day) * DAY_MS)
            for tracked in self.databases:
                self.commit(tracked, 1, restarts=True)
        self.run_until(BEGAN_MS)

    def run_until(self, end_ms: int) -> None:
        """Run all that the threads would do before that moment."""
        with patch("walsyncd.engine.base.snapshotter.time", SimpleNamespace(monotonic=lambda: self.now_ms / 1000)):
            while (moment := self._turn()) < end_ms:
                self.now_ms = max(self.now_ms, math.ceil(moment))
            self.now_ms = end_ms

    def _turn(self) -> float:
        """Do all that is due now. Return when something is due again."""
        while True:
            match self.dispatch.next(self.now_ms):
                case DrainQueue(queue=queue, is_urgent=is_urgent, check_ownership=wanted):
                    drain = self._shipper.drain(queue, is_urgent=is_urgent, check_ownership=wanted)
                    self.dispatch.settle(queue, drain)
                case Wait(timeout_s):
                    if min(self._copy_queue.next_ms, self.keeper.next_ms) > self.now_ms:
                        ship_ms = math.inf if timeout_s is None else self.now_ms + max(1.0, 1000 * timeout_s)
                        return min(ship_ms, self._copy_queue.next_ms, self.keeper.next_ms)
                    self._copy_queue.run_due()
                    self.keeper.run_due(self.now_ms)
                case other:
                    raise AssertionError(other)

    # -- what other parts report
    # ----------------------------------------------------------------------------------------

    def on_stored(self, row: ObjectRow) -> None:
        self._snapshotter.stored(row)
        self.keeper.stored(row)

    def on_generation_lost(self, database_id: int, gap: Gap) -> None:
        raise AssertionError(gap.reason)

    def on_rewound(self, database_id: int, reason: str) -> None:
        raise AssertionError(reason)

    def _offer(self, rows: list[ObjectRow]) -> None:
        for row in rows:
            self.dispatch.mark(self.dispatch.queues[row.database_id], row.size)


def _frames(count: int) -> Frames:
    """Return frames that commit one row each. Their chain is made when they are stamped, as for a big-endian WAL."""
    header, rest = struct.pack(">2I16x", PAGE, PAGES), bytes(PAGE_SIZE - ROW_BYTES)
    return Frames(
        data=memoryview(b"".join(header + os.urandom(ROW_BYTES) + rest for _ in range(count))),
        first=1,
        count=count,
        page_numbers=np.full(count, PAGE, np.uint32),
        sizes=np.full(count, PAGES, np.uint32),
        chains=np.zeros((count, 2), np.uint32),
        end=FrameEnd.DATA,
        next_salts=None,
        before=(0, 0),
        big_endian=True,
    )


def _interrupt(tracked: FollowedDatabase, then: Callable[[FollowedDatabase], object]) -> None:
    then(tracked)


def _at_once(_database_id: int, call: Callable[[], object], _size: int = 0) -> Future[Any]:
    future: Future[Any] = Future()
    try:
        future.set_result(call())
    except Exception as error:  # noqa: BLE001  whoever waits for it takes it, as from a pool
        future.set_exception(error)
    return future
