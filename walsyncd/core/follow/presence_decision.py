"""Presence: the daemon holds the locks of an idle SQLite connection, so that no close is the last close.

An application that opens and closes the database for every request creates and deletes the WAL each time. SQLite's last
close checkpoints and deletes the WAL only if it gets the database for itself. An opener rebuilds the wal-index only if
no process uses it (sqlite.org/walformat.html 2.3, unixLockSharedMemory in SQLite's os_unix.c). So two shared locks keep
the WAL and the count of commits going: one on the DMS byte of the -shm, and one on the SHARED bytes of the database.

- **Never first on DMS.** A lock on DMS means "this wal-index is in use, believe it". On a stale wal-index (after a
  power cut, in a copied or restored folder), it would suppress SQLite's recovery, and the next commit would overwrite
  committed frames. So the lock is taken only while a process holds DMS, which shows that the wal-index is good; the
  lock of another walsyncd shows nothing. After the lock is taken, the path must still name the file and a process must
  still be there, else the lock is given up at once. The lock is also given up if the wal-index does not fit its WAL any
  more, because somebody put another WAL there while nobody had the database open.
- The database is locked only after DMS is, and only while DMS is locked. It is not locked while a process has the
  database for itself, or waits for that.
- Neither lock is held while there is a hot journal: to play it back, a process needs the database for itself.
- Neither lock is held for longer than ``ALONE_MS`` without another process. Then a process that wants the database for
  itself (exclusive mode, unix-excl) gets it. A process that only an event shows counts as such a process; another
  daemon does not.
- Nothing else is ever locked, above all no lock slot of the wal-index.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

ALONE_MS = 10_000  # long enough for an application with a request every few seconds, short enough for one that waits

PRICE = (
    "after a clean stop of the application its last transactions stay in the -wal, so copying or replacing the bare "
    ".db file then loses or corrupts data; journal_mode=DELETE and locking_mode=EXCLUSIVE are refused while it is held"
)


class HeldLocks(Enum):
    """Which locks the daemon holds."""

    NOTHING = "nothing"
    DMS = "DMS"
    BOTH = "DMS and database"


class Others(Enum):
    """Who else holds the DMS byte, as far as one query of the lock shows."""

    NOBODY = "nobody"
    PROCESS = "a process that uses SQLite"
    DAEMON = "another walsyncd"
    SETTING_UP = "somebody who sets the wal-index up"


@dataclass(frozen=True, slots=True)
class Seen:
    """What is seen through the descriptors that hold the locks or would hold them.

    ``named``: the paths of database, -wal and -shm name these files. ``fits``: the wal-index belongs to this WAL; this
    is not checked while a process is there. ``claimed``: a process has the database for itself, or waits for that.
    ``alone_ms``: for how long no other process has been seen.
    """

    others: Others
    named: bool
    fits: bool
    claimed: bool
    hot_journal: bool
    alone_ms: int


@dataclass(frozen=True, slots=True)
class TakeDms:
    """Lock the DMS byte, then look again."""


@dataclass(frozen=True, slots=True)
class TakeDatabase:
    """Lock the database, then look again."""


@dataclass(frozen=True, slots=True)
class Stay:
    """Leave everything as it is. Look again after ``look_ms``, or at the next event if ``look_ms`` is None."""

    look_ms: int | None


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Release whatever is held, because of ``reason``."""

    reason: str


Decision = TakeDms | TakeDatabase | Stay | GiveUp


def decide(held: HeldLocks, seen: Seen) -> Decision:
    """Return what to do about a database whose settings ask for presence."""
    if fault := _in_the_way(seen):
        return GiveUp(fault)
    match held:
        case HeldLocks.NOTHING:
            return TakeDms() if seen.others is Others.PROCESS else GiveUp(f"DMS is held by {seen.others.value}")
        case HeldLocks.DMS if seen.others is not Others.PROCESS:
            return GiveUp("the process that used the database is gone")
        case HeldLocks.DMS:
            return GiveUp("another process wants the database for itself") if seen.claimed else TakeDatabase()
        case HeldLocks.BOTH:
            return _stay(seen)


def _in_the_way(seen: Seen) -> str:
    if not seen.named:
        return "the database, its WAL or its wal-index has gone, or is another file"
    if not seen.fits:
        return "another WAL was put in the place of the one that the wal-index is of"
    return "a rollback journal waits to be played back" if seen.hot_journal else ""


def _stay(seen: Seen) -> Decision:
    """Stay while a process is there, whose close will be an event. Without a process, stay for ``ALONE_MS``."""
    if seen.others is Others.PROCESS:
        return Stay(None)
    if seen.alone_ms >= ALONE_MS:
        return GiveUp(f"no other process has been seen for {ALONE_MS // 1000} s")
    return Stay(ALONE_MS - seen.alone_ms)
