"""A database whose first epoch is closed. Its segments are in a store, and in the journal that shipped them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from tests.fakes import FakeStorage
from tests.replicas import make_replica
from tests.shipping import NAME
from walsyncd.adapters.journal.journal import Advance, Journal, NewObject, ObjectKind, ObjectRow
from walsyncd.core.send.multipart import PUT_SIZE_MAX
from walsyncd.core.stored.layout import SegmentKey, format_key
from walsyncd.engine.upkeep.compactor import Compactor
from walsyncd.engine.upkeep.deletion import Removals

EPOCHS = 2
_folders = itertools.count(1)


@dataclass(frozen=True, slots=True)
class History:
    """Segments of a generation, in order, with their bodies. All epochs but the last are closed."""

    generation: str
    segments: tuple[tuple[SegmentKey, bytes], ...]

    def body(self, epoch: int) -> bytes:
        """Return what the one object of an epoch must hold."""
        return b"".join(body for key, body in self.segments if key.epoch == epoch)


def make_history(folder: Path, *, segments: int = 3, page_size: int = 512, bridge: bool = False) -> History:
    """Make two epochs of so many segments each. If asked for, the first one begins with a bridge."""
    place = folder / f"history-{next(_folders)}"
    place.mkdir()
    keys: list[SegmentKey] = []
    with make_replica(place, page_size=page_size) as maker:
        keys += [maker.bridge()] if bridge else []
        for epoch in range(EPOCHS):
            maker.commit(segments)
            keys += maker.ship(every=1)
            if epoch < EPOCHS - 1:
                maker.close_epoch()
        found = tuple((key, maker.object_path(key).read_bytes()) for key in keys)
    return History(keys[0].generation, found)


def ship(
    journal: Journal,
    storage: FakeStorage,
    history: History,
    *,
    name: str = NAME,
    stored: Callable[[ObjectRow], object] = lambda _row: None,
) -> int:
    """Spool, store and note a segment as the uploader would, and return the database's row id."""
    row = journal.database(name, "/srv/app.db")
    if row.generation is None:
        journal.begin_generation(row.id, history.generation, "test", "{}", 0)
    for key, body in history.segments:
        new = NewObject(
            ObjectKind.SEGMENT,
            format_key(key),
            body,
            key.epoch,
            key.first,
            key.last,
            key.time_ms,
            key.generation,
        )
        (spooled,) = journal.advance([Advance(row.id, None, (new,))])
        storage.put(f"{name}/{spooled.key}", body, metadata={})
        journal.stored(spooled.id, now_ms=0, tokens=0.0)
        stored(spooled)
    return row.id


def at_once(_database_id: int, task: Callable[[], object]) -> Future[object]:
    """Do the work at once, in the caller's thread, as a pool of one."""
    future: Future[object] = Future()
    future.set_result(task())
    return future


def make_compactor(
    journal: Journal,
    storage: FakeStorage,
    now_ms: Callable[[], int],
    may_delete: Callable[[int], None] | None = None,
    *,
    put_bytes_max: int = PUT_SIZE_MAX,
) -> Compactor:
    """Return a compactor with a pool of its own thread, which may delete."""
    allowed = may_delete or (lambda _database_id: None)
    return Compactor(
        journal,
        storage,
        submit=at_once,
        may_delete=allowed,
        store_ms=now_ms,
        removals=Removals(),
        put_bytes_max=put_bytes_max,
    )
