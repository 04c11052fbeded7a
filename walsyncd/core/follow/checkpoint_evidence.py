"""Whether a write to the database was a checkpoint of its WAL.

After a checkpoint, nBackfill or the salts in the wal-index have changed.

A checkpoint stores nBackfill after it has written the database, and a look may fall between the two. So a write is
compared with what the wal-index showed before the previous look. A header that was read after the last events were
drained may already hold the end of a checkpoint although the event of one of its writes is still to come (measured: up
to 96 % false doubts).

While a process holds the CKPT lock, or has the database for itself, the write waits for its explanation. Otherwise it
is doubted after ``LOOKS_MAX`` more looks that are at least a millisecond apart. Without a wal-index, a lock on the
database is all the evidence that there can be.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

LOOKS_MAX = 3
LOOK_MS = 1
READS_MAX = 4


@dataclass(frozen=True, slots=True)
class Unexplained:
    """A write to the database that no checkpoint explains so far. ``before`` is the reading from before the write."""

    before: bytes
    looks: int = 0
    looked_ms: int = 0


@dataclass(slots=True)
class CheckpointEvidence:
    """What the wal-index of one WAL showed, and the last write that is to be explained.

    A reading is the bytes of the salts and of nBackfill in the wal-index, or None without a wal-index. Drains of the
    event queue are numbered. A reading that belongs to ``drain`` was finished before drain ``drain + 1`` began.
    """

    unexplained: Unexplained | None = None
    _reads: deque[tuple[int, bytes]] = field(default_factory=lambda: deque(maxlen=READS_MAX))

    @property
    def waits(self) -> bool:
        """Whether a write has no explanation so far."""
        return self.unexplained is not None

    @property
    def has_reading(self) -> bool:
        """Whether there is a reading. Without one, the next write could not be compared with anything."""
        return bool(self._reads)

    def read(self, drain: int, reading: bytes) -> None:
        """Keep what the wal-index showed."""
        if self._reads and self._reads[-1][0] == drain:
            self._reads.pop()
        self._reads.append((drain, reading))

    def forget(self) -> None:
        """Forget everything: events were lost, so nothing is known of the writes."""
        self.unexplained = None
        self._reads.clear()

    def written(self, drain: int, *, has_index: bool) -> None:
        """Take in that drain number ``drain`` read an event of a write to the database."""
        before = next((reading for number, reading in reversed(self._reads) if number <= drain - 2), None)
        if not has_index:
            before = b""
        if before is not None and (self.unexplained is None or self.unexplained.before != before):
            self.unexplained = Unexplained(before)

    def explain(self, reading: bytes | None, *, is_busy: bool, now_ms: int) -> bool:
        """Look whether the write is explained by now. Returns False if it is doubted.

        ``is_busy``: a process holds the CKPT lock, or has the database for itself. Without a wal-index, ``is_busy``
        means that a process holds any lock on the database.
        """
        write = self.unexplained
        if write is None:
            return True
        has_moved = reading is not None and reading != write.before
        if has_moved or (not write.before and is_busy):
            self.unexplained = None
            return True
        if is_busy or now_ms - write.looked_ms < LOOK_MS:
            return True
        self.unexplained = replace(write, looks=write.looks + 1, looked_ms=now_ms)
        return write.looks < LOOKS_MAX
