"""Whether what was read of a database without a WAL is a committed state.

Nothing is locked, so a writer may change the file while it is read. What was read counts only if the looks before it
and after it, each in this order, show that nobody did::

    before   events so far · page 1 · locks · journal · size and times · events again: none of the database since
    after    locks · journal · the path's file · size and times · page 1 again · events: still none

- A lock on PENDING or the SHARED range for writing means that a transaction is being written into the file. RESERVED
  alone does no harm, because its holder writes only into its journal.
- A journal that begins with anything but a zero is *hot*: the file is a mixture, and the next process that opens the
  database plays the journal back. While somebody holds RESERVED, the journal is that of a living writer. SQLite plays
  a hot journal back before anybody can get RESERVED.
- Counter, size and locks do not suffice. A transaction that spills pages into the file and is rolled back between the
  two looks leaves all three as they were. Its writes are events, and write() queues the event before the writer can
  give up its lock. So the locks are asked first and the events are counted last.
- Where no events come, the file must have been quiet before for longer than its times are coarse. Any write then
  changes the times.
- Page 1 says WAL mode as soon as a connection switches to it. Checkpoints then put parts of states into the file.

Source: SQLite's pager.c (hasHotJournal, sqlite3PagerSharedLock) and os_unix.c (unixLock), and experiments.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from walsyncd.adapters.files.rollback_files import JournalSight, WriterLocks
from walsyncd.core.sqlite.dbheader import parse_database_header


class Hindrance(Enum):
    """The reason why a read now would not give a committed state, or why a read did not."""

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
    """Size and times (ns since 1970) of the open file. ``settled``: any further write would change the times."""

    size: int
    mtime_ns: int
    ctime_ns: int
    settled: bool

    def is_same(self, other: FileTimes) -> bool:
        """Whether size and times are equal."""
        return (self.size, self.mtime_ns, self.ctime_ns) == (other.size, other.mtime_ns, other.ctime_ns)


class FileLooks(Protocol):
    """The looks at a database, each of this moment alone."""

    def events(self) -> int:
        """Take in the queued events. Returns how many of the database itself there have been, losses counted too."""

    def is_watched(self) -> bool:
        """Whether writes to the database are events."""

    def page_1(self) -> bytes:
        """Read page 1."""

    def locks(self) -> WriterLocks:
        """Ask which locks of writers others hold."""

    def journal(self) -> JournalSight:
        """Look at the rollback journal."""

    def times(self) -> FileTimes:
        """Ask for size and times."""

    def is_named(self) -> bool:
        """Whether the database's path names the open file."""


@dataclass(frozen=True, slots=True)
class MomentStart:
    """The looks before the first page: they showed a committed state, unless something happens to it from now on."""

    page_1: bytes
    times: FileTimes
    events: int


def begin_moment(looks: FileLooks) -> MomentStart | Hindrance:
    """Look before the first page is read. Returns why it must not be read now, if there is a reason."""
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
    """Look after the last page was read. ``page_1`` is what was read as page 1.

    Returns None if what was read is a committed state.
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
