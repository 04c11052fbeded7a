"""A look that is put off because nothing would be uploaded before: the database's next upload is not due yet.

What is committed meanwhile is read at each write to the WAL, by the thread that takes the event in, and the look
judges it (``AheadLook``). So SQLite may overwrite the WAL or cut it off a moment after a commit, and nothing is missed.
This saves the look, a segment and a transaction of the journal for each commit.

The look is due at once if anything but a write to the WAL happens, if the WAL restarts, if the writer is fast, if what
was read becomes much, or if it can't be read.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from walsyncd.core.follow.decision import Cursor
from walsyncd.core.limits import DEFAULT_LIMITS, Limits
from walsyncd.core.sqlite.wal import FRAME_HEADER_SIZE
from walsyncd.engine.read_ahead.reading import Reading, WatchedPair, salts_of

DEFERRED_BYTES_MAX = 2 << 20  # bytes read for one database; the look is due when half as many are read
PUBLISHED_S, PUBLISHED_S_MAX = 0.001, 0.064  # a commit is published after its last write, and after its sync


class DeferredReading(Reading):
    """A reading of a slow writer. The thread that reads ahead does not know of it."""

    def _is_slow(self) -> bool:
        return False

    def is_moving(self) -> bool:
        """Whether a commit after ``cursor`` is written and not published."""
        if self.shown is not None:
            return self.shown.goes_on
        cursor = self.cursor
        assert cursor.header is not None
        head = self._wal.pread(cursor.header.offset_of(cursor.frames + 1), FRAME_HEADER_SIZE)
        return len(head) == FRAME_HEADER_SIZE and salts_of(head, 0) in {cursor.salts, (0, 0)}


class DeferredLook:
    """The next look at a database, which is due at ``until_s`` (monotonic) at the latest. ``cursor`` has frames.

    Any thread may call ``read``. If two threads call it at a time, the deferral ends. ``share`` returns how many bytes
    the look may hold.
    """

    def __init__(
        self,
        wal_pair: WatchedPair,
        cursor: Cursor,
        now_ms: Callable[[], int],
        until_s: float,
        limits: Limits = DEFAULT_LIMITS,
        share: Callable[[], int] = lambda: DEFERRED_BYTES_MAX,
    ) -> None:
        self.reading = DeferredReading(wal_pair, cursor, now_ms, limits)
        self.until_s = until_s
        self.is_due = False
        self.is_fast = False
        """The writer is so fast that its WAL is to be read ahead by a thread of its own."""
        self.pause_s = 0.0
        """In how many seconds to read again, because a commit is written and not published. 0 if there is none."""
        self._limits, self._share = limits, share
        self._began_s = time.monotonic()
        self._frames = 0

    def read(self, index_header: bytes | None = None) -> None:
        """Read what was committed. Afterwards ``is_due`` and ``pause_s`` say how to go on.

        ``index_header`` is the header of the wal-index, if it was read a moment ago.
        """
        before, share = self.reading.cursor, self._share()
        is_read = time.monotonic() < self.until_s and self.reading.look(share - self.reading.size, index_header)
        after = self.reading.cursor
        is_full = self.reading.has_no_room or self.reading.size > share // 2
        self.is_due = self.is_due or not is_read or after.salts != before.salts or is_full
        if self.is_due:
            return
        self._wait_for_commit(is_first=after is not before)
        self._frames += after.frames - before.frames
        elapsed_s, limits = time.monotonic() - self._began_s, self._limits
        if self._frames >= limits.fast_frames and self._frames >= limits.ahead_frames_per_s * elapsed_s:
            self.is_fast = self.is_due = True

    def has_expired(self, now_s: float) -> bool:
        """Whether at ``now_s`` (monotonic) the deferral is over, and nothing that was read waits for a look."""
        return now_s >= self.until_s and not self.reading.size

    def end(self) -> None:
        """Stop reading. What was read is kept for the look."""
        self.reading.end()

    def _wait_for_commit(self, *, is_first: bool) -> None:
        """Set the pause to 0 if no commit is being written. Otherwise double it, or begin again if ``is_first``."""
        if not self.reading.is_moving():
            self.pause_s = 0.0
        elif self.pause_s >= PUBLISHED_S_MAX:
            self.is_due = True
        else:
            self.pause_s = PUBLISHED_S if is_first else max(PUBLISHED_S, 2 * self.pause_s)
