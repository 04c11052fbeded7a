"""Continues replicas that another daemon has left (``core.stored.owner``), if this journal has no generation yet.

A database that was restored on another host continues in its old generation, and needs no new base. One thread examines
the databases one at a time, small files first, so that a large file delays only others of its size. A database that
waits begins a new generation, with a base, if nothing moves for a while or if its turn does not come
(``threads.examination``):

1. *ask*: ``owner.json`` is read. If it does not release a generation, or not the newest one, a new generation begins.
2. *read*: the page map of the head is made from the replica (`replica_map`), and from those parts of the file that have
   the same bytes. The last object of the generation must end at the head.
3. *take*: ``owner.json`` is replaced by our own if it has not changed since it was read. Nothing was written after the
   release, so the objects that were read are still all objects of the generation.
4. *continue*: one transaction of the journal takes in the head, the base and the map, with a gap after the head. The
   follower bridges this gap as it bridges any other: a scan finds what the file holds, however the file came there. If
   the file is equal to the head, nothing is bridged. If it was restored to an earlier moment, or was written since, the
   bridge holds the pages that differ.

Whatever fails, a new generation begins, and the log says why.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import structlog

from walsyncd.adapters.files.source import OpenFile
from walsyncd.adapters.journal.journal import DatabaseRow, GenerationBegun, GenerationContinued, Journal
from walsyncd.adapters.journal.page_map_file import PageMapWriter
from walsyncd.adapters.storage.interface import Storage
from walsyncd.adapters.storage.paced_reads import PacedReads
from walsyncd.core.follow.follow_state import FollowState, Stream, format_follow_state
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.limits import DEFAULT_LIMITS, Limits
from walsyncd.core.restore.coverage import FramesKey
from walsyncd.core.restore.plan import Head, Plan
from walsyncd.core.stored.layout import SegmentKey, WholeKey, format_key
from walsyncd.core.stored.position import generation_time
from walsyncd.engine.follow.file_facts import file_facts
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.restore.planner import REPLANS_MAX, find_plan, manifest_of
from walsyncd.engine.restore.replica import Replica
from walsyncd.engine.ship.ownership import Ownership, Release
from walsyncd.engine.threads.alarm import Alarm
from walsyncd.engine.threads.boundary import boundary
from walsyncd.engine.threads.examination import Examination
from walsyncd.engine.upkeep.drill import StoppedError
from walsyncd.engine.upkeep.replica_map import MapMade, make_replica_map
from walsyncd.errors import MissingError, RefusedError, TransientError, VanishedError, WalsyncdError

FETCH_BYTES_PER_S_MAX = 1 << 40  # only the configuration limits the rate: nothing is shipped until the fetch is done
SCAN_BYTES_PER_S = 64 << 20  # the rate of all scans (``engine.content.scan_queue``)
GATHER_S = 0.2  # the follower asks within one round for all databases that were moved together
MAP_SUFFIX = ".continued"
OPEN_MIN = 64  # this many examinations are kept before the finished ones are dropped
# A larger replica is not continued. A database that was restored to a much earlier moment begins with a base.
PAGES_MIN, TIMES_LARGER = 1 << 17, 8

_log = structlog.get_logger()


class _NotContinuedError(WalsyncdError):
    """The replica can't be continued; the message says why."""


