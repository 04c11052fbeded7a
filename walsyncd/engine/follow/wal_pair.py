"""IndexReads at the wal-index in use: how far an incarnation had come when it was left for the next one.

SQLite restarts a WAL only when all of it is copied back. Whoever copies its last frame sets the size of the database
then (walCheckpoint calls ftruncate in every version, be the size as it was), and whoever writes the first frame of the
next incarnation writes the WAL's header before. All of these are events. So if a commit came after a glance, and the
incarnation is over, the queue tells after the glance, in this order, of

1. a write to the WAL: its frames. It can have come before the glance only if they stood there already, behind the last
   one that the wal-index told of, or in a WAL that was begun with other salts, which it does not tell of before the
   first commit;
2. a write to the database: the checkpoint that copied them back;
3. a write to the WAL: the header of the next incarnation, if that holds a frame.

A glance that these did not follow shows all that its incarnation ever held.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from walsyncd.adapters.files.inotify import Event, Kind
from walsyncd.adapters.files.source import DatabaseLock, OpenFile, Role, database_lock, is_checkpointing, open_file
from walsyncd.core.follow.checkpoint_evidence import CheckpointEvidence
from walsyncd.core.follow.decision import CounterMark, ShmEvidence
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.follow.restart import succeeds
from walsyncd.core.follow.write_trail import WriteTrail
from walsyncd.core.sqlite.wal import FRAME_HEADER_SIZE, WAL_HEADER_SIZE, Salts, parse_wal_header
from walsyncd.core.sqlite.walindex import WALINDEX_READ_SIZE, IndexHeader, parse_index_header

_SALTS, _BACKFILLED = slice(32, 40), slice(96, 100)  # of the wal-index's header (``core.sqlite.walindex``)
NEW_INDEX = "a new wal-index appeared beside the old WAL: somebody has removed the -shm file of a database in use"
CLOSED = "a process that had the database open for writing closed it, and by the order of events it was not SQLite"
UNTOLD = "the database was written through another name, or through a mapping: no event in its folder tells of it"
LATE_EVENT_MS = 200  # the event is queued after the write: megabytes on a busy machine
REMOVED = "the WAL was removed, and not as SQLite removes it when the last connection closes"

GLANCES_MAX = 4  # the last look's, and that after the last write to the database; the others may be late


def note_trail(trail: WriteTrail, event: Event, drain: int) -> Gap | None:
    """Keep the order of events; why this one was not SQLite's doing, if that is so."""
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
    """Whether frames of its incarnation, or without salts, may stand behind the last one that ``index`` tells of.

    The wal-index is read again afterwards: in another incarnation they may be overwritten already.
    """
    if not index.page_size:
        return True
    offset = WAL_HEADER_SIZE + index.max_frame * (FRAME_HEADER_SIZE + index.page_size)
    head = wal.pread(offset, FRAME_HEADER_SIZE)
    salts = int.from_bytes(head[8:12], "big"), int.from_bytes(head[12:16], "big")
    now = parse_index_header(shm.pread(0, WALINDEX_READ_SIZE))
    if now is None or now.salts != index.salts:
        return True
    if not index.max_frame and is_begun(wal, index.salts):
        return True
    return len(head) == FRAME_HEADER_SIZE and salts in {index.salts, (0, 0)}


def is_begun(wal: OpenFile, salts: Salts) -> bool:
    """Whether the WAL's header is not the one of the incarnation before that of ``salts``, which has no frame yet.

    Whoever has never checkpointed begins it with salts of its own, which are published with its first commit only.
    """
    header = parse_wal_header(wal.pread(0, WAL_HEADER_SIZE))
    return wal.size() > 0 if header is None else not succeeds(header.salts, salts)


def is_busy(database: Path, shm: OpenFile | None, *, own_only: bool) -> bool:
    """Whether a process copies the WAL back, or has the database for itself; without a -shm: has any lock on it."""
    file = open_file(database, own_only=own_only)
    if file is None:
        return False
    with file:
        lock = database_lock(file)
    if shm is None:
        return lock is not DatabaseLock.NONE
    return lock is DatabaseLock.WRITER or is_checkpointing(shm)


class IndexRead:
    """One glance, and how much of the above has followed it. It begins before the wal-index is read."""

    def __init__(self) -> None:
        self.index: IndexHeader | None = None
        self._followed_by = 0

    def wal_written(self) -> None:
        """The WAL was written."""
        if self._followed_by in {0, 2}:
            self._followed_by += 1

    def database_written(self) -> None:
        """The database was written."""
        if self._followed_by == 1:
            self._followed_by = 2

    def shows_all(self, *, followed: bool) -> bool:
        """Whether no commit came after it, if its incarnation is over; ``followed`` by one that holds a frame."""
        return self._followed_by < (3 if followed else 2)


