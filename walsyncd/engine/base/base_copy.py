"""Copies one base into storage: read the file range by range, send parts as they fill, complete the object.

Nothing is locked and no quiet moment is needed: pages that change during the copy are in the frames that are followed
meanwhile. A part's bytes stay in memory until the store has the part. A part's row is durable before the part is sent,
so an interrupted copy continues with the first missing part.

A copy never keeps its thread waiting. A copy is a sequence of steps, each of which handles one range or one answer, and
reports after each step what it waits for (``CopyWait``). So one thread interleaves several copies
(``engine.base.copy_queue``).
"""

from __future__ import annotations

import hashlib
import math
import random
import secrets
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

import structlog

from walsyncd.adapters.files.source import OpenFile
from walsyncd.adapters.journal.journal import Journal, ObjectRow, PartRow
from walsyncd.adapters.storage.interface import Storage, StoredPart
from walsyncd.core.send.backoff import delay_s
from walsyncd.core.send.multipart import Listed, Part, adopt
from walsyncd.core.send.refused_request import Refused, refused_wait_s
from walsyncd.core.stored.base import (
    BASE_BYTES_MAX,
    FrameCompressor,
    PackedPart,
    Packer,
    format_ranges,
    parse_ranges,
    placed,
    shape_of,
    whole_body,
)
from walsyncd.core.stored.layout import ID_METADATA, BaseKey, format_key
from walsyncd.core.stored.manifest import Range
from walsyncd.core.stored.position import Position
from walsyncd.engine.base.base_plan import BasePlan
from walsyncd.errors import CorruptError, MissingError, RefusedError, StateError, TransientError, WalsyncdError

TOLD_ATTEMPTS = 3  # a single failed request is not worth a report
REFUSALS_MAX = 2  # as for segments: a store that refuses parts which it lists disagrees with us about the upload

T = TypeVar("T")
_log = structlog.get_logger()


class AbandonedError(WalsyncdError):
    """The base has become worthless: the generation ended, the file changed, or the daemon stops."""


@dataclass(frozen=True, slots=True)
class FinishedBase:
    """A base object in storage."""

    row: ObjectRow
    plan: BasePlan
    size: int
    etag: str
    ranges: tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class CopyWait:
    """The wait of a base until its next step: until ``answer`` or ``until_s`` (monotonic), whichever is first."""

    answer: Future[Any] | None = None
    until_s: float = 0.0

    def holds(self, now_s: float) -> bool:
        """Whether the base still has to wait."""
        return now_s < self.until_s and not (self.answer is not None and self.answer.done())


Steps: TypeAlias = Generator[CopyWait, None, T]


@dataclass(frozen=True, slots=True)
class CopyContext:
    """What a base copy works with.

    ``submit`` runs a task in the uploads' pool once the database is ours to write and the task's bytes may be sent.

    ``go_on`` raises AbandonedError when the copy is pointless. ``in_flight_max`` limits the parts that are in flight,
    and in memory, besides the part being filled. All bases under way share ``compressor``. ``took`` gets what was read.

    ``took_all`` means that ``took`` must get every byte of the object, once and in order. So a base that an earlier run
    began is read again, and a part that the store has is kept only if packing it again gives the same bytes.

    ``run_id`` is the run that claims the database before the first part. It is noted with the base's row.
    """

    journal: Journal
    storage: Storage
    submit: Callable[[int, Callable[[], object], int], Future[Any]]
    in_flight_max: Callable[[], int]
    go_on: Callable[[], None]
    now_ms: Callable[[], int]
    compressor: FrameCompressor
    took: Callable[[int, bytes], None] = lambda _offset, _content: None
    took_all: bool = False
    run_id: str = ""

    def retry_until_answered(
        self, database_id: int, launch: Callable[[], Future[T]], first: Future[T] | None = None
    ) -> Steps[T]:
        """Launch a request again and again until the store answers. Raises an error that waiting can't fix.

        ``first`` is a request that was launched already. The database's status reports an error that persists.
        """
        attempt, refused, told = 0, False, False
        while True:
            self.go_on()
            attempt += 1
            answer = first or launch()
            first = None
            yield CopyWait(answer, math.inf)
            try:
                result = answer.result()
            except CancelledError as error:
                raise AbandonedError("the daemon stops") from error
            except TransientError as error:
                wait_s = delay_s(attempt, fraction=random.random())  # noqa: S311 - jitter
                if attempt >= TOLD_ATTEMPTS:
                    told = True
                    self._tell(database_id, f"its base is not stored yet: {error.message}")
            except RefusedError as error:
                told = True
                self._tell(database_id, f"storage refuses its base: {error}")
                if not refused:
                    _log.warning("base_refused", reason=error.message, remedy=error.hint)
                refused, wait_s = True, refused_wait_s(Refused.BASE)
            else:
                if told:
                    self._tell(database_id, "")
                return result
            yield CopyWait(until_s=time.monotonic() + wait_s)

    def _tell(self, database_id: int, words: str) -> None:
        with suppress(StateError):  # our own disk failed; the next attempt reports the error again
            self.journal.note_error(database_id, words, self.now_ms())


