"""Decides whether the pages that were read of a database without a WAL are a committed state.

Nothing is locked, so a writer may change the file while it is read. A reading counts only if the looks before and after
it, each in this order, show that nobody changed the file::

    before   events so far · page 1 · locks · journal · size and times · events again: none of the database since
    after    locks · journal · the path's file · size and times · page 1 again · events: still none

- A lock on PENDING or the SHARED range for writing means that a transaction is being written into the file. RESERVED
  alone does no harm, because its holder writes only into the journal.
- A journal that begins with anything but a zero is *hot*: the file is a mixture of two states, and the next process
  that opens the database plays the journal back. While somebody holds RESERVED, the journal belongs to a living writer,
  because SQLite plays a hot journal back before anybody can get RESERVED.
- The change counter, the size and the locks do not suffice. A transaction that spills pages into the file and is rolled
  back between the two looks leaves all three unchanged. But its writes cause events, and write() queues the event
  before the writer can give up its lock. So the locks are asked for first, and the events are counted last.
- Where no events come, the file must have been quiet for longer than the resolution of its times. Then any write
  changes the times.
- Page 1 states WAL mode as soon as a connection switches to it. Checkpoints then put parts of states into the file.

Source: SQLite's pager.c (hasHotJournal, sqlite3PagerSharedLock) and os_unix.c (unixLock), and experiments.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from walsyncd.adapters.files.rollback_files import JournalSight, WriterLocks
from walsyncd.core.sqlite.dbheader import parse_database_header


class Hindrance(Enum):
    """The reason why a read would not give a committed state now, or why the last read did not give one."""

    WRITER = "a writer is in the middle of a transaction"
    HOT = "a rollback journal waits to be played back"
    SUPER_JOURNAL = "a transaction over several databases was interrupted, and waits to be ended"
    WRITTEN = "the database was written while it was read"
    UNSETTLED = "the database was written just now, and no events tell of writes to it"
    REPLACED = "another file was put in the database's place"
    WAL = "the database changed to WAL mode"
    PAGE_SIZE = "the page size changed"
    UNREADABLE = "the first page is not that of a database: it is encrypted, or damaged"
    EMPTY = "the file is empty, or shorter than one page"
    SHORT = "the file is shorter than its first page says"
    UNPROVEN = "what changed is not known"


@dataclass(frozen=True, slots=True)
class FileTimes:
    """The size and times (ns since 1970) of the open file.

    ``settled`` says that any further write would change the times.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    settled: bool

    def is_same(self, other: FileTimes) -> bool:
        """Whether the size and the times are equal to those of ``other``."""
        return (self.size, self.mtime_ns, self.ctime_ns) == (other.size, other.mtime_ns, other.ctime_ns)


class FileLooks(Protocol):
    """The looks at a database. Each shows only the moment of its call."""

    def events(self) -> int:
        """Take in the queued events.

        Returns the number of events of the database file so far, in which each loss of events counts as one.
        """

    def is_watched(self) -> bool:
        """Whether writes to the database cause events."""

    def page_1(self) -> bytes:
        """Read page 1."""

    def locks(self) -> WriterLocks:
        """Return which locks of writers other processes hold."""

    def journal(self) -> JournalSight:
        """Look at the rollback journal."""

    def times(self) -> FileTimes:
        """Return the size and the times of the open file."""

    def is_named(self) -> bool:
        """Whether the database's path names the open file."""


@dataclass(frozen=True, slots=True)
class MomentStart:
    """The looks before the first page. They showed a committed state, which lasts until somebody writes."""

    page_1: bytes
    times: FileTimes
    events: int


def begin_moment(looks: FileLooks) -> MomentStart | Hindrance:
    """Look before the first page is read. Returns the hindrance if the file must not be read now."""
    events = looks.events()
    page_1 = looks.page_1()
    if (hindrance := _in_the_way(looks)) is not None:
        return hindrance
    times = looks.times()
    if looks.events() != events:
        return Hindrance.WRITTEN
    if not looks.is_watched() and not times.settled:
        return Hindrance.UNSETTLED
    header = parse_database_header(page_1)
    if header is not None and header.wal_mode:
        return Hindrance.WAL
    return MomentStart(page_1, times, events)


def end_moment(looks: FileLooks, start: MomentStart, page_1: bytes) -> Hindrance | None:
    """Look after the last page was read. ``page_1`` is the content that was read as page 1.

    Returns None if the pages that were read are a committed state.
    """
    if (hindrance := _in_the_way(looks)) is not None:
        return hindrance
    if not looks.is_named():
        return Hindrance.REPLACED
    if not looks.times().is_same(start.times):
        return Hindrance.WRITTEN
    if page_1 != start.page_1 or looks.page_1() != start.page_1:
        return Hindrance.WRITTEN
    return None if looks.events() == start.events else Hindrance.WRITTEN


def _in_the_way(looks: FileLooks) -> Hindrance | None:
    locks = looks.locks()
    if locks.writing:
        return Hindrance.WRITER
    if locks.reserved:
        return None
    match looks.journal():
        case JournalSight.HOT:
            return Hindrance.HOT
        case JournalSight.SUPER_JOURNAL_GONE:
            return Hindrance.SUPER_JOURNAL
        case JournalSight.COLD:
            return None
