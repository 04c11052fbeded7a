"""The compactor: turns the segments of a closed epoch into one object, reads it back, and deletes the segments later.

| durable step              | what the bucket shows                     | what the next run does after a kill here  |
|---------------------------|-------------------------------------------|-------------------------------------------|
| begun (its key)           | the segments                              | writes the same bytes to the same key     |
| written, read back        | the segments, and one object of them all  | the same                                  |
| stored (when)             | the same                                  | waits for the hour to end                 |
| owner checked, deleting   | one object, and some of the segments      | deletes them again: absent ones are no error |
| replaced                  | one object                                | a listing shows whether segments are left |

If a clock was ahead during an epoch, the epoch is not compacted, because the times at which the store took the segments
show which times are wrong.

A reader prefers the one object, so the replica is right at every moment. The segments are deleted an hour after the
object was read back, so that a reader that planned with segments has an hour to read them. The object's bytes come from
the journal if it kept them, or else from the store. Nothing waits for a compaction: neither the follower nor the upload
queues, which are served before the compactor's requests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar

import structlog

from walsyncd.adapters.journal.epoch_table import Epoch, KeptRow, WholeRow
from walsyncd.adapters.journal.journal import Journal
from walsyncd.adapters.storage.interface import Storage, StoredPart, takes_blocks
from walsyncd.core.limits import DEFAULT_LIMITS
from walsyncd.core.restore.clock_doubt import TimedObject
from walsyncd.core.send.multipart import PUT_SIZE_MAX, part_size
from walsyncd.core.stored.layout import (
    ID_METADATA,
    SegmentKey,
    WholeKey,
    before_epoch,
    folder_key,
    format_key,
    parse_key,
    wal_folder,
)
from walsyncd.core.stored.moment import CLOCK_OFF_MS
from walsyncd.engine.restore.epoch_reader import EpochReader
from walsyncd.engine.restore.replica import Replica
from walsyncd.engine.ship.object_upload import open_uploads
from walsyncd.engine.upkeep.deletion import Removals, remove
from walsyncd.errors import CorruptError, MissingError

SEGMENTS_MIN = 2  # one segment is one object already

T = TypeVar("T")
_log = structlog.get_logger()


class Compactor:
    """Compacts epochs. ``submit`` runs a request once this daemon may write to the database's folder.

    ``may_delete`` raises if deletion is forbidden now. ``store_ms`` returns the time of the store's clock. ``owns``
    tests whether a database's replica is in this storage.
    """

    def __init__(
        self,
        journal: Journal,
        storage: Storage,
        *,
        submit: Callable[[int, Callable[[], object]], Future[Any]],
        may_delete: Callable[[int], None],
        store_ms: Callable[[], int],
        removals: Removals,
        owns: Callable[[int], bool] = lambda _database_id: True,
        replaced_after_ms: int = DEFAULT_LIMITS.replaced_after_ms,
        put_bytes_max: int = PUT_SIZE_MAX,
    ) -> None:
        self._journal = journal
        self._replaced_after_ms, self._put_bytes_max = replaced_after_ms, put_bytes_max
        self._owns = owns
        self._storage = storage
        self._removals = removals
        self._submit = submit
        self._may_delete = may_delete
        self._store_ms = store_ms

    def compactions(self, databases: Collection[int] | None) -> list[Callable[[], None]]:
        """Return jobs for the epochs to compact now. Each job raises what the storage raises.

        ``databases`` are the databases of which an epoch may have been closed, or None if this may be any database.
        """
        if databases is None:
            closed = self._journal.closed_epochs()
        else:
            closed = [epoch for each in sorted(databases) for epoch in self._journal.closed_epochs(each)]
        return [partial(self.compact, epoch) for epoch in closed if self._owns(epoch.database_id)]

    def replacements(self) -> list[Callable[[], None]]:
        """Return jobs for the epochs whose segments may be deleted now.

        The jobs raise what the storage and ``may_delete`` raise.
        """
        ripe = self._journal.wholes_stored(self._store_ms() - self._replaced_after_ms)
        return [partial(self.replace, whole) for whole in ripe if self._owns(whole.epoch.database_id)]

    def next_ms(self) -> int | None:
        """Return when segments are to be deleted next, by the store's clock."""
        stored = self._journal.wholes_stored(self._store_ms())
        moments = [whole.at_ms for whole in stored if self._owns(whole.epoch.database_id)]
        return min(moments) + self._replaced_after_ms if moments else None

    def compact(self, epoch: Epoch) -> None:
        """Write one object of a closed epoch and read it back."""
        rows = self._journal.kept(epoch)
        key = _whole_key(rows)
        if key is None:
            self._journal.epoch_forgotten(epoch)
            return
        name = self._journal.database_by_id(epoch.database_id).name
        if self._was_clock_ahead(name, key):
            self._journal.epoch_forgotten(epoch)
            return
        self._journal.whole_begun(epoch, format_key(key), sum(row.size for row in rows), self._store_ms())
        try:
            self._write(epoch, rows, folder_key(name, format_key(key)))
            self._read_back(name, key)
        except (MissingError, CorruptError) as error:
            # The segments stay as they are, so that `verify` can find the fault. The object that we wrote is removed,
            # since readers would prefer it.
            _log.error("epoch_not_compacted", database=name, epoch=key.epoch, reason=error.message)
            self._journal.epoch_forgotten(epoch)
            self._removals.failed("compaction")
            remove(self._storage, [folder_key(name, format_key(key))])
            return
        self._journal.whole_stored(epoch, self._store_ms())
        self._removals.put_together(epoch.database_id)
        _log.info("epoch_compacted", database=name, key=format_key(key), segments=len(rows))

    def replace(self, whole: WholeRow) -> None:
        """Delete the segments of a compacted epoch if the store has its one object as it was read back."""
        database_id = whole.epoch.database_id
        name = self._journal.database_by_id(database_id).name
        self._may_delete(database_id)
        if not self._is_as_written(name, whole):
            _log.error("compacted_epoch_lost", database=name, key=whole.key)
            self._removals.failed("compaction")
            self._journal.epoch_forgotten(whole.epoch)
            return
        rows = self._journal.kept(whole.epoch)
        remove(self._storage, [folder_key(name, row.key) for row in rows])
        self._journal.whole_replaced(whole.epoch, self._store_ms())
        self._removals.removed(database_id, len(rows), sum(row.size for row in rows))

    def _is_as_written(self, name: str, whole: WholeRow) -> bool:
        """Whether the object is there as it was written. An object that was written again later is read back again."""
        key = parse_key(whole.key)
        if not isinstance(key, WholeKey):
            return False
        found = self._storage.head(folder_key(name, whole.key))
        if found is None or found.size != whole.size:
            return False
        if found.modified_ms <= whole.at_ms:
            return True
        try:
            self._read_back(name, key)
        except (MissingError, CorruptError):
            return False
        return True

    def _was_clock_ahead(self, name: str, key: WholeKey) -> bool:
        """Whether a segment's time is after the moment when the store took it, or after the next epoch's first time.

        These times show which other times are wrong (``core.restore.clock_doubt``). One object for all segments would
        be stored at another moment, and have only one time. So such segments stay.
        """
        wal, cut = wal_folder(key.generation), len(folder_key(name, ""))
        start_after = folder_key(name, before_epoch(wal, key.epoch))
        for info in self._storage.list(folder_key(name, wal), start_after=start_after):
            segment = parse_key(info.key[cut:])
            if not isinstance(segment, SegmentKey):
                continue
            is_next = segment.epoch > key.epoch
            timed = TimedObject((segment.epoch, segment.last), segment.time_ms, info.modified_ms)
            ahead_ms = key.time_ms - segment.time_ms if is_next else timed.ahead_ms
            if ahead_ms > CLOCK_OFF_MS:
                _log.warning("epoch_not_compacted", database=name, epoch=key.epoch, reason="a clock was ahead")
                return True
            if is_next:
                break
        return False

    # -- one object -------------------------------------------------------------------------------------------------

    def _write(self, epoch: Epoch, rows: Sequence[KeptRow], key: str) -> None:
        size = sum(row.size for row in rows)
        blocks, storage = self._blocks(epoch, rows), self._storage
        if takes_blocks(storage):
            self._do(epoch.database_id, lambda: storage.put_blocks(key, blocks))
            return
        if size > self._put_bytes_max:
            self._write_parts(epoch.database_id, key, _cut(blocks, part_size(size)))
            return
        body = b"".join(blocks)
        metadata = {ID_METADATA: hashlib.sha256(body).hexdigest()}
        self._do(epoch.database_id, lambda: self._storage.put(key, body, metadata=metadata))

    def _write_parts(self, database_id: int, key: str, parts: Iterator[bytes]) -> None:
        """Upload from the first part on. An upload that an earlier attempt left open is abandoned."""
        storage = self._storage
        for left in open_uploads(storage, key):
            storage.abort_upload(key, left)
        upload_id = self._do(database_id, lambda: storage.create_upload(key, metadata={}))
        stored = []
        for number, body in enumerate(parts, 1):
            etag = self._do(database_id, partial(storage.upload_part, key, upload_id, number, body))
            stored.append(StoredPart(number, len(body), etag))
        self._do(database_id, lambda: storage.complete_upload(key, upload_id, stored))

    def _blocks(self, epoch: Epoch, rows: Sequence[KeptRow]) -> Iterator[bytes]:
        name = self._journal.database_by_id(epoch.database_id).name
        for row in rows:
            if row.has_body:
                yield from self._journal.kept_blocks(epoch, row)
            else:
                yield from _at_most(row.size, self._storage.stream(folder_key(name, row.key)), row.key)

    def _read_back(self, name: str, key: WholeKey) -> None:
        """Read every frame and every trailer from the store. Raises CorruptError, which says what is wrong."""
        reader = EpochReader(Replica(self._storage, name), key.epoch, None)
        for _ in reader.read(key):
            pass

    def _do(self, database_id: int, request: Callable[[], T]) -> T:
        answer: T = self._submit(database_id, request).result()
        return answer


def _at_most(size: int, blocks: Iterator[bytes], key: str) -> Iterator[bytes]:
    """Yield the same blocks. Raises CorruptError if the object has more than ``size`` bytes."""
    left = size
    for block in blocks:
        left -= len(block)
        if left < 0:
            raise CorruptError(f"{key}: it has more than the {size} bytes that were stored")
        yield block


def _whole_key(rows: Sequence[KeptRow]) -> WholeKey | None:
    """Return the one object's key, or None if this journal does not know all segments or if there is only one."""
    keys = [key for row in rows if isinstance(key := parse_key(row.key), SegmentKey)]
    if len(keys) < SEGMENTS_MIN or keys[0].previous is None:
        return None
    if any(later.first != sooner.last + 1 for sooner, later in pairwise(keys)):
        return None
    last = keys[-1]
    return WholeKey(last.generation, last.epoch, last.last, last.time_ms, keys[0].previous, keys[0].bridge)


def _cut(blocks: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Yield the same bytes in pieces of exactly ``size``, except the last one."""
    held = bytearray()
    for block in blocks:
        held += block
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)
