"""The thread that reads WALs ahead, while the follower compresses and makes durable what it has read before.

SQLite overwrites a WAL from its beginning when it restarts. A busy writer does that every few milliseconds, and one
fsync of the journal may take longer. So before the follower does anything but reading, it starts a ``Reading`` of the
database. The thread looks at the wal-index every millisecond and reads what is new. If a WAL has restarted, the thread
reads what is left of the old incarnation before anything else. It verifies nothing and believes nothing: what it has
read is an ``AheadLook``, which the follower judges like a look of its own.

What was read is a cache of the WAL. Dropping it is always allowed: the follower looks at the file again, where it finds
the same frames, or a gap if they were overwritten. Nothing of it is durable, and nobody but the follower sees it.

A reading ends when the writer is slow, when the follower drops it, and at anything unusual. All readings
together hold at most ``BYTES_MAX``; a follower that is further behind leaves a gap.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from weakref import WeakSet

from walsyncd.core.follow.decision import Cursor
from walsyncd.core.limits import DEFAULT_LIMITS, Limits
from walsyncd.engine.read_ahead.deferred_look import DEFERRED_BYTES_MAX, DeferredLook
from walsyncd.engine.read_ahead.reading import LOOK_S, LOOK_S_MAX, Reading, WatchedPair
from walsyncd.engine.threads.boundary import boundary
from walsyncd.errors import WalsyncdError

LINGER_S = 0.1  # a busy database is read ahead again within this time, and waking the thread costs more than a look
BYTES_MAX = 64 << 20
DEFERRED_MAX = 256  # looks that are put off; they share half of BYTES_MAX
EXPIRY_S = 1.0  # how often deferred looks that have expired are removed


class ReadAhead:
    """All readings, and the thread that makes them.

    The thread calls ``has_read`` with a database's row id in the journal and how far the database was read. It calls
    ``has_ended`` for a database that is not read ahead any more.
    """

    def __init__(self) -> None:
        self.has_read: Callable[[int, Cursor], None] = lambda _row_id, _cursor: None
        self.has_ended: Callable[[int], None] = lambda _row_id: None
        self._changed = threading.Condition()
        self._readings: dict[int, Reading] = {}
        self._deferred: WeakSet[DeferredLook] = WeakSet()  # only the follower's thread uses it
        self._is_stopping = False
        self._lingers_until_s = self._expiry_s = 0.0

    def begin(
        self,
        row_id: int,
        wal_pair: WatchedPair,
        cursor: Cursor,
        now_ms: Callable[[], int],
        limits: Limits = DEFAULT_LIMITS,
        pause_s_max: float = LOOK_S_MAX,
    ) -> Reading:
        """Begin to read a database ahead, after ``cursor``."""
        reading = Reading(wal_pair, cursor, now_ms, limits, pause_s_max)
        with self._changed:
            self._readings[row_id] = reading
            if time.monotonic() > self._lingers_until_s:
                self._changed.notify()
        return reading

    def defer(
        self,
        wal_pair: WatchedPair,
        cursor: Cursor,
        now_ms: Callable[[], int],
        until_s: float,
        limits: Limits = DEFAULT_LIMITS,
    ) -> DeferredLook | None:
        """Put a look off and have the WAL read after ``cursor`` meanwhile. Returns None if too many are put off."""
        self._let_expired_go()
        if len(self._deferred) >= DEFERRED_MAX:
            return None
        look = DeferredLook(wal_pair, cursor, now_ms, until_s, limits, self._share)
        self._deferred.add(look)
        return look

    def run(self) -> None:
        """Run the thread until ``stop``."""
        while self._wait():
            self.look()
            with self._changed:
                pause_s = min((reading.pause_s for reading in self._readings.values()), default=LOOK_S)
            time.sleep(pause_s)

    def look(self) -> None:
        """Look once at each database that is read ahead."""
        with self._changed:
            readings = dict(self._readings)
        room = BYTES_MAX - sum(reading.size for reading in readings.values())
        for row_id, reading in readings.items():
            goes_on, before = False, reading.cursor
            with suppress(WalsyncdError), boundary("read_ahead"):  # the follower's own look reports it
                goes_on = reading.look(room)
                if reading.cursor is not before:
                    self.has_read(row_id, reading.cursor)
            if not goes_on:
                self._forget(row_id, reading)
                self.has_ended(row_id)

    def stop(self) -> None:
        """End the thread."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()

    def _let_expired_go(self) -> None:
        """Give the places of idle databases to others. Their deferred looks have expired and hold nothing."""
        now_s = time.monotonic()
        if now_s < self._expiry_s:
            return
        self._expiry_s = now_s + EXPIRY_S
        for look in tuple(self._deferred):
            if look.has_expired(now_s):
                self._deferred.discard(look)

    def _share(self) -> int:
        return min(DEFERRED_BYTES_MAX, BYTES_MAX // 2 // max(1, len(self._deferred)))

    def _forget(self, row_id: int, reading: Reading) -> None:
        with self._changed:
            if self._readings.get(row_id) is reading:
                del self._readings[row_id]

    def _wait(self) -> bool:
        """Wait until there is a database to read ahead. Returns False if the thread is to end."""
        with self._changed:
            now_s = time.monotonic()
            if self._readings:
                self._lingers_until_s = now_s + LINGER_S
            elif now_s > self._lingers_until_s:
                self._changed.wait_for(lambda: self._readings or self._is_stopping)
            return not self._is_stopping
