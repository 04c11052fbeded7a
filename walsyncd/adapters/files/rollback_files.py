"""Looks at the locks of a rollback-mode database's writers, and at its journal.

| byte of the database file | a writer's lock there | its holder |
|---|---|---|
| 0x40000000 | PENDING | is about to write the file, and waits for readers |
| 0x40000001 | RESERVED | has begun a transaction; only its journal is written |
| 0x40000002, 510 bytes | EXCLUSIVE | writes the file, or plays a journal back |

A journal names a super-journal at its end if the transaction covers several databases. Such a transaction is committed
as soon as its super-journal is deleted. The next process that opens the database only deletes a journal that still
names the super-journal, and does not play it back (``core.sqlite.rollback_journal``).
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from walsyncd.adapters.files.source import OpenFile, Role, file_access, lock_of_others, open_file, side_path
from walsyncd.core.sqlite.rollback_journal import super_journal_name

_PENDING = (0x40000000, 1)
_RESERVED = (0x40000001, 1)
_SHARED = (0x40000002, 510)


class JournalSight(Enum):
    """What a rollback journal means for the database file."""

    COLD = "there is none, or it is ended"
    HOT = "the file is a mixture until it is played back"
    SUPER_JOURNAL_GONE = "the transaction is committed, and the journal waits to be deleted"


@dataclass(frozen=True, slots=True)
class WriterLocks:
    """The locks of writers. ``writing`` means PENDING or EXCLUSIVE, so the file itself may be written."""

    reserved: bool
    writing: bool


def writer_locks(database: OpenFile) -> WriterLocks:
    """Ask which locks of writers others hold on the database file. The first query is for PENDING and EXCLUSIVE."""
    writing = any(lock_of_others(database, *place) == fcntl.F_WRLCK for place in (_PENDING, _SHARED))
    return WriterLocks(reserved=lock_of_others(database, *_RESERVED) == fcntl.F_WRLCK, writing=writing)


def journal_size(database: Path) -> int | None:
    """Return the size in bytes of the -journal beside the database now, or None if there is none."""
    path = side_path(database, Role.JOURNAL)
    with file_access("stat", path):
        try:
            return os.lstat(path).st_size
        except (FileNotFoundError, NotADirectoryError):
            return None


def journal_sight(database: Path, *, own_only: bool = False) -> JournalSight:
    """Look at the rollback journal beside the database."""
    journal = open_file(side_path(database, Role.JOURNAL), own_only=own_only)
    if journal is None:
        return JournalSight.COLD
    with journal:
        if journal.pread(0, 1) in {b"", b"\x00"}:
            return JournalSight.COLD
        found = super_journal_name(journal.pread, journal.size())
    name = None if found is None else Path(os.fsdecode(found))
    # The application may see other folders than we do. Then the name in its journal says nothing.
    if name is None or name.parent != database.parent or name.exists():
        return JournalSight.HOT
    return JournalSight.SUPER_JOURNAL_GONE
