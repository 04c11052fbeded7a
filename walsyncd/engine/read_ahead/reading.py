"""What is read ahead of one database: raw looks at its WAL, in order, until the follower takes them.

Each look reads the wal-index, then what is new in the WAL, then the wal-index again. If the WAL has restarted, what is
left of the old incarnation is read before anything else, because the new one overwrites it. Nothing is verified here.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from walsyncd.adapters.files.source import OpenFile
from walsyncd.adapters.files.wal_headers import read_wal_headers
from walsyncd.core.follow.decision import Cursor, DmsHolder, Observation, may_go_on
from walsyncd.core.limits import DEFAULT_LIMITS, Limits
from walsyncd.core.sqlite.wal import FRAME_HEADER_SIZE, Salts, WalHeader, parse_frame_header, parse_wal_header
from walsyncd.core.sqlite.walindex import WALINDEX_READ_SIZE, IndexHeader, parse_index_header
from walsyncd.engine.read_ahead.ahead_look import AheadLook, joined

LOOK_S, LOOK_S_MAX = 0.001, 0.008  # the fastest WAL lives for ten milliseconds
LOOK_SHARE = 8  # so many looks while the WAL grows from its beginning to its restart
WAL_FRAMES = 1000  # where SQLite restarts a WAL by default
JOINED_BYTES_MAX = 4 << 20
PIECE_BYTES = 1 << 20
END_S_MAX = 0.1  # a look is some system calls
CALM_S = 5.0  # a program that opens and closes the database from time to time does so more often than this
_HEADERS = slice(0, 96)  # both copies of the wal-index's header


class WatchedPair(Protocol):
    """A -wal with its -shm, and the events of that -shm so far (``follow.wal_pair.WalPair``)."""

    @property
    def wal(self) -> OpenFile:
        """The -wal."""

    @property
    def shm(self) -> OpenFile | None:
        """The -shm, if there is one."""

    @property
    def serial(self) -> int:
        """The number of the -shm among those of the -wal."""

    @property
    def index_rebuilds(self) -> int:
        """How many events there were after which the -shm may count from 0 again."""

    @property
    def closed(self) -> int:
        """How many CLOSE_WRITE events there were."""


class ShownIndex(NamedTuple):
    """The wal-index that a look has read, and whether frames may come after its last frame (``may_go_on``).

    What shows that was read after the wal-index: the next frame's header, and then the wal-index again.
    """

    header: IndexHeader
    goes_on: bool


class _NoRoomError(Exception):
    """There is more to be read than may be held."""


class Reading:
    """What is read ahead of one database, after ``cursor``. The follower takes it in order.

    It holds the descriptors of ``wal_pair``, which the follower may close meanwhile. ``cursor`` is where it has got to.
    ``pause_s_max`` is the longest time between two looks.
    """

    def __init__(
        self,
        wal_pair: WatchedPair,
        cursor: Cursor,
        now_ms: Callable[[], int],
        limits: Limits = DEFAULT_LIMITS,
        pause_s_max: float = LOOK_S_MAX,
    ) -> None:
        assert wal_pair.shm is not None
        self.wal_pair = wal_pair
        self._wal, self._shm = wal_pair.wal, wal_pair.shm
        self._wal.hold()
        self._shm.hold()
        self._serial = wal_pair.serial
        self._events, self._stirred_s = (wal_pair.index_rebuilds, wal_pair.closed), -CALM_S
        self.cursor = cursor
        self._now_ms = now_ms
        self._limits, self._pause_s_max = limits, pause_s_max
        self._looks: deque[AheadLook] = deque()
        self._first: AheadLook | None = None
        self._read_bytes = self._taken_bytes = 0  # each is written by one thread
        self._lock = threading.Lock()
        self._last = b""
        self._wal_frames = WAL_FRAMES
        self._window_s, self._window_frames = time.monotonic(), 0
        self._frames_per_s = 0.0
        self.is_over = self._is_dropped = self._is_ended = False
        self.has_no_room = False
        """Whether there was once more to read than may be held."""
        self.shown: ShownIndex | None = None
        """What the last look saw, if it has read frames of the same incarnation."""

    @property
    def size(self) -> int:
        """How many bytes wait for the follower."""
        return self._read_bytes - self._taken_bytes

    @property
    def pause_s(self) -> float:
        """How long to wait before the next look, by the writer's speed."""
        frames_per_s = max(
            self._frames_per_s, self._window_frames / self._limits.ahead_window_s, self._limits.ahead_frames_per_s
        )
        return min(self._pause_s_max, max(LOOK_S, self._wal_frames / LOOK_SHARE / frames_per_s))

    @property
    def rest_s(self) -> float:
        """For how many seconds the follower may leave what is read here, so that it takes more at a time.

        This delays the judgement of what was read. So the result is 0 for a while after an event that voids evidence,
        because another such event may follow. The more is read, the shorter it is.
        """
        events, now_s = (self.wal_pair.index_rebuilds, self.wal_pair.closed), time.monotonic()
        if events != self._events:
            self._events, self._stirred_s = events, now_s
        if self.is_over or now_s - self._stirred_s < CALM_S or self.cursor.header is None:
            return 0.0
        bytes_per_s = self.cursor.header.frame_size * max(self._frames_per_s, self._limits.ahead_frames_per_s)
        return min(self._limits.ahead_rest_s, max(0, self._limits.ahead_rest_bytes - self.size) / bytes_per_s)

    def after(self, cursor: Cursor) -> AheadLook | None:
        """Return what was read after ``cursor``, or None if nothing was. What was read before ``cursor`` is forgotten.

        Successive looks at one incarnation are joined.
        """
        while (first := self._first or self._take()) is not None:
            if first.continues(cursor):
                self._first = first
                return first
            self._first = None
        return None

    def drop(self) -> None:
        """Stop reading, and forget what was read. This does not wait: a look under way closes the descriptors."""
        self._is_dropped = True
        self._first = None
        self._looks.clear()
        if self._lock.acquire(blocking=False):
            self._close()
            self._lock.release()

    def end(self) -> None:
        """Stop reading, and keep what was read. This waits for a look under way, but not for a look that hangs."""
        self._is_ended = True
        if self._lock.acquire(timeout=END_S_MAX):
            self._close()
            self._lock.release()

    def _take(self) -> AheadLook | None:
        taken: list[AheadLook] = []
        size = 0
        while self._looks and size < JOINED_BYTES_MAX and (not taken or self._looks[0].goes_on(taken[-1])):
            taken.append(self._looks.popleft())
            size += taken[-1].size
        self._taken_bytes += size
        return joined(taken) if taken else None

    def look(self, room: int, index_header: bytes | None = None) -> bool:
        """Read what is new, if it is not more than ``room`` bytes. Returns False if the reading is over.

        ``index_header`` is the header of the wal-index, if it was read a moment ago. It shows whether there is anything
        new.
        """
        if not self._lock.acquire(blocking=False):  # it was dropped just now, or an earlier look hangs
            return False
        self.shown = None
        try:
            if not self.is_over and (self._is_slow() or not self._look(room, index_header)):
                self._close()
        except BaseException:  # a thread that was given up while a call hung ends with one, too
            self._close()
            raise
        finally:
            self._lock.release()
        if self._is_dropped:
            self.drop()
        elif self._is_ended:
            self.end()
        return not self.is_over

    def _is_slow(self) -> bool:
        """Whether the writer was slow in the last window."""
        now_s = time.monotonic()
        if now_s - self._window_s < self._limits.ahead_window_s:
            return False
        self._frames_per_s = self._window_frames / (now_s - self._window_s)
        self._window_s, self._window_frames = now_s, 0
        return self._frames_per_s < self._limits.ahead_frames_per_s

    def _note_frames(self, index: IndexHeader) -> None:
        """Note how much was read, before ``cursor`` moves to ``index``."""
        if index.salts == self.cursor.salts:
            self._window_frames += index.max_frame - self.cursor.frames
        else:
            self._window_frames += index.max_frame
            self._wal_frames = max(LOOK_SHARE, min(WAL_FRAMES, self.cursor.frames))

    def _close(self) -> None:
        if not self.is_over:
            self.is_over = True
            self._wal.release()
            self._shm.release()

    def _look(self, room: int, index_header: bytes | None) -> bool:
        """Read what is new. Returns whether the reading may go on."""
        if (index_header or self._shm.pread(0, WALINDEX_READ_SIZE))[_HEADERS] == self._last:
            return True
        wal_pair = self.wal_pair
        began_ms, index_rebuilds, closed = self._now_ms(), wal_pair.index_rebuilds, wal_pair.closed
        if wal_pair.serial != self._serial:
            return False
        before, headers = self._observe()
        if before.holder is not DmsHolder.LIVE:
            return False
        index, cursor = before.index, self.cursor
        if index is None or (index.max_frame and (before.wal is None or before.wal.salts != index.salts)):
            return True  # it is being written
        if index.salts == cursor.salts and index.max_frame <= cursor.frames:
            self._last = headers
            return index.max_frame == cursor.frames
        try:
            look = AheadLook(
                cursor.salts,
                cursor.frames,
                before,
                *self._read(cursor, index, before.wal, min(room, self._limits.ahead_look_bytes)),
                began_ms=began_ms,
                shm_serial=self._serial,
                index_rebuilds=index_rebuilds,
                closed=closed,
                seen=((index.max_frame, self._now_ms()),),
            )
        except _NoRoomError:
            self.has_no_room = True
            self._window_s, self._window_frames = time.monotonic(), self._limits.ahead_frames_per_s
            return room < self._limits.ahead_look_bytes  # it waits until the follower has taken something
        if look.after.index is None or look.after.index.salts != index.salts:
            return look.after.holder is DmsHolder.LIVE  # what was read may have been overwritten meanwhile
        if index.salts == cursor.salts:
            self.shown = ShownIndex(index, may_go_on(index, _following(look, index), look.after.index))
        self._note_frames(index)
        self._last = headers
        self.cursor = _position(index, before.wal)
        self._read_bytes += look.size
        self._looks.append(look)
        return True

    def _observe(self) -> tuple[Observation, bytes]:
        """Return what the headers show, and both copies of the wal-index's header."""
        found = read_wal_headers(self._wal, self._shm)
        holder = DmsHolder(found.liveness.value) if found.is_named else DmsHolder.LEAVING
        index = parse_index_header(found.index_header) if holder is DmsHolder.LIVE else None
        seen = Observation(holder, index, parse_wal_header(found.wal_header), found.wal_bytes)
        return seen, found.index_header[_HEADERS]

    def _read(
        self, cursor: Cursor, index: IndexHeader, wal: WalHeader | None, room: int
    ) -> tuple[Observation | None, Observation, tuple[tuple[int, bytes], ...]]:
        """Read what a look after ``cursor`` needs. Returns two observations and the extents that were read.

        The first observation was made after the old tail was read, the second after everything was read.
        The frame at ``cursor`` is read again, because it shows whether the next commit was padded.
        """
        first = max(1, cursor.frames)
        if index.salts == cursor.salts:
            header = cursor.header if cursor.header is not None and cursor.frames else wal
            assert header is not None
            extent = self._frames(header, first, index.max_frame, room)
            return None, self._observe()[0], (extent,)
        extents: list[tuple[int, bytes]] = []
        if cursor.header is not None and index.max_frame <= cursor.frames:
            extents.append(self._tail(cursor.header, first, cursor.salts, room))
        after_tail, _ = self._observe()
        if wal is not None and index.max_frame:
            new = self._frames(wal, 1, index.max_frame, room - sum(len(data) for _, data in extents))
            extents.insert(0, new)
        if cursor.header is not None:
            offset = cursor.header.offset_of(max(cursor.frames, index.max_frame) + 1)
            extents.append((offset, self._wal.pread(offset, FRAME_HEADER_SIZE)))
        return after_tail, self._observe()[0], tuple(extents)

    def _frames(self, header: WalHeader, first: int, last: int, room: int) -> tuple[int, bytes]:
        """Read the frames from ``first`` to ``last``, and the header of the next one."""
        size = (last - first + 1) * header.frame_size + FRAME_HEADER_SIZE
        if size > room:
            raise _NoRoomError
        offset = header.offset_of(first)
        return offset, self._wal.pread(offset, size)

    def _tail(self, header: WalHeader, first: int, salts: Salts, room: int) -> tuple[int, bytes]:
        """Read the frames from ``first`` on, until one has other salts than ``salts``, or to the end of the file."""
        count = max(1, PIECE_BYTES // header.frame_size)
        offset = header.offset_of(first)
        pieces: list[bytes] = []
        size = 0
        while size <= room:
            piece = self._wal.pread(offset + size, count * header.frame_size)
            pieces.append(piece)
            size += len(piece)
            last = len(piece) // header.frame_size - 1
            if len(piece) < count * header.frame_size or salts_of(piece, last * header.frame_size) != salts:
                return offset, b"".join(pieces)
        raise _NoRoomError


def _position(index: IndexHeader, wal: WalHeader | None) -> Cursor:
    """Return how far the WAL was read. The checksum is not known yet."""
    return Cursor(index.salts, wal if index.max_frame else None, index.max_frame, (0, 0))


def _following(look: AheadLook, index: IndexHeader) -> Salts | None:
    """Return the salts of the frame after the last one that ``index`` shows, which was read with it."""
    ((_, data),) = look.extents
    count = index.max_frame - max(1, look.frames) + 1
    found = parse_frame_header(data[count * (FRAME_HEADER_SIZE + index.page_size) :])
    return found.salts if found is not None else None


def salts_of(data: bytes, offset: int) -> Salts:
    """Return the salts of the frame at ``offset`` of ``data``."""
    return int.from_bytes(data[offset + 8 : offset + 12], "big"), int.from_bytes(data[offset + 12 : offset + 16], "big")