class IndexReads:
    """The last glances at one -shm; thread-safe. Told of every event in queue order."""

    def __init__(self) -> None:
        self.due = True
        """Whether the database was written since the last glance."""
        self._begun: IndexRead | None = None
        self._taken: deque[IndexRead] = deque(maxlen=GLANCES_MAX)
        self._lock = threading.Lock()

    def add(self, index: IndexHeader, *, moving: bool) -> None:
        """A whole glance, by somebody who keeps events from being told meanwhile."""
        index_read = IndexRead()
        index_read.index = index
        if moving:
            index_read.wal_written()
        with self._lock:
            self._taken.append(index_read)

    def begin(self) -> IndexRead:
        """A glance from now on; the follower has one at a time."""
        with self._lock:
            self._begun = IndexRead()
            return self._begun

    def take(self, index_read: IndexRead, index: IndexHeader, *, moving: bool) -> None:
        """Keep it: ``index`` was seen; ``moving``, seen after that: frames of its incarnation stand behind."""
        with self._lock:
            index_read.index = index
            if moving:
                index_read.wal_written()
            if index_read is self._begun:
                self._begun = None
                self._taken.append(index_read)

    def database_written(self) -> None:
        """The database was written, perhaps by a checkpoint."""
        with self._lock:
            self.due = True
            for index_read in self._all():
                index_read.database_written()

    def wal_written(self) -> None:
        """The WAL was written."""
        with self._lock:
            for index_read in self._all():
                index_read.wal_written()

    def forget(self) -> None:
        """Events may be lost."""
        with self._lock:
            self.due = True
            self._begun = None
            self._taken.clear()

    def last(self, *, followed: bool) -> tuple[IndexHeader, ...]:
        """What those show that show all of their incarnation, if that is over."""
        with self._lock:
            good = (index_read.index for index_read in self._taken if index_read.shows_all(followed=followed))
            return tuple(index for index in good if index is not None)

    def _all(self) -> list[IndexRead]:
        return [*self._taken, *([self._begun] if self._begun is not None else [])]


@dataclass(slots=True)
class Drains:
    """How often the event queue was drained; counted before each drain begins."""

    count: int = 0


@dataclass(slots=True)
class WalPair:
    """One -wal file and the -shm that goes with it."""

    wal: OpenFile
    shm: OpenFile | None = None
    serial: int = 0
    """Counts the -shm descriptors, so that a mark knows its own."""
    announced: bool = False
    """Its CREATE event was seen."""
    known_since: bool = False
    """Announced, and nothing but a WAL changed the database since its content was known."""
    index_rebuilds: int = 0
    """Events after which the -shm may be counting anew; events are counted, so that none is lost between threads."""
    closed: int = 0
    """CLOSE_WRITE events of the -shm."""
    closed_at_write: int = 0
    """What ``closed`` counted when the -wal or the database was last written."""
    written: bool = False
    """The -wal was written since its CREATE."""
    checkpointed: bool = False
    """The database was written meanwhile."""
    overwritten: bool = False
    """The -wal was written after that: frames of this life may have been overwritten or cut off."""
    uncounted: bool = False
    """The -shm may have begun to count anew after the first frame, so iChange may leave out what was overwritten."""
    index_reads: IndexReads = field(default_factory=IndexReads)
    checkpoints: CheckpointEvidence = field(default_factory=CheckpointEvidence)
    doubt: Gap | None = None
    """Why somebody else than SQLite may have written to the files of this WAL."""
    shm_gone: bool = False
    ended: bool = False
    orderly: bool = False
    """It ended as SQLite ends it (``write_trail``)."""
    old_descriptors: list[OpenFile] = field(default_factory=list)
    """Earlier -shm files, which the follower may still be reading."""

    def evidence(self, mark: CounterMark) -> ShmEvidence:
        """What the queue said of the -shm since the mark was set."""
        return ShmEvidence(index_rebuilds=self.index_rebuilds != mark.index_rebuilds, closed=self.closed != mark.closed)

    def close(self) -> None:
        """Let the descriptors go."""
        for file in (self.wal, self.shm, *self.old_descriptors):
            if file is not None:
                file.close()

    def judge_end(self, trail: WriteTrail) -> None:
        """-wal is deleted now: whether SQLite deleted it, by its files and the events."""
        if self.shm_gone and self.shm is not None and self.shm.unlinked():
            index = parse_index_header(self.shm.pread(0, WALINDEX_READ_SIZE))
            is_copied_back = index is None or index.backfilled == index.max_frame  # a torn one is the look's to judge
            self.orderly = trail.ends_with_index() and is_copied_back
        elif self.shm_gone:
            self.orderly = trail.ends_with_index() and trail.ends_copied_back()
        else:
            self.orderly = trail.ends_without_index(is_empty=not self.wal.size())
        if self.shm_gone and not self.orderly:
            self.doubt = self.doubt or Gap.of(GapKind.DOUBT, REMOVED)

    def look_at_file(self, database: Path, trail: WriteTrail, now_ms: int) -> bool:
        """Doubt a change of the database that no event tells of; whether one may still come."""
        file = open_file(database)
        if file is None:
            return False
        with file:
            identity = file.identity()
        untold_ms = trail.untold_ms((identity.size, identity.mtime_ns), now_ms)
        if untold_ms >= LATE_EVENT_MS:
            self.doubt = self.doubt or Gap.of(GapKind.DOUBT, UNTOLD)
        return 0 <= untold_ms < LATE_EVENT_MS

    def read_checkpoints(self, drains: Drains) -> bytes | None:
        """The salts and nBackfill of the wal-index, as bytes: whether they are torn is no matter here."""
        if self.shm is None:
            return None
        header = self.shm.pread(0, WALINDEX_READ_SIZE)
        reading = header[_SALTS] + header[_BACKFILLED]
        self.checkpoints.read(drains.count, reading)
        return reading
