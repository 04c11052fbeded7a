"""Drains a queue once: claim or check ownership, read the journal, merge, send the first object.

Durable order: merged row → marked begun → S3 → marked stored. If a generation ends here (another daemon wrote, the
store will never take an object, spooled bytes have changed), its remaining objects are dropped with it: nothing may
follow a hole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from walsyncd.adapters.journal.journal import DatabaseRow, Journal, ObjectRow, ObjectState
from walsyncd.adapters.storage.interface import Storage
from walsyncd.core.follow.database_state import DatabaseState
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.send.merge import CROWD, Waiting, crowded_runs, head_run, merged_key, size_max_after
from walsyncd.core.stored.layout import SegmentKey, folder_key, format_key, parse_key
from walsyncd.engine.ship.database_queue import Claim, DatabaseQueue
from walsyncd.engine.ship.object_upload import send
from walsyncd.engine.ship.orphaned_uploads import SWEEP_MS, abort_orphans
from walsyncd.engine.ship.ownership import Ownership, Standing, Verdict
from walsyncd.errors import CorruptError, ImpossibleError, MissingError, TransientError
from walsyncd.log import get_logger

_NEXT_UNKNOWN = 0  # an id that no object has: the next drain looks again
ROWS_MAX = 4096  # rows that are read at once; rows of 2 KiB each then fill a merged object

REWINDS_MAX = 3  # rewinds in a row; a disk that corrupts what is written to it is unfit for a spool


class UploadEvents(Protocol):
    """The events that the uploader reports. It calls these methods in its threads and holds no lock meanwhile."""

    def on_stored(self, row: ObjectRow) -> None:
        """An object is visible, and the journal shows it."""

    def on_generation_lost(self, database_id: int, gap: Gap) -> None:
        """The current generation was ended in the journal, and the follower must begin another one."""

    def on_rewound(self, database_id: int, reason: str) -> None:
        """The newest spooled objects were dropped, and the follower must read their frames again."""


@dataclass(frozen=True, slots=True)
class QueueResult:
    """The result of a drain. ``next_id`` is the next object as far as the drain has read, or None if there is none.

    ``bytes_left`` is the number of pending bytes that the drain saw. ``reached_storage`` means that the storage
    answered, so it is not away. A ``verdict`` means that the queue is not ours.
    """

    next_id: int | None = None
    bytes_left: int = 0
    reached_storage: bool = False
    verdict: Verdict | None = None


class Shipper:
    """Drains queues. It keeps no state of its own, so any number of threads may use it."""

    def __init__(
        self,
        journal: Journal,
        storage: Storage,
        ownership: Ownership,
        events: UploadEvents,
        *,
        resumed_upto: int,
        before_body: Callable[[int], None] = lambda _size: None,
        wall_ms: Callable[[], int],
        monotonic_ms: Callable[[], float],
        rows_max: int = ROWS_MAX,
        crowd: int = CROWD,
    ) -> None:
        self._rows_max, self._crowd = rows_max, crowd
        self._journal = journal
        self._storage = storage
        self._ownership = ownership
        self._events = events
        self._resumed_upto = resumed_upto
        self._before_body = before_body
        self._wall_ms = wall_ms
        self._monotonic_ms = monotonic_ms

    def drain(
        self, queue: DatabaseQueue, *, is_urgent: bool, check_ownership: bool, offered: ObjectRow | None = None
    ) -> QueueResult:
        """Drain a queue that this thread has made busy, once. Raises TransientError and RefusedError.

        ``offered`` is the only pending object, unless it was dropped meanwhile. If it is None, the journal is read.
        """
        if offered is not None and self._journal.is_held(offered):
            rows = [offered]
        else:
            rows = self._journal.pending(queue.database_id, limit=self._rows_max)
        if not rows and not check_ownership:
            return QueueResult()
        generation = rows[0].generation if rows else self._journal.database_by_id(queue.database_id).generation
        if generation is None:
            return QueueResult(verdict=Verdict(Standing.LOST, "the generation has ended"))
        queue.compare_clocks(self._monotonic_ms(), self._wall_ms())
        looks = queue.needs_ownership_check(self._monotonic_ms())
        if looks:
            verdict = self._check_ownership(queue, generation)
            if verdict.standing is not Standing.OURS:
                return QueueResult(next_id=_NEXT_UNKNOWN, reached_storage=True, verdict=verdict)
        if not rows:
            return QueueResult(reached_storage=looks)
        return self._send_first(queue, rows, is_urgent=is_urgent, looked=looks)

    def _check_ownership(self, queue: DatabaseQueue, generation: str) -> Verdict:
        database = self._journal.database_by_id(queue.database_id)
        if queue.is_claimed:
            verdict = self._ownership.look(database, doubted=generation if queue.is_doubted else None)
            if verdict.standing is Standing.OURS:
                verdict = self._look_for_another(queue, database, generation)
        else:
            verdict = self._ownership.claim(database, generation)
            continued = database.stored_key if database.stored_generation == generation else None
            queue.claimed = Claim(generation, continued, self._monotonic_ms()) if continued else None
        match verdict.standing:
            case Standing.OURS:
                if verdict.is_new:  # nobody can have left an open upload
                    queue.swept_ms = self._monotonic_ms()
                self._sweep(queue)
                queue.ownership_checked(self._monotonic_ms(), self._wall_ms())
            case Standing.LOST:
                queue.is_claimed = False
                self._lose(queue, generation, Gap.of(GapKind.OWNER, "{seen}", seen=verdict.reason))
            case Standing.TAKEN:
                self._give_way(queue, verdict.reason)
        return verdict

    def _look_for_another(self, queue: DatabaseQueue, database: DatabaseRow, generation: str) -> Verdict:
        """Check, once early and once late after the claim, whether another daemon has written to the generation."""
        claimed = queue.claimed
        is_late = claimed is not None and claimed.is_old(self._monotonic_ms())
        if claimed is None or (claimed.is_seen and not is_late):
            return Verdict(Standing.OURS)
        is_over = is_late or claimed.generation != generation
        queue.claimed = None if is_over else replace(claimed, is_seen=True)
        if claimed.generation != generation:
            return Verdict(Standing.OURS)
        return self._ownership.look_for_another(database, generation, after=claimed.after)

    def _sweep(self, queue: DatabaseQueue) -> None:
        now_ms = self._monotonic_ms()
        if queue.swept_ms is None or now_ms - queue.swept_ms >= SWEEP_MS:
            wall_ms = self._wall_ms()
            abort_orphans(self._journal, self._storage, database_id=queue.database_id, name=queue.name, wall_ms=wall_ms)
            queue.swept_ms = now_ms

    def merge_waiting(self, queue: DatabaseQueue) -> None:
        """Merge the pending objects of a queue that this thread has made busy. Raises StateError."""
        while True:
            rows = self._journal.pending(queue.database_id, limit=self._rows_max)
            size_max = queue.merge_size_max
            runs = crowded_runs([_waiting(row) for row in rows], count_min=self._crowd, size_max=size_max)
            try:
                for start, end in runs:
                    self._gathered(rows[start:end])
            except (MissingError, CorruptError):  # a row was dropped meanwhile, or the upload reports the damage
                return
            if not runs:
                return

    def _send_first(self, queue: DatabaseQueue, rows: list[ObjectRow], *, is_urgent: bool, looked: bool) -> QueueResult:
        run = head_run([_waiting(row) for row in rows], size_max=queue.merge_size_max)
        left = sum(row.size for row in rows)
        unpaced = is_urgent or run.full or run.count == self._rows_max or rows[0].id <= queue.urgent_upto
        tried = rows[0].state is ObjectState.BEGUN and (
            rows[0].id <= self._resumed_upto or rows[0].id == queue.tried_id
        )
        if not tried and not queue.take_token(self._monotonic_ms()) and not unpaced:
            return QueueResult(next_id=rows[0].id, bytes_left=left, reached_storage=looked)
        try:
            row = self._gathered(rows[: run.count])
            if run.count == self._rows_max and not run.full:  # the next drain may add rows
                return QueueResult(next_id=row.id, bytes_left=left, reached_storage=looked)
            self._send(queue, row, tried=tried)
        except MissingError:  # dropped meanwhile
            return QueueResult(next_id=_NEXT_UNKNOWN, reached_storage=looked)
        except CorruptError as error:
            if tried or not self._rewind(queue, rows[0], str(error)):
                self._lose(queue, rows[0].generation, Gap.of(GapKind.DAMAGED, "{problem}", problem=str(error)))
            return QueueResult(next_id=_NEXT_UNKNOWN, reached_storage=looked)
        except ImpossibleError as error:
            self._lose(queue, rows[0].generation, Gap.of(GapKind.REFUSED, "{problem}", problem=str(error)))
            return QueueResult(next_id=_NEXT_UNKNOWN, reached_storage=True)
        behind = rows[run.count :]
        next_id = behind[0].id if behind else _NEXT_UNKNOWN if len(rows) == self._rows_max else None
        return QueueResult(next_id=next_id, bytes_left=left - row.size, reached_storage=True)

    def _gathered(self, rows: Sequence[ObjectRow]) -> ObjectRow:
        """Return one row for all of these, which are merged. Raises MissingError if one was dropped meanwhile."""
        if len(rows) == 1:
            return rows[0]
        keys = [key for row in rows if isinstance(key := parse_key(row.key), SegmentKey)]
        return self._journal.merge(rows, format_key(merged_key(keys)))

    def _send(self, queue: DatabaseQueue, row: ObjectRow, *, tried: bool) -> None:
        if row.state is ObjectState.SPOOLED or tried:
            self._journal.begun([row.id], self._wall_ms())
        queue.tried_id = row.id
        key = folder_key(queue.name, row.key)
        size_max = queue.merge_size_max
        try:
            send(self._journal, self._storage, row, key=key, tried=tried, before_body=self._before_body)
        except TransientError:
            queue.merge_size_max = size_max_after(row.size, size_max=size_max, is_stored=False)
            raise
        queue.merge_size_max = size_max_after(row.size, size_max=size_max, is_stored=True)
        queue.uploads_since_look += 1
        queue.rewinds = 0
        level = queue.level(self._monotonic_ms())
        if self._journal.stored_deferred(row, now_ms=self._wall_ms(), tokens=level):
            get_logger(database=queue.name).debug("object_stored", key=row.key, size=row.size)
            self._events.on_stored(row)

    def _rewind(self, queue: DatabaseQueue, row: ObjectRow, reason: str) -> bool:
        """Have the follower read again what is spooled from ``row`` on, none of which was sent."""
        if queue.rewinds >= REWINDS_MAX or not self._journal.rewind(row):
            return False
        queue.rewinds += 1
        self._events.on_rewound(queue.database_id, reason)
        return True

    def _lose(self, queue: DatabaseQueue, generation: str, gap: Gap) -> None:
        was_current = self._journal.lose_generation(queue.database_id, generation, gap, self._wall_ms())
        log = get_logger(database=queue.name)
        log.warning("generation_lost", generation=generation, kind=str(gap.kind), reason=gap.reason)
        if was_current:
            self._events.on_generation_lost(queue.database_id, gap)

    def _give_way(self, queue: DatabaseQueue, reason: str) -> None:
        remedy = f"stop one of the two; to go on here, in a new generation: walsyncd takeover {queue.name}"
        now_ms = self._wall_ms()
        self._journal.note_state(queue.database_id, DatabaseState.DEGRADED, reason, remedy, now_ms)
        self._journal.note_error(queue.database_id, reason, now_ms)
        get_logger(database=queue.name).error("database_taken", reason=reason, remedy=remedy)


def _waiting(row: ObjectRow) -> Waiting:
    begun = row.state is not ObjectState.SPOOLED
    key = None if begun else parse_key(row.key)  # begun rows are never merged
    segment = key if isinstance(key, SegmentKey) else None
    return Waiting(segment, row.size, begun=begun)
