"""A -wal file with its -shm, and its index reads, which show how far an incarnation had come when the next one began.

An index read is a remembered read of the header of a wal-index in use. SQLite restarts a WAL only when all of it is
copied back. The process that copies its last frame then sets the size of the database (walCheckpoint calls ftruncate in
every version, even if the size stays the same). The process that writes the first frame of the next incarnation writes
the WAL's header before it. All of these are events. So if a commit came after an index read, and the incarnation is
over, the queue has these events after the index read, in this order:

1. A write to the WAL: the commit's frames. It can have come before the index read only if the frames were there
   already, after the last frame that the wal-index showed, or in a WAL that was begun with other salts, which the
   wal-index does not show before the first commit.
2. A write to the database: the checkpoint that copied the frames back.
3. A write to the WAL: the header of the next incarnation, if that incarnation holds a frame.

If these events did not follow an index read, the index read shows all that its incarnation ever held.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from walsyncd.adapters.files.inotify import Event, Kind
from walsyncd.adapters.files.source import (
    DatabaseLock,
    Liveness,
    OpenFile,
    Role,
    database_lock,
    is_checkpointing,
    liveness,
    open_file,
)
from walsyncd.core.follow.checkpoint_evidence import CheckpointEvidence
from walsyncd.core.follow.decision import CounterMark, ShmEvidence, may_go_on
from walsyncd.core.follow.first_wal import PairHistory
from walsyncd.core.follow.follow_state import SeenBesideWal
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.follow.restart import succeeds
from walsyncd.core.follow.write_trail import WriteTrail
from walsyncd.core.sqlite.wal import FRAME_HEADER_SIZE, WAL_HEADER_SIZE, Salts, parse_frame_header, parse_wal_header
from walsyncd.core.sqlite.walindex import WALINDEX_READ_SIZE, IndexHeader, parse_index_header
from walsyncd.engine.read_ahead.reading import ShownIndex
from walsyncd.errors import WalsyncdError

_SALTS, _BACKFILLED = slice(32, 40), slice(96, 100)  # of the wal-index's header (``core.sqlite.walindex``)
NEW_INDEX = "a new wal-index appeared beside the old WAL: somebody has removed the -shm file of a database in use"
CLOSED = "a process that had the database open for writing closed it, and by the order of events it was not SQLite"
UNTOLD = "the database was written through another name, or through a mapping: no event in its folder tells of it"
LATE_EVENT_MS = 200  # the event is queued after the write, which may take long: megabytes, on a busy machine
REMOVED = "the WAL was removed, and not as SQLite removes it when the last connection closes"

INDEX_READS_MAX = 4  # that of the last look, and that after the last write to the database; the others may be late


def note_trail(trail: WriteTrail, event: Event, drain: int) -> Gap | None:
    """Keep the order of events. Returns why this event was not caused by SQLite, or None if it may have been."""
    if event.role is Role.WAL or (event.role is Role.DATABASE and event.kind is not Kind.CLOSE_WRITE):
        trail.file_changed()
    if event.role is Role.JOURNAL:
        trail.journal_changed()
    match event.role, event.kind:
        case Role.WAL, Kind.CREATE:
            trail.wal_created()
        case Role.WAL, Kind.MODIFY:
            trail.wal_written()
        case Role.WAL, Kind.CLOSE_WRITE:
            trail.wal_closed()
        case Role.SHM, Kind.DELETE:
            trail.shm_deleted()
        case Role.SHM, Kind.CLOSE_WRITE:
            trail.shm_closed()
        case Role.SHM, Kind.CREATE | Kind.MOVED_TO if not trail.shm_seen():
            return Gap.of(GapKind.DOUBT, NEW_INDEX)
        case Role.SHM, Kind.MODIFY:
            trail.shm_seen()
        case Role.DATABASE, Kind.MODIFY:
            trail.database_written(drain)
        case Role.DATABASE, Kind.CLOSE_WRITE if not trail.database_closed() and trail.is_just_written(drain):
            return Gap.of(GapKind.DOUBT, CLOSED)
    return None


def frames_behind(wal: OpenFile, shm: OpenFile, index: IndexHeader) -> bool:
    """Whether frames of the same incarnation, or without salts, may come after the last frame that ``index`` shows.

    The wal-index is read again after that. If it shows another incarnation, such frames may be overwritten already.
    """
    if not index.page_size:
        return True
    offset = WAL_HEADER_SIZE + index.max_frame * (FRAME_HEADER_SIZE + index.page_size)
    found = parse_frame_header(wal.pread(offset, FRAME_HEADER_SIZE))
    now = parse_index_header(shm.pread(0, WALINDEX_READ_SIZE))
    if may_go_on(index, found.salts if found is not None else None, now):
        return True
    return not index.max_frame and is_begun(wal, index.salts)


def is_begun(wal: OpenFile, salts: Salts) -> bool:
    """Whether the WAL's header is not that of the previous incarnation. The incarnation ``salts`` has no frame yet.

    A connection that has never checkpointed begins the WAL with salts of its own, and publishes them only with its
    first commit.
    """
    header = parse_wal_header(wal.pread(0, WAL_HEADER_SIZE))
    return wal.size() > 0 if header is None else not succeeds(header.salts, salts)


def is_busy(database: Path, shm: OpenFile | None, *, own_only: bool) -> bool:
    """Whether a process copies the WAL back, or has the database for itself.

    Without a -shm, any lock on the database counts.
    """
    file = open_file(database, own_only=own_only)
    if file is None:
        return False
    with file:
        lock = database_lock(file)
    if shm is None:
        return lock is not DatabaseLock.NONE
    return lock is DatabaseLock.WRITER or is_checkpointing(shm)


# From how many of the above events have followed, to how many after a further write. Any other number stays the same.
_AFTER_WAL_WRITE = {0: 1, 2: 3}
_AFTER_DATABASE_WRITE = {1: 2}


class IndexRead:
    """One index read, and how many of the above events have followed it. Create it before the wal-index is read."""

    def __init__(self) -> None:
        self.index: IndexHeader | None = None
        self._followed_by = 0
        self._moving_followed_by = 1
        """How many events have followed if a commit's frames were there before it began. ``saw`` tells if they were."""

    def saw(self, index: IndexHeader, *, moving: bool) -> None:
        """Take in what the wal-index showed. ``moving``: the WAL held frames after the last frame of ``index``."""
        self.index = index
        if moving:
            self._followed_by = self._moving_followed_by

    def wal_written(self) -> None:
        """Take in a write to the WAL."""
        self._count(_AFTER_WAL_WRITE)

    def database_written(self) -> None:
        """Take in a write to the database."""
        self._count(_AFTER_DATABASE_WRITE)

    def _count(self, after: Mapping[int, int]) -> None:
        self._followed_by = after.get(self._followed_by, self._followed_by)
        self._moving_followed_by = after.get(self._moving_followed_by, self._moving_followed_by)

    def shows_all(self, *, followed: bool) -> bool:
        """Whether no commit came after this index read, provided that its incarnation is over.

        ``followed``: the next incarnation holds a frame.
        """
        return self._followed_by < (3 if followed else 2)


