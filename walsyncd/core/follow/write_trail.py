"""Who wrote to a database and who ended its WAL, by the order of the events of its files.

What SQLite does, in every version that was tried (3.25 to 3.54, through Python, apsw, the shell and node):

- The last connection writes the database (its checkpoint), deletes -shm, closes it, closes -wal, deletes it, and
  closes the database. No event of the database comes between the two DELETEs. ``rm`` closes nothing between them.
- Without a wal-index (exclusive mode) -wal is closed and deleted, with nothing in between.
- A connection closes -wal before the database. So a database that is closed by a writer was SQLite's only if -wal was
  closed after the last write to the database and after its last close. Closes that follow one another count as one,
  as the kernel makes one event of them where nobody reads it.
- -shm is deleted by the last connection alone, right before -wal. A new -shm beside an old -wal was never made so.
"""

from __future__ import annotations

from dataclasses import dataclass

JUST_DRAINS = 2  # the last write and the close of whoever copies a file over are told together


@dataclass(frozen=True, slots=True)
class FileSeen:
    """The database's size and mtime when ``event`` was the last that told of a write to it.

    ``changed_ms`` is since when they are others without such an event.
    """

    look: tuple[int, int]
    event: int
    changed_ms: int | None = None


@dataclass(slots=True)
class WriteTrail:
    """The numbers of the last events of one database, over all lives of its WAL; 0 if there was none.

    Told of every event in the queue's order. ``shm_…`` and ``wal_began`` are those of the current WAL.
    """

    events: int = 0
    wal_began: int = 0
    wal_written_at: int = 0
    wal_closed_at: int = 0
    database_written_at: int = 0
    database_closed_at: int = 0
    shm_seen_at: int = 0
    shm_deleted_at: int = 0
    shm_closed_at: int = 0
    written_in: int = 0
    """The drain of the queue that told of the last write to the database."""
    seen: FileSeen | None = None

    def wal_created(self) -> None:
        """A WAL begins, with a wal-index of its own."""
        self.events += 1
        self.wal_began = self.events
        self.shm_seen_at = self.shm_deleted_at = self.shm_closed_at = 0

    def events_lost(self) -> None:
        """Events were lost: neither the next close of the database nor a change of it is held against anybody."""
        self.events += 1
        self.wal_closed_at = self.events
        self.seen = None

    def wal_written(self) -> None:
        """MODIFY of -wal."""
        self.events += 1
        self.wal_written_at = self.events

    def wal_closed(self) -> None:
        """CLOSE_WRITE of -wal."""
        self.events += 1
        self.wal_closed_at = self.events

    def shm_seen(self) -> bool:
        """-shm was created or written; False: it appeared beside a WAL whose own was deleted."""
        self.events += 1
        self.shm_seen_at = self.events
        return not self.shm_deleted_at

    def shm_closed(self) -> None:
        """CLOSE_WRITE of -shm."""
        self.events += 1
        self.shm_closed_at = self.shm_seen_at = self.events

    def shm_deleted(self) -> None:
        """DELETE of -shm."""
        self.events += 1
        self.shm_deleted_at = self.shm_seen_at = self.events

    def database_written(self, drain: int = 0) -> None:
        """MODIFY of the database, told by drain number ``drain``."""
        self.events += 1
        self.written_in = drain
        self.database_written_at = self.events

    def database_closed(self) -> bool:
        """CLOSE_WRITE of the database; False: by the order of the events, SQLite did not have it open."""
        is_repeated = self.database_closed_at == self.events != 0
        self.events += 1
        is_paired = self.wal_closed_at > max(self.database_written_at, self.database_closed_at)
        self.database_closed_at = self.events
        return is_paired or is_repeated

    def is_just_written(self, drain: int) -> bool:
        """Whether a write was told of just before drain number ``drain``: who only opens and closes writes nothing."""
        return self.database_written_at > 0 and drain - self.written_in <= JUST_DRAINS

    def untold_ms(self, look: tuple[int, int], now_ms: int) -> int:
        """For how long the database's size and mtime have been others without an event; -1 if they are not."""
        seen = self.seen
        if seen is None or seen.event != self.database_written_at or look == seen.look:
            self.seen = FileSeen(look, self.database_written_at)
            return -1
        changed_ms = now_ms if seen.changed_ms is None else seen.changed_ms
        self.seen = FileSeen(seen.look, seen.event, changed_ms)
        return now_ms - changed_ms

    def ends_with_index(self) -> bool:
        """Whether -wal, which is deleted now, is deleted by a last connection that used the wal-index."""
        return self.shm_deleted_at < self.shm_closed_at and self.shm_deleted_at > max(
            self.database_written_at, self.database_closed_at
        )

    def ends_copied_back(self) -> bool:
        """Whether the last write to either file, before -wal is deleted now, was to the database."""
        return self.database_written_at > max(self.wal_written_at, self.wal_began) or (
            self.wal_written_at < self.wal_began
        )

    def ends_without_index(self, *, is_empty: bool) -> bool:
        """Whether -wal, which is deleted now, is deleted by a connection in exclusive mode; ``is_empty``: -wal is."""
        if self.shm_seen_at or not self.events or self.wal_closed_at != self.events:
            return False
        if self.database_closed_at > max(self.wal_written_at, self.database_written_at):
            return False
        return is_empty or self.ends_copied_back()