class Continuations:
    """Continues replicas. ``resume`` has the follower load what the journal has of a database.

    ``interrupt`` runs it in the follower's thread. ``map_writer`` makes the file of a page map from a row id, a page
    size and a suffix.
    """

    def __init__(
        self,
        journal: Journal,
        storage: Storage,
        ownership: Ownership,
        *,
        map_writer: Callable[[int, int, str], PageMapWriter],
        interrupt: Callable[[FollowedDatabase, Callable[[FollowedDatabase], object]], None],
        resume: Callable[[FollowedDatabase], object],
        boot_id: str,
        bytes_per_s_max: float | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._limits = limits
        self._journal = journal
        self._ownership = ownership
        self._map_writer = map_writer
        self._interrupt = interrupt
        self._resume = resume
        self._boot_id = boot_id
        self._alarm = Alarm()
        self._storage = PacedReads(storage, bytes_per_s_max or FETCH_BYTES_PER_S_MAX, self._pause)
        self._lock = threading.Lock()
        self._asked: list[tuple[int, int, FollowedDatabase]] = []
        self._numbers = itertools.count()
        self._moved_s = 0.0
        self._open: list[Examination] = []
        self._open_max = OPEN_MIN

    def examine(self, tracked: FollowedDatabase) -> None:
        """Make the database wait with a new generation until it is known whether an existing one is continued."""
        examination = Examination(
            lambda: self._ask(tracked),
            lambda: _size_of(tracked) > 0,
            moved_s=lambda: self._moved_s,
            limits=self._limits,
        )
        with self._lock:
            if len(self._open) >= self._open_max:  # dropping at each call would be slow if thousands are added at once
                self._open = [each for each in self._open if not each.is_over]
                self._open_max = max(OPEN_MIN, 2 * len(self._open))
            self._open.append(examination)
        examination.is_stopped = self._alarm.is_stopped
        tracked.examination = examination

    def stop(self) -> None:
        """End the thread. Databases that wait begin no generation, and the next run asks again."""
        with self._lock:
            for each in self._open:
                each.is_stopped = True
        self._alarm.stop()

    def run(self) -> None:
        """Run the thread until ``stop``."""
        while self._alarm.wait():
            while (tracked := self._next()) is not None and not self._alarm.is_stopped:
                self._answer(tracked)
                self._moved_s = time.monotonic()

    def _ask(self, tracked: FollowedDatabase) -> None:
        size = 0
        with suppress(WalsyncdError):  # a file that can't be read is reported when its turn comes
            size = _size_of(tracked)
        with self._lock:
            heapq.heappush(self._asked, (size, next(self._numbers), tracked))
        self._alarm.wake()

    def _next(self) -> FollowedDatabase | None:
        """Return the database with the smallest file. A large one waits for smaller ones of the follower's round."""
        with self._lock:
            smallest = self._asked[0][0] if self._asked else 0
        if smallest > GATHER_S * SCAN_BYTES_PER_S:  # reading this file takes longer than the wait
            self._alarm.pause(GATHER_S)
        with self._lock:
            return heapq.heappop(self._asked)[2] if self._asked else None

    def _answer(self, tracked: FollowedDatabase) -> None:
        examination = tracked.examination
        if examination is None or tracked.mailbox.dismissed:
            return
        continued = False
        try:
            with boundary("continue a replica", passes=(StoppedError,), database=tracked.name):
                continued = self._continue(tracked, examination)
        except StoppedError:
            return
        except WalsyncdError as error:
            _log.warning("generation_not_continued", database=tracked.name, reason=error.message)
        if continued:  # the follower must resume before it may begin a generation
            self._interrupt(tracked, self._resume)
        examination.end()
        if not continued:
            self._interrupt(tracked, lambda _tracked: None)

    def _continue(self, tracked: FollowedDatabase, examination: Examination) -> bool:
        """Continue the released generation. Returns False if none was released, or if the database no longer waits."""
        row = self._journal.database_by_id(tracked.row_id)
        try:
            release = self._ownership.released(row)
        except (TransientError, RefusedError) as error:
            _log.info("owner_not_read", database=tracked.name, reason=error.message)
            return False
        if release is None or not examination.begin():
            return False
        began_s = time.monotonic()
        generation, owner = release.owner.released, release.owner
        _log.info("continuation_began", database=tracked.name, generation=generation, left_by=str(owner))
        for attempt in range(1, REPLANS_MAX + 1):
            try:
                made = self._take(tracked, row, release)
                break
            except VanishedError:  # the earlier daemon's last deletions may have removed an object since it was listed
                if attempt == REPLANS_MAX:
                    raise
        seconds = round(time.monotonic() - began_s, 3)
        counts = {"pages": made.pages, "fetched_bytes": made.fetched_bytes, "seconds": seconds}
        _log.info("generation_continued", database=tracked.name, generation=generation, **counts)
        return True

    def _take(self, tracked: FollowedDatabase, row: DatabaseRow, release: Release) -> MapMade:
        replica = Replica(self._storage, row.name)
        plan = find_plan(replica, Head(), generation=release.owner.released)
        stream, last = _head(replica, plan)
        manifest = manifest_of(replica, plan)
        file = tracked.open()
        if file is None:
            raise MissingError(f"{tracked.path} does not exist")
        with file, self._map_writer(row.id, manifest.page_size, MAP_SUFFIX) as writer:
            pages_max = PAGES_MIN + TIMES_LARGER * file.size() // manifest.page_size
            made = make_replica_map(replica, plan, manifest, file, writer, pages_max=pages_max, read=self._read)
            # If we die after this, a generation of our own begins. It must be newer than the released one, whatever the
            # clock says.
            self._journal.note_last_generation(row.id, release.owner.released)
            if not self._ownership.take(row, release):
                raise _NotContinuedError("another daemon was faster, or the store does not honour conditional writes")
            self._journal.forget_kept(row.id)
            continued = GenerationContinued(
                self._begun(row, release, stream, file),
                epoch=last.epoch if last is not None else 0,
                frame=last.last if last is not None else 0,
                time_ms=stream.time_ms,
                stored_key=_last_key(replica, plan.generation),
                base_key=format_key(plan.base),
                base_ms=plan.base.time_ms,
                base_bytes=manifest.size,
                map_id=writer.map_id,
                page_size=manifest.page_size,
            )
            if not self._journal.continue_generation(continued):
                raise _NotContinuedError("another generation has begun")
        return made

    def _begun(self, row: DatabaseRow, release: Release, stream: Stream, file: OpenFile) -> GenerationBegun:
        """Return the generation's state after its head, with a gap. Only the file's identity is known about the gap."""
        owner = release.owner
        text = "{owner} left the replica, and what became of the database until it came here was not followed"
        facts = file_facts(file.identity(), self._boot_id, None).unknown()
        gap = Gap.of(GapKind.REPLACED, text, owner=str(owner))
        state = replace(FollowState(stream, None, stream.epoch, 0, facts), gap=gap)
        reason = f"continued from {owner}"
        began_ms = int(generation_time(owner.released).timestamp() * 1000)
        return GenerationBegun(row.id, owner.released, reason, format_follow_state(state), began_ms)

    def _read(self, size: int) -> None:
        self._pause(size / SCAN_BYTES_PER_S)

    def _pause(self, seconds: float) -> None:
        """Wait as the pace demands. Each call also shows the waiting databases that this thread makes progress."""
        self._moved_s = time.monotonic()
        if not self._alarm.pause(seconds):
            raise StoppedError


def _size_of(tracked: FollowedDatabase) -> int:
    """Return the size of the file in bytes, or 0 if it is not there."""
    file = tracked.open()
    if file is None:
        return 0
    with file:
        return file.size()


def _head(replica: Replica, plan: Plan) -> tuple[Stream, FramesKey | None]:
    """Return where the generation continues, at the start of an epoch, and the object with its last frame.

    The object is None if the generation has no frame. Raises _NotContinuedError if something is stored after the
    position that the plan reaches.
    """
    generation, reached = plan.generation, plan.reached.position
    keys = [each.key for each in replica.objects(generation)]
    frames = [key for key in keys if isinstance(key, SegmentKey | WholeKey)]
    last = max(frames, key=lambda key: (key.epoch, key.last), default=None)
    if last is None:
        if (reached.epoch, reached.frame) != (1, 0):
            raise _NotContinuedError(f"the last frame before {reached} is not known")
        return Stream(generation, time_ms=plan.reached.time_ms), None
    ends = {(last.epoch, last.last), (last.epoch + 1, 0)}  # the end of an epoch, and the start of the next epoch
    if (reached.epoch, reached.frame) not in ends:
        raise _NotContinuedError(f"{format_key(last)} is stored after {reached}, the last position of a restore")
    time_ms = max(last.time_ms, plan.reached.time_ms)
    return Stream(generation, last.epoch + 1, previous=last.last, time_ms=time_ms), last


def _last_key(replica: Replica, generation: str) -> str | None:
    """Return the key after which a listing of the segments shows only what was stored later."""
    frames = [each.key for each in replica.objects(generation) if isinstance(each.key, SegmentKey | WholeKey)]
    segments = [format_key(key) for key in frames if isinstance(key, SegmentKey)]
    return max(segments or map(format_key, frames), default=None)