class IndexReads:
    """The last index reads of one -shm. Thread-safe. The caller reports every event in queue order."""

    def __init__(self) -> None:
        self.due = True
        """Whether the database was written since the last index read."""
        self._begun: dict[bool, IndexRead] = {}  # the index read of a look, and that of a deferred look
        self._taken: deque[IndexRead] = deque(maxlen=INDEX_READS_MAX)
        self._lock = threading.Lock()

    def add(self, index: IndexHeader, *, moving: bool) -> None:
        """Add a complete index read. The caller keeps events from being taken in meanwhile."""
        index_read = IndexRead()
        index_read.saw(index, moving=moving)
        with self._lock:
            self._taken.append(index_read)

    def begin(self, *, is_put_off: bool = False) -> IndexRead:
        """Begin an index read, for a look or for a look that ``is_put_off``. There is one of each kind at a time."""
        with self._lock:
            index_read = self._begun[is_put_off] = IndexRead()
            return index_read

    def take(self, index_read: IndexRead, index: IndexHeader, *, moving: bool) -> None:
        """Keep an index read that saw ``index``. ``moving`` is what ``frames_behind`` returned after that."""
        with self._lock:
            index_read.saw(index, moving=moving)
            for is_put_off, begun in self._begun.items():
                if begun is index_read:
                    del self._begun[is_put_off]
                    self._taken.append(index_read)
                    return

    def database_written(self) -> None:
        """Take in a write to the database, perhaps by a checkpoint."""
        with self._lock:
            self.due = True
            for index_read in self._all():
                index_read.database_written()

    def wal_written(self) -> None:
        """Take in a write to the WAL."""
        with self._lock:
            for index_read in self._all():
                index_read.wal_written()

    def forget(self) -> None:
        """Forget all index reads, because events may be lost."""
        with self._lock:
            self.due = True
            self._begun.clear()
            self._taken.clear()

    def last(self, *, followed: bool) -> tuple[IndexHeader, ...]:
        """Return the headers of the index reads that show all of their incarnation, provided that it is over."""
        with self._lock:
            good = (index_read.index for index_read in self._taken if index_read.shows_all(followed=followed))
            return tuple(index for index in good if index is not None)

    def _all(self) -> list[IndexRead]:
        return [*self._taken, *self._begun.values()]


