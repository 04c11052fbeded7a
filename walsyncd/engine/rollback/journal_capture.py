"""Rollback journals of one database, held open from their creation until a scan has read them.

SQLite deletes a journal when its transaction ends, and the journal names the pages that the transaction changed. A
journal that is opened at its CREATE event stays readable after its deletion. The order of all events is kept, too,
because only this order shows whether the journals account for every write (``core.rollback.journal_trail``).

If the CREATE event of a journal is read too late, the descriptor may belong to a later journal. If that later journal
still exists when the first journal's DELETE is read, the link count of the descriptor shows the mistake. If the later
journal is gone by then, its own CREATE, or the CREATE of a still later journal, finds no file.

The callers are the scan thread and the thread that drains the event queue, for which nothing slower than opening a file
is done. The number of events and descriptors and the size of deleted journals are limited. Beyond a limit all of them
are dropped, and the next scan reads every page.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from walsyncd.adapters.files.inotify import Event, Kind
from walsyncd.adapters.files.rollback_files import journal_size
from walsyncd.adapters.files.source import OpenFile, Role, open_file, side_path
from walsyncd.core.rollback.journal_trail import Doubt, FileEvent, JournalNow, JournalTrail
from walsyncd.errors import WalsyncdError

JOURNALS_MAX = 64  # descriptors held for one database; after more transactions than that the next scan reads every page
ENTRIES_MAX = 4096
HELD_BYTES_MAX = 256 << 20  # bytes of deleted journals, which take up disk space as long as they are held
MARK_TRIES = 3

_ENDS = {FileEvent.JOURNAL_CREATED_UNHELD, FileEvent.JOURNAL_DELETED, FileEvent.JOURNAL_DELETED_UNHELD}
_WRITES = [FileEvent.JOURNAL_WRITTEN, FileEvent.JOURNAL_COUNTED] * 2 + [FileEvent.JOURNAL_WRITTEN]
_LOST = {Kind.OVERFLOW, Kind.WATCH_LOST, Kind.REAPPEARED}


@dataclass(slots=True, eq=False)
class _Entry:
    event: FileEvent | Doubt
    journal: OpenFile | None = None  # the journal that was created or deleted
    size: int = 0  # the size of a journal that was deleted


@dataclass(frozen=True, slots=True, eq=False)
class CaptureMark:
    """A place in the order of events, and the state of -journal at that place.

    ``journal_events`` is the number of events of -journal up to that place.
    """

    count: int
    journal_events: int
    journal: JournalNow


@dataclass(frozen=True, slots=True, eq=False)
class Captured:
    """The changes between two marks. ``doubt`` is the reason why the journals do not account for them, or None.

    ``journals`` are the journals that have been deleted, and the caller must close them. ``runs`` has for each of them
    the number of runs of writes to the database while it existed (``JournalTrail``). ``is_kept_written`` says that the
    journal that exists now was written. ``kept_runs`` is the number of runs for that journal, and ``is_kept_whole``
    says that nothing was cut off it.
    """

    doubt: Doubt | None
    journals: tuple[OpenFile, ...] = ()
    runs: tuple[int, ...] = ()
    is_kept_written: bool = False
    kept_runs: int = 0
    is_kept_whole: bool = False
    is_passing: bool = False
    """Whether the only reason for doubt is that a writer is using the journal at this moment."""


@dataclass(slots=True)
class JournalCapture:
    """The journals of the database at ``path``. ``open_file`` explains ``own_only``."""

    path: Path
    own_only: bool = False
    journals_max: int = JOURNALS_MAX
    entries_max: int = ENTRIES_MAX
    held_bytes_max: int = HELD_BYTES_MAX
    _entries: list[_Entry] = field(default_factory=list)
    _dropped: int = 0  # the number of entries that were dropped before the first of ``_entries``
    _base: JournalNow | None = None  # -journal before the first of ``_entries``, or None without a known state
    _unknown: Doubt = Doubt.JOURNAL_UNKNOWN  # why there is no known state
    _origin: int = 0  # counts the known states; only the last of them is valid
    _journal_events: int = 0
    _marked: int = 0  # the place of the last mark: no event after it is merged with an event before it
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _journal_path: Path = field(init=False)

    def __post_init__(self) -> None:
        self._journal_path = side_path(self.path, Role.JOURNAL)  # computed here, because ``open`` has to be fast

    def note(self, event: Event) -> None:
        """Take in one event, in queue order."""
        with self._lock:
            if event.kind in _LOST:
                self._append(Doubt.EVENTS_LOST)
            elif event.kind is Kind.CLOSE_WRITE:
                return
            elif event.role is Role.JOURNAL:
                self._note_journal(event.kind)
            elif event.role is Role.DATABASE:
                self._append(FileEvent.DATABASE_WRITTEN if event.kind is Kind.MODIFY else Doubt.REPLACED)
            elif event.role in {Role.WAL, Role.SHM}:
                self._append(Doubt.WAL)

    def lose(self) -> None:
        """Note that an event could not be taken in."""
        with self._lock:
            self._append(Doubt.EVENTS_LOST)

    def mark(self, drain: Callable[[], None], is_reserved: Callable[[], bool]) -> CaptureMark | None:
        """Return the place after all events so far, or None if -journal comes and goes too fast.

        ``is_reserved`` returns whether a writer holds RESERVED.
        """
        for _ in range(MARK_TRIES):
            drain()
            count, journal_events = self._counts()
            journal = JournalNow.ABSENT
            if self.exists():
                journal = JournalNow.IN_USE if is_reserved() else JournalNow.IDLE
            drain()
            if self._is_marked(count, journal_events):
                return CaptureMark(count, journal_events, journal)
        return None

    def is_untouched(self, mark: CaptureMark) -> bool:
        """Whether -journal has had no event since ``mark``."""
        with self._lock:
            return self._journal_events == mark.journal_events

    def _counts(self) -> tuple[int, int]:
        """Return the number of entries so far, and the number of events of -journal.

        Equal events in a row are one entry.
        """
        with self._lock:
            return self._dropped + len(self._entries), self._journal_events

    def _is_marked(self, count: int, journal_events: int) -> bool:
        with self._lock:
            if (self._dropped + len(self._entries), self._journal_events) != (count, journal_events):
                return False
            self._marked = count
            return True

    def exists(self) -> bool:
        """Whether -journal exists now."""
        return journal_size(self.path) is not None

    def has_records(self) -> bool:
        """Whether -journal exists now and is not empty. Between transactions in mode TRUNCATE it is empty."""
        return bool(journal_size(self.path))

    def bytes_to_read(self) -> int:
        """Return the approximate size of the deleted journals that are held and of the -journal that exists now."""
        with self._lock:
            deleted = sum(entry.size for entry in self._entries)
        return deleted + (journal_size(self.path) or 0)

    def open(self) -> OpenFile | None:
        """Open the -journal that exists now, or return None if there is none."""
        return open_file(self._journal_path, own_only=self.own_only)

    def until(self, mark: CaptureMark, origin: int) -> Captured:
        """Return what happened from the known state up to ``mark``. ``begin`` returned ``origin`` for that state."""
        with self._lock:
            if self._base is None or mark.count < self._dropped or origin != self._origin:
                return Captured(self._unknown)
            trail = JournalTrail()
            trail.restart(self._base)
            journals: list[OpenFile] = []
            for entry in self._entries[: mark.count - self._dropped]:
                trail.take(entry.event)
                if entry.event is FileEvent.JOURNAL_DELETED and entry.journal is not None:
                    journals.append(entry.journal.duplicate())
            is_kept_written = mark.journal is JournalNow.IDLE and trail.is_journal_written
            doubt, runs = trail.doubt_now(mark.journal), tuple(trail.runs_of_deleted)
            is_passing = trail.doubt is None and mark.journal is JournalNow.IN_USE
            kept_runs, is_whole = trail.database_runs, trail.is_whole
            return Captured(doubt, tuple(journals), runs, is_kept_written, kept_runs, is_whole, is_passing)

    def is_lost(self, origin: int) -> bool:
        """Whether the journals will never account for what happened since the known state ``origin``."""
        with self._lock:
            if self._base is None or origin != self._origin:
                return True
            trail = JournalTrail()
            trail.restart(self._base)
            for entry in self._entries:
                trail.take(entry.event)
            return trail.doubt is not None

    def begin(self, mark: CaptureMark) -> int:
        """Treat the state of the database at ``mark`` as known, and drop all entries before ``mark``.

        If entries after ``mark`` were dropped already, no state is known. Returns the number of the state.
        """
        with self._lock:
            self._origin += 1
            if mark.count < self._dropped:
                self._clear(self._unknown)
                return self._origin
            split = mark.count - self._dropped
            kept = self._open_entry(split) if mark.journal is JournalNow.IN_USE else None
            before, after = self._entries[:split], self._entries[split:]
            self._entries = ([] if kept is None else [kept]) + after
            self._dropped = mark.count - (kept is not None)
            self._base = JournalNow.IDLE if mark.journal is JournalNow.IDLE else JournalNow.ABSENT
            self._unknown = Doubt.JOURNAL_UNKNOWN
            if mark.journal is JournalNow.IN_USE and kept is None:
                self._base = None
            self._close(before)
            return self._origin

    def clear(self) -> None:
        """Drop everything. No state is known then."""
        with self._lock:
            self._clear(Doubt.JOURNAL_UNKNOWN)

    def _note_journal(self, kind: Kind) -> None:
        self._journal_events += 1
        match kind:
            case Kind.CREATE:
                self._note_created()
            case Kind.MODIFY:
                self._append(FileEvent.JOURNAL_WRITTEN)
            case Kind.COUNTED:
                self._note_counted()
            case Kind.UNCOUNTED:
                self._append(FileEvent.JOURNAL_UNCOUNTED)
            case Kind.DELETE:
                self._note_deleted()
            case _:
                self._append(Doubt.JOURNAL_MOVED)

    def _note_created(self) -> None:
        try:
            journal = self.open()
        except WalsyncdError:
            journal = None
        if journal is None:
            self._append(FileEvent.JOURNAL_CREATED_UNHELD)
        elif sum(entry.event is FileEvent.JOURNAL_CREATED for entry in self._entries) >= self.journals_max:
            journal.close()
            self._clear(Doubt.TOO_MANY)
        else:
            self._append(FileEvent.JOURNAL_CREATED, journal)

    def _note_counted(self) -> None:
        """Take in that the last write was counted.

        More than two counted writes in a row mean the same as two, so only two are kept.
        """
        is_after_mark = self._dropped + len(self._entries) >= self._marked + len(_WRITES)
        if is_after_mark and [entry.event for entry in self._entries[-len(_WRITES) :]] == _WRITES:
            self._entries.pop()
        else:
            self._append(FileEvent.JOURNAL_COUNTED)

    def _note_deleted(self) -> None:
        entry = self._open_entry(len(self._entries))
        journal = None if entry is None else entry.journal
        if journal is None or not journal.unlinked():
            self._append(FileEvent.JOURNAL_DELETED_UNHELD)
            return
        self._append(FileEvent.JOURNAL_DELETED, journal, journal.size())
        if sum(each.size for each in self._entries) > self.held_bytes_max:
            self._clear(Doubt.TOO_MANY)

    def _open_entry(self, end: int) -> _Entry | None:
        """Return the entry of the last created journal among the first ``end`` entries, or None if it was deleted."""
        for entry in reversed(self._entries[:end]):
            if entry.event is FileEvent.JOURNAL_CREATED:
                return entry
            if entry.event in _ENDS:
                return None
        return None

    def _clear(self, why: Doubt) -> None:
        entries, self._entries = self._entries, []
        self._dropped += len(entries)
        self._base, self._unknown = None, why
        self._close(entries)

    def _close(self, entries: list[_Entry]) -> None:
        """Close the journals that these entries hold, except those that a remaining entry holds, too."""
        used = {id(entry.journal) for entry in self._entries}
        for entry in entries:
            if entry.journal is not None and id(entry.journal) not in used:
                entry.journal.close()

    def _append(self, event: FileEvent | Doubt, journal: OpenFile | None = None, size: int = 0) -> None:
        is_after_mark = self._dropped + len(self._entries) > self._marked
        if journal is None and is_after_mark and self._entries and self._entries[-1].event is event:
            return
        if len(self._entries) < self.entries_max:
            self._entries.append(_Entry(event, journal, size))
            return
        if event is FileEvent.JOURNAL_CREATED and journal is not None:
            journal.close()
        self._clear(Doubt.TOO_MANY)
