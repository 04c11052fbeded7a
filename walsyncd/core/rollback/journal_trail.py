"""Decides from the order of the files' events whether the journals that were seen account for every database write.

The change counter in page 1 is no proof by itself. A transaction that is rolled back leaves a journal that looks like
the journal of the next commit, and a commit in journal mode MEMORY or OFF leaves no journal. So a write to the database
is accepted only in two places:

- Between CREATE and DELETE of a journal whose descriptor is held (mode ``DELETE``). There may be no more runs of writes
  than that journal explains (``changed_pages``), because a transaction in mode TRUNCATE may have used the same file
  before.
- Between two runs of writes to a journal that exists all the time (mode ``PERSIST``), where one run is accepted. The
  journal holds only the last transaction. A second run of writes to the database may belong to another transaction, or
  to the same one after the cache was full. In exclusive mode the counter does not show the difference.

A kept journal may have been cut by PRAGMA journal_size_limit. SQLite cuts it after it has written zeros over the
header, which ends the transaction. So nothing was cut off if the journal was written just once after the last write to
the database. That number is known only if no two writes to the journal were merged into one event
(``JOURNAL_COUNTED``).

A write to the database after the end of the journal is not accepted, although SQLite makes one: it truncates the file
then if the database has become smaller.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Doubt(StrEnum):
    """The reason why the journals do not account for every write."""

    STRAY_WRITE = "the database was written without a journal"
    JOURNAL_MISSED = "a journal was gone before it was opened"
    JOURNAL_REUSED = "a journal that is kept may have been used by several transactions"
    JOURNAL_UNKNOWN = "the journal was there before the database was watched"
    JOURNAL_MOVED = "the journal was renamed, or another file was put in its place"
    WAL = "the database was in WAL mode in between"
    EVENTS_LOST = "events were lost"
    REPLACED = "another file was put in the database's place"
    TOO_MANY = "too many journals, or too large ones, were kept open"


class FileEvent(StrEnum):
    """An event of -journal or of the database. A journal is held if an open descriptor belongs to this very journal."""

    JOURNAL_CREATED = "journal created"
    JOURNAL_CREATED_UNHELD = "journal created, and not held"
    JOURNAL_WRITTEN = "journal written"
    JOURNAL_COUNTED = "the write before is one alone"
    JOURNAL_UNCOUNTED = "writes are not counted any more"
    JOURNAL_DELETED = "journal deleted"
    JOURNAL_DELETED_UNHELD = "journal deleted, and not held"
    DATABASE_WRITTEN = "database written"


class JournalNow(StrEnum):
    """What -journal is at a quiet moment, when the database file is in a committed state."""

    ABSENT = "absent"
    IDLE = "idle"  # -journal exists, and no writer uses it (mode PERSIST)
    IN_USE = "in use"  # somebody holds RESERVED, and has written nothing to the database yet


@dataclass(slots=True)
class JournalTrail:
    """The events since the last committed state, and what they show. The caller passes every event in queue order."""

    doubt: Doubt | None = None
    """The first reason for doubt since the last ``restart``."""
    is_open: bool = False
    """Whether a journal was created and has not been deleted."""
    is_kept: bool = False
    """Whether a journal existed at the last ``restart`` and has not been deleted."""
    is_journal_written: bool = False
    """Whether the current journal was written."""
    database_runs: int = 0
    """The number of runs of writes to the database, with writes to the current journal between the runs."""
    runs_of_deleted: list[int] = field(default_factory=list)
    """``database_runs`` of each journal that was deleted since the last ``restart``, in the order of deletion."""
    last_writes: int = 0
    """The number of events of writes to the current journal since the last write to the database."""
    _last_was_journal: bool = False
    _is_counted: bool = True
    """Whether each write to the current journal was counted, except perhaps the last write."""
    _is_last_counted: bool = True

    @property
    def is_whole(self) -> bool:
        """Whether the current journal is known not to have been cut after its transaction.

        This is False if the writes to the journal were not counted.
        """
        return self._is_counted and self._is_last_counted and self.last_writes == 1 and self.database_runs > 0

    def restart(self, journal: JournalNow) -> None:
        """Begin at a quiet moment whose content is known."""
        self.doubt = None
        self.runs_of_deleted = []
        if journal is JournalNow.IN_USE:
            if not self.is_open or self.database_runs:
                self.raise_doubt(Doubt.JOURNAL_UNKNOWN)
            return
        self.is_open = False
        self.is_kept = journal is JournalNow.IDLE
        self._begin_runs()

    def take(self, event: FileEvent | Doubt) -> None:
        """Take in one event, or a doubt that the caller has found."""
        match event:
            case FileEvent.JOURNAL_CREATED | FileEvent.JOURNAL_CREATED_UNHELD:
                self.journal_created(is_held=event is FileEvent.JOURNAL_CREATED)
            case FileEvent.JOURNAL_DELETED | FileEvent.JOURNAL_DELETED_UNHELD:
                self.journal_deleted(is_held=event is FileEvent.JOURNAL_DELETED)
            case FileEvent.JOURNAL_WRITTEN:
                self.journal_written()
            case FileEvent.JOURNAL_COUNTED:
                self._is_last_counted = True
            case FileEvent.JOURNAL_UNCOUNTED:
                self._is_counted = False
            case FileEvent.DATABASE_WRITTEN:
                self.database_written()
            case _:
                self.raise_doubt(event)

    def journal_created(self, *, is_held: bool) -> None:
        """Take in a CREATE of -journal. ``is_held`` says that a descriptor of this very journal is held."""
        if not is_held:
            self.raise_doubt(Doubt.JOURNAL_MISSED)
        if self.is_open or self.is_kept:
            self.raise_doubt(Doubt.JOURNAL_MOVED)
        self.is_open, self.is_kept = True, False
        self._begin_runs()

    def journal_written(self) -> None:
        """Take in a MODIFY of -journal."""
        if not self.is_open and not self.is_kept:
            self.raise_doubt(Doubt.JOURNAL_UNKNOWN)
        self.is_journal_written = self._last_was_journal = True
        self._is_counted, self._is_last_counted = self._is_counted and self._is_last_counted, False
        self.last_writes += 1

    def journal_deleted(self, *, is_held: bool) -> None:
        """Take in a DELETE of -journal. ``is_held`` says that the held descriptor is that of the deleted file."""
        if not self.is_open:
            self.raise_doubt(Doubt.JOURNAL_UNKNOWN)
        elif not is_held:
            self.raise_doubt(Doubt.JOURNAL_MISSED)
        self.runs_of_deleted.append(self.database_runs)
        self.is_open = self.is_kept = False
        self._begin_runs()

    def database_written(self) -> None:
        """Take in a MODIFY of the database."""
        is_in_window = self.is_open or (self.is_kept and self.is_journal_written)
        if not is_in_window:
            self.raise_doubt(Doubt.STRAY_WRITE)
        if self._last_was_journal or not self.database_runs:
            self.database_runs += 1
        self._last_was_journal = False
        self._is_counted = self._is_counted and self._is_last_counted and self.is_journal_written
        self.last_writes = 0

    def raise_doubt(self, doubt: Doubt) -> None:
        """Note a reason for doubt, unless there is an earlier one."""
        self.doubt = self.doubt or doubt

    def doubt_now(self, journal: JournalNow) -> Doubt | None:
        """Return why the journals do not account for every write up to a quiet moment, or None if they do."""
        if self.doubt is not None:
            return self.doubt
        match journal:
            case JournalNow.ABSENT:
                return Doubt.JOURNAL_MISSED if self.is_open or self.is_kept else None
            case JournalNow.IN_USE:
                return None if self.is_open and not self.database_runs else Doubt.JOURNAL_UNKNOWN
            case JournalNow.IDLE:
                return self._doubt_of_idle()

    def _doubt_of_idle(self) -> Doubt | None:
        if not self.is_open and not self.is_kept:
            return Doubt.JOURNAL_UNKNOWN
        if self.database_runs and not self._last_was_journal:
            return Doubt.STRAY_WRITE
        return Doubt.JOURNAL_REUSED if self.database_runs > 1 else None

    def _begin_runs(self) -> None:
        self.database_runs = 0
        self.is_journal_written = self._last_was_journal = False
        self.last_writes, self._is_counted, self._is_last_counted = 0, True, True
