"""The events of a database's files, as ``inotify`` reports them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from walsyncd.adapters.files.source import Role


class Kind(Enum):
    """What happened. The kinds from COUNTED on are our conclusions, not the kernel's events."""

    MODIFY = "modify"
    CLOSE_WRITE = "close write"
    CREATE = "create"
    DELETE = "delete"
    MOVED_FROM = "moved from"
    MOVED_TO = "moved to"
    COUNTED = "counted"  # the MODIFY before it is one write, and no other has been merged with it
    APPEARED = "appeared"  # a new name in a listed folder; the event's path is that name
    OVERFLOW = "overflow"  # events were lost
    WATCH_LOST = "watch lost"  # the folder is gone, or is another one
    REAPPEARED = "reappeared"  # the folder exists and is watched (again); anything may have happened in it


@dataclass(frozen=True, slots=True)
class Event:
    """An event. ``path`` is the database's for every role; with Role.DIRECTORY it is a listed folder or a name in it.

    OVERFLOW, WATCH_LOST and REAPPEARED come once for a database, with Role.DATABASE.
    """

    path: Path
    role: Role
    kind: Kind


def add_counted(found: list[Event], counted: Event) -> None:
    """Append a COUNTED to the events found so far. From the third write in a row on, nothing is added.

    It belongs to the MODIFY that is the last of them. Whoever counts asks only whether there was more than one.
    """
    run = found[-5:]
    if len(run) == 5 and run[0] == run[2] == run[4] and run[1] == run[3] == counted:
        found.pop()
    else:
        found.append(counted)