class BaseCopy:
    """Copies ``file`` into the object of ``row``; ``name`` is the database's folder."""

    def __init__(self, world: CopyContext, *, name: str, file: OpenFile, plan: BasePlan, row: ObjectRow) -> None:
        self._world = world
        self._key = f"{name}/{row.key}"
        self._file = file
        self._plan = plan
        self._row = row
        self._in_flight: deque[tuple[PackedPart, Future[str]]] = deque()
        self._replaced = False
        """A part that the store had acknowledged was sent again, with the file's present content."""
        self._is_unread = world.took_all and row.upload_id is not None
        """An earlier run has read what the object holds, and this run has not read it yet."""

    def run(self) -> Steps[FinishedBase]:
        """Copy what is missing and complete the object. Raises AbandonedError or CorruptError if that is impossible."""
        if self._row.upload_id is None and self._plan.shape.file_size < self._plan.shape.part_size:
            return (yield from self._put_whole())
        try:
            if self._row.upload_id is None:
                yield from self._open()
            else:
                yield from self._adopt(self._row.upload_id)
            yield from self._send_rest()
            etag = yield from self._complete()
        except MissingError as error:
            etag = yield from self._completed_before(error)
        return self._finished(etag)

    def _ask(self, request: Callable[[], T], size: int = 0) -> Steps[T]:
        """Return the store's answer to a request, which is made when the database is ours to write."""
        world, database_id = self._world, self._row.database_id
        return world.retry_until_answered(database_id, lambda: world.submit(database_id, request, size))

    # -- a small base: one request ----------------------------------------------------------------------------------

    def _put_whole(self) -> Steps[FinishedBase]:
        part = whole_body((self._read(*place) for place in self._plan.shape.ranges()), self._world.compressor)
        metadata = {ID_METADATA: hashlib.sha256(part.body).hexdigest()}
        storage = self._world.storage
        etag = yield from self._ask(lambda: storage.put(self._key, part.body, metadata=metadata), len(part.body))
        # This upload can't be resumed, so the journal notes only with the manifest that the base is stored.
        return FinishedBase(self._row, self._plan, len(part.body), etag, part.ranges)

    # -- a large base: parts ----------------------------------------------------------------------------------------

    def _open(self) -> Steps[None]:
        world, row = self._world, self._row
        metadata = {ID_METADATA: row.token}
        upload_id = yield from self._ask(lambda: world.storage.create_upload(self._key, metadata=metadata))
        if not world.journal.upload_opened(row.id, upload_id, self._plan.shape.part_size):
            yield from self._ask(lambda: world.storage.abort_upload(self._key, upload_id))
            raise AbandonedError(f"{self._key} was dropped from the journal")
        self._upload_id = upload_id

    def _adopt(self, upload_id: str) -> Steps[None]:
        """Keep the parts that the store has of an upload, and send the missing ones again.

        Raises MissingError if the store does not know the upload any more.
        """
        world, row = self._world, self._row
        self._upload_id = upload_id
        listed = yield from self._ask(lambda: world.storage.list_parts(self._key, upload_id))
        parts = world.journal.parts(row.id)
        known = [Listed(part.number, part.size, part.etag) for part in listed]
        ours = adopt([Part(part.number, part.size, part.md5, part.etag) for part in parts], known)
        missing = 0
        for part, held in zip(parts, ours, strict=True):
            if held.etag is not None and not self._is_unread:
                world.journal.part_stored(row.id, part.number, held.etag)
                continue
            again = self._packed_again(part, last=part.number == len(parts))
            if held.etag is not None and _md5(again.body) == part.md5:
                world.journal.part_stored(row.id, part.number, held.etag)
                yield CopyWait()
                continue
            missing += 1
            self._replaced |= part.etag is not None
            yield from self._send(again)
        self._is_unread = False
        _log.info("base_resumed", key=self._key, parts_kept=len(parts) - missing, parts_sent_again=missing)

    def _packed_again(self, part: PartRow, *, last: bool) -> PackedPart:
        ranges = parse_ranges(part.detail)
        shape = self._plan.shape
        raw = (self._read(r.offset, r.length) for r in ranges)
        whole = replace(whole_body(raw, self._world.compressor, reached=ranges[0].offset), number=part.number)
        at_end = last and ranges[-1].offset + ranges[-1].length == shape.file_size
        if at_end and len(whole.body) <= shape.part_size:
            return whole
        if (padded := whole.padded(shape.part_size)) is None:
            raise AbandonedError(f"part {part.number} of {self._key} no longer fits its size")
        return padded

    def _send_rest(self) -> Steps[None]:
        parts, reached = self._world.journal.parts(self._row.id), 0
        if parts:
            reached = (last := parse_ranges(parts[-1].detail)[-1]).offset + last.length
        shape = self._plan.shape
        packer = Packer(shape, self._world.compressor, first=len(parts) + 1, reached=reached)
        while packer.reached < shape.file_size:
            length = min(packer.wanted(), shape.file_size - packer.reached)
            full = packer.add(content := self._read(at := packer.reached, length, counts=False))
            self._world.took(at, content[: packer.reached - at])  # nothing if the packer wants a shorter range instead
            if full is not None:
                yield from self._send(full)
            yield CopyWait()
        if (rest := packer.finish()) is not None:
            yield from self._send(rest)
        yield from self._await_all()

    def _read(self, offset: int, length: int, *, counts: bool = True) -> bytes:
        """Read a raw range. The part that a checkpoint has cut off the file meanwhile is filled with zeros."""
        self._world.go_on()
        content = self._file.pread(offset, length).ljust(length, b"\0")
        if counts:
            self._world.took(offset, content)
        return content

    def _send(self, part: PackedPart) -> Steps[None]:
        world, row = self._world, self._row
        while len(self._in_flight) >= world.in_flight_max():
            yield from self._await_oldest()
        world.journal.part_begun(row.id, part.number, len(part.body), _md5(part.body), format_ranges(part.ranges))
        self._in_flight.append((part, self._launch(part)))

    def _launch(self, part: PackedPart) -> Future[str]:
        storage, upload_id = self._world.storage, self._upload_id
        return self._world.submit(
            self._row.database_id,
            lambda: storage.upload_part(self._key, upload_id, part.number, part.body),
            len(part.body),
        )

    def _await_all(self) -> Steps[None]:
        while self._in_flight:
            yield from self._await_oldest()

    def _await_oldest(self) -> Steps[None]:
        """Wait for the oldest part in flight. A part that failed is sent again from here, not from the pool."""
        part, future = self._in_flight.popleft()
        etag = yield from self._world.retry_until_answered(self._row.database_id, lambda: self._launch(part), future)
        self._world.journal.part_stored(self._row.id, part.number, etag)

    def _complete(self) -> Steps[str]:
        """Complete the upload and return the object's ETag.

        If the store refuses the parts, they are compared with its list before a retry.
        """
        for _ in range(REFUSALS_MAX):
            try:
                return (yield from self._complete_once())
            except CorruptError as error:
                _log.info("base_parts_refused", key=self._key, reason=error.message)
            yield from self._adopt(self._upload_id)
            yield from self._await_all()
        return (yield from self._complete_once())

    def _complete_once(self) -> Steps[str]:
        world = self._world
        parts = [StoredPart(part.number, part.size, part.etag or "") for part in world.journal.parts(self._row.id)]
        return self._ask(lambda: world.storage.complete_upload(self._key, self._upload_id, parts))

    def _finished(self, etag: str) -> FinishedBase:
        parts = self._world.journal.parts(self._row.id)
        size = sum(part.size for part in parts)
        self._world.journal.base_stored(self._row.id, etag=etag, size=size)
        return FinishedBase(self._row, self._plan, size, etag, ranges_of(parts, self._plan))

    def _completed_before(self, error: MissingError) -> Steps[str]:
        """Return the object's ETag if the upload is gone because it was completed and the answer was lost.

        A part that was replaced after that completion makes the object useless: the object may hold the previous part,
        and its ranges are then not where the journal says. If all parts must be taken in, a part that was not taken in
        makes the object useless, too.
        """
        found = yield from self._ask(lambda: self._world.storage.head(self._key))
        is_other = found is None or found.metadata.get(ID_METADATA) != self._row.token
        if found is None or is_other or self._replaced or self._is_unread:
            raise AbandonedError(f"the store gave up the upload of {self._key}") from error
        return found.etag


