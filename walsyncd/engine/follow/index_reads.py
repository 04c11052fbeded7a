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

from walsyncd.adapters.files.source import OpenFile
from walsyncd.core.follow.restart import succeeds
from walsyncd.core.sqlite.wal import FRAME_HEADER_SIZE, WAL_HEADER_SIZE, Salts, parse_wal_header
from walsyncd.core.sqlite.walindex import WALINDEX_READ_SIZE, IndexHeader, parse_index_header

GLANCES_MAX = 4  # the last look's, and that after the last write to the database; the others may be late


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