@dataclass(slots=True)
class Drains:
    """How often the event queue was drained. It is counted before each drain begins."""

    count: int = 0


@dataclass(slots=True)
class WalPair:
    """One -wal file and the -shm that goes with it."""

    wal: OpenFile
    shm: OpenFile | None = None
    serial: int = 0
    """Counts the -shm descriptors, so that a mark knows its own."""
    announced: bool = False
    """The CREATE event of the -wal was seen."""
    known_since: bool = False
    """The -wal was announced, and nothing but a WAL changed the database since the database's content was known."""
    index_rebuilds: int = 0
    """How many events came after which the -shm may count from 0 again. Unlike a flag, a number loses no event."""
    taken_from_file: int | None = None
    """The value of ``index_rebuilds`` when pages were last taken from the file (``core.follow.overwritten``). Only the
    follower writes it."""
    closed: int = 0
    """How many CLOSE_WRITE events of the -shm there were."""
    closed_at_write: int = 0
    """The value of ``closed`` when the -wal or the database was last written."""
    written: bool = False
    """The -wal was written since its CREATE."""
    checkpointed: bool = False
    """The database was written since the CREATE of the -wal."""
    overwritten: bool = False
    """The -wal was written after the database was, so frames of this WAL may have been overwritten or cut off."""
    uncounted: bool = False
    """The -shm may have begun to count from 0 after the first frame, so iChange may lack what was overwritten."""
    index_reads: IndexReads = field(default_factory=IndexReads)
    checkpoints: CheckpointEvidence = field(default_factory=CheckpointEvidence)
    doubt: Gap | None = None
    """Why something other than SQLite may have written to the files of this WAL."""
    shm_gone: bool = False
    ended: bool = False
    orderly: bool = False
    """The WAL ended as SQLite ends it (``write_trail``)."""
    old_descriptors: list[OpenFile] = field(default_factory=list)
    """Earlier -shm files, which the follower may still be reading."""

    def evidence(self, mark: CounterMark) -> ShmEvidence:
        """Return the events of the -shm since the mark was set."""
        return ShmEvidence(index_rebuilds=self.index_rebuilds != mark.index_rebuilds, closed=self.closed != mark.closed)

    def history(self) -> PairHistory:
        """Return what the events have told so far."""
        return PairHistory(
            announced=self.announced,
            known_since=self.known_since,
            written=self.written,
            overwritten=self.overwritten,
            uncounted=self.uncounted,
            ended=self.ended,
            orderly=self.orderly,
        )

    def lose_events(self) -> None:
        """Take in that events were lost, so that anything may have happened."""
        self.index_rebuilds += 1
        self.written = self.checkpointed = self.overwritten = self.uncounted = True
        self.closed_at_write = -1
        self.closed += 1  # there may be one among the lost events
        self.index_reads.forget()
        self.checkpoints.forget()

    def begin_anew(self, mark: CounterMark) -> bool:
        """Treat this pair, whose -wal is empty, as new, unless -wal or database were written after the -shm was closed.

        Returns True if the pair is new: all processes that used the wal-index are gone since ``mark``, and no process
        without a wal-index wrote after them. The caller keeps events from being taken in meanwhile.
        """
        if self.closed == mark.closed or self.closed_at_write != mark.closed:
            return False
        self.known_since = True
        self.written = self.checkpointed = self.overwritten = self.uncounted = False
        return True

    def may_be_recovered(self) -> bool:
        """Whether somebody may have recovered the WAL since pages were last taken from the file."""
        return self.taken_from_file != self.index_rebuilds

    def live_index(self) -> IndexHeader | None:
        """Return the wal-index header if a process uses the wal-index and the header is whole."""
        if self.shm is None or liveness(self.shm) is not Liveness.LIVE:
            return None
        return self.left_index()

    def read_index(self, *, is_watched: bool) -> None:
        """Remember what the wal-index shows now. The caller keeps events from being taken in meanwhile."""
        self.index_reads.due = False
        if self.shm is None or not is_watched:
            return
        with suppress(WalsyncdError):  # the follower's look will report it
            index = self.live_index()
            if index is not None:
                self.index_reads.add(index, moving=frames_behind(self.wal, self.shm, index))

    def end_index_read(self, begun: IndexRead | None, shown: ShownIndex | None, *, is_watched: bool) -> None:
        """End an index read with what was ``shown``. If that is None, the wal-index is read now."""
        if begun is None or shown is None:
            self.read_index(is_watched=is_watched)
        elif is_watched:
            self.index_reads.take(begun, shown.header, moving=shown.goes_on)

    def close(self) -> None:
        """Close the descriptors."""
        for file in (self.wal, self.shm, *self.old_descriptors):
            if file is not None:
                file.close()

    def judge_end(self, trail: WriteTrail) -> None:
        """Judge by the files and the events whether it is SQLite that deletes -wal now."""
        if self.shm_gone and self.shm is not None and self.shm.unlinked():
            index = parse_index_header(self.shm.pread(0, WALINDEX_READ_SIZE))
            is_copied_back = index is None or index.backfilled == index.max_frame  # a torn one is judged by the look
            self.orderly = trail.ends_with_index() and is_copied_back
        elif self.shm_gone:
            self.orderly = trail.ends_with_index() and trail.ends_copied_back()
        else:
            self.orderly = trail.ends_without_index(is_empty=not self.wal.size())
        if self.shm_gone and not self.orderly:
            self.doubt = self.doubt or Gap.of(GapKind.DOUBT, REMOVED)

    def left_index(self) -> IndexHeader | None:
        """Return the wal-index header that its last users left, or None if they deleted it or it is not whole."""
        if self.shm is None or not self.shm.still_named():
            return None
        return parse_index_header(self.shm.pread(0, WALINDEX_READ_SIZE))

    def check_file_at_birth(self, database: Path, trail: WriteTrail, *, own_only: bool) -> None:
        """Doubt a database that changed without an event before this WAL was created. Call this at the CREATE event.

        A later change may come from a checkpoint of this WAL, whose event is still to be read.
        """
        with suppress(WalsyncdError):  # the follower's look will report it
            file = open_file(database, own_only=own_only)
            if file is None:
                return
            with file:
                size, mtime_ns = file.size_and_mtime()
            born_ns = self.wal.identity().birth_ns
            if born_ns is not None and mtime_ns < born_ns and trail.is_untold((size, mtime_ns)):
                self.doubt = self.doubt or Gap.of(GapKind.DOUBT, UNTOLD)

    def check_file(self, seen: SeenBesideWal, told: tuple[int, int], trail: WriteTrail, now_ms: int) -> bool:
        """Doubt a change of the database that came without an event. Returns whether the event may still come."""
        untold_ms = trail.untold_ms((seen.size, seen.mtime_ns), now_ms, told=told)
        if untold_ms >= LATE_EVENT_MS:
            self.doubt = self.doubt or Gap.of(GapKind.DOUBT, UNTOLD)
        return 0 <= untold_ms < LATE_EVENT_MS

    def read_checkpoints(self, drains: Drains) -> tuple[bytes | None, bytes | None]:
        """Return salts and nBackfill of the wal-index, and its header. Torn values do no harm here."""
        if self.shm is None:
            return None, None
        header = self.shm.pread(0, WALINDEX_READ_SIZE)
        reading = header[_SALTS] + header[_BACKFILLED]
        self.checkpoints.read(drains.count, reading)
        return reading, header