def _md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def ranges_of(parts: Sequence[PartRow], plan: BasePlan) -> tuple[Range, ...]:
    """Return all ranges of a base, as its parts' rows give them."""
    size = plan.shape.part_size
    return tuple(
        placement for part in parts for placement in placed(parse_ranges(part.detail), part=part.number, part_size=size)
    )


def begin_base(
    world: CopyContext, *, database_id: int, start: Position, file: OpenFile, boot_id: str
) -> tuple[BasePlan, ObjectRow]:
    """Note a new base in the journal, under a key of its own. Raises RefusedError if the file is too large."""
    identity = file.identity()
    if identity.size > BASE_BYTES_MAX:
        raise RefusedError(
            f"copy {file.path}: its {identity.size} bytes are more than one object in S3 can hold",
            hint="a file of that size is sparse or damaged: du shows what it really takes",
        )
    plan = BasePlan(
        start.generation,
        start.epoch,
        start.frame,
        shape_of(identity.size),
        identity.device,
        identity.inode,
        identity.birth_ns,
        boot_id,
    )
    key = format_key(BaseKey(start.generation, start.epoch, start.frame, secrets.token_hex(4)))
    row = world.journal.base_begun(
        database_id,
        generation=start.generation,
        key=key,
        token=secrets.token_hex(16),
        plan=plan.to_json(),
        part_size=plan.shape.part_size,
        epoch=start.epoch,
        frame=start.frame,
        now_ms=world.now_ms(),
        run_id=world.run_id,
    )
    return plan, row
