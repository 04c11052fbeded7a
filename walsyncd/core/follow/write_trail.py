"""Who wrote to a database and who ended its WAL, by the order of the events of its files.

SQLite does this in every version that was tried (3.25 to 3.54, through Python, apsw, the shell and node):

- The last connection writes the database (its checkpoint), deletes -shm, closes -shm, closes -wal, deletes -wal, and
  closes the database. No event of the database comes between the two DELETEs. ``rm`` closes nothing between them.
- Without a wal-index (exclusive mode), -wal is closed and deleted, with nothing in between.
- A connection closes -wal before the database. So a writer that closes the database was SQLite only if -wal was closed
  after the last write to the database and after the previous close of the database. Closes that follow one another
  count as one, because the kernel merges them into one event while nobody reads the queue.
- Only the last connection deletes -shm, right before -wal. So SQLite never creates a new -shm next to an old -wal.
"""

from __future__ import annotations

from dataclasses import dataclass

JUST_DRAINS = 2  # a program that copies a file over it closes right after its last write: both events come together


@dataclass(frozen=True, slots=True)
class FileSeen:
    """The database's size and mtime (``look``) when ``event`` was the last event of a write to the database.

    ``changed_ms`` is the moment since which size and mtime have differed from ``look`` without such an event.
    """

    look: tuple[int, int]
    event: int
    changed_ms: int | None = None

    def is_changed(self, look: tuple[int, int], event: int) -> bool:
        """Whether ``look`` differs although no write was reported after ``event``."""
        return event == self.event and look != self.look


@dataclass(slots=True)
class WriteTrail:
    """The numbers of the last events of one database, across all its WAL pairs; 0 if there was none.

    The caller reports every event to it in queue order. ``shm_…`` and ``wal_began`` belong to the current WAL.
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
    losses: int = 0
    """How often events were lost."""
    written_in: int = 0
    """The drain of the queue that had the event of the last write to the database."""
    seen: FileSeen | None = None
    file_events: int = 0
    """The number of events that may have reported a change of the database file. A loss of events counts as one."""

    journal_events: int = 0
    """The number of events of the rollback journal. A loss of events counts as one."""

    def journal_changed(self) -> None:
        """Take in an event of -journal."""
        self.journal_events += 1

    def file_changed(self) -> None:
        """Take in an event of the database, other than a close, or of -wal."""
        self.file_events += 1

    def wal_created(self) -> None:
        """Take in that a WAL begins, with a wal-index of its own."""
        self.events += 1
        self.wal_began = self.events
        self.shm_seen_at = self.shm_deleted_at = self.shm_closed_at = 0

    def events_lost(self) -> None:
        """Take in that events were lost. Then neither the database's next close nor a change of it is a doubt."""
        self.events += 1
        self.wal_closed_at = self.events
        self.losses += 1
        self.seen = None
        self.file_events += 1
        self.journal_events += 1

    def wal_written(self) -> None:
        """Take in a MODIFY of -wal."""
        self.events += 1
        self.wal_written_at = self.events

    def wal_closed(self) -> None:
        """Take in a CLOSE_WRITE of -wal."""
        self.events += 1
        self.wal_closed_at = self.events

    def shm_seen(self) -> bool:
        """Take in that -shm was created or written. Returns False if the WAL's own -shm was deleted before."""
        self.events += 1
        self.shm_seen_at = self.events
        return not self.shm_deleted_at

    def shm_closed(self) -> None:
        """Take in a CLOSE_WRITE of -shm."""
        self.events += 1
        self.shm_closed_at = self.shm_seen_at = self.events

    def shm_deleted(self) -> None:
        """Take in a DELETE of -shm."""
        self.events += 1
        self.shm_deleted_at = self.shm_seen_at = self.events

    def database_written(self, drain: int = 0) -> None:
        """Take in a MODIFY of the database from drain number ``drain``."""
        self.events += 1
        self.written_in = drain
        self.database_written_at = self.events

    def database_closed(self) -> bool:
        """Take in a CLOSE_WRITE of the database. Returns False if, by the order of events, it was not SQLite's."""
        is_repeated = self.database_closed_at == self.events != 0
        self.events += 1
        is_paired = self.wal_closed_at > max(self.database_written_at, self.database_closed_at)
        self.database_closed_at = self.events
        return is_paired or is_repeated

    def is_just_written(self, drain: int) -> bool:
        """Whether an event of a write came just before drain number ``drain``. A mere open and close writes nothing."""
        return self.database_written_at > 0 and drain - self.written_in <= JUST_DRAINS

    @property
    def told(self) -> tuple[int, int]:
        """A value that changes with each event of a write to the database and with each loss of events."""
        return self.database_written_at, self.losses

    def untold_ms(self, look: tuple[int, int], now_ms: int, *, told: tuple[int, int] | None = None) -> int:
        """Return for how long the database's size and mtime have differed without an event, or -1 if they do not.

        ``told`` is this trail's ``told`` from before ``look``. If it is None, ``look`` is current. An event that came
        since ``told`` was taken may report a write that the look did not see yet, so the look shows nothing then. An
        event that another thread takes in during this call came after the look.
        """
        if told is not None and told != self.told:
            self.seen = None
            return -1
        seen, event = self.seen, self.database_written_at if told is None else told[0]
        if seen is None or not seen.is_changed(look, event):
            self.seen = FileSeen(look, event)
            return -1
        changed_ms = now_ms if seen.changed_ms is None else seen.changed_ms
        self.seen = FileSeen(seen.look, seen.event, changed_ms)
        return now_ms - changed_ms

    def is_untold(self, look: tuple[int, int]) -> bool:
        """Whether the database's size and mtime differ from those last seen, and no event of a write has come since."""
        return self.seen is not None and self.seen.is_changed(look, self.database_written_at)

    def accept(self) -> None:
        """Take in that the replica has the database's current content, so a change without an event is dealt with."""
        if self.seen is not None and self.seen.changed_ms is not None:
            self.seen = None

    def ends_with_index(self) -> bool:
        """Whether -wal is now deleted by the last connection, which has a wal-index."""
        return self.shm_deleted_at < self.shm_closed_at and self.shm_deleted_at > max(
            self.database_written_at, self.database_closed_at
        )

    def ends_copied_back(self) -> bool:
        """Whether the last write to either file before the deletion of -wal, which happens now, was to the database."""
        return self.database_written_at > max(self.wal_written_at, self.wal_began) or (
            self.wal_written_at < self.wal_began
        )

    def ends_without_index(self, *, is_empty: bool) -> bool:
        """Whether -wal is now deleted by a connection in exclusive mode. ``is_empty``: -wal is empty."""
        if self.shm_seen_at or not self.events or self.wal_closed_at != self.events:
            return False
        if self.database_closed_at > max(self.wal_written_at, self.database_written_at):
            return False
        return is_empty or self.ends_copied_back()
