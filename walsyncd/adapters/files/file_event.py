"""The events of a database's files, as ``inotify`` reports them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from walsyncd.adapters.files.source import Role

COUNTED_MAX = 1000  # writes: each takes two places of the kernel's queue, which has 16,384 (inotify(7))


class Kind(Enum):
    """What happened. The kinds from COUNTED on are our conclusions, not the kernel's events."""

    MODIFY = "modify"
    CLOSE_WRITE = "close write"
    CREATE = "create"
    DELETE = "delete"
    MOVED_FROM = "moved from"
    MOVED_TO = "moved to"
    COUNTED = "counted"  # the MODIFY before it is one write, and no other has been merged with it
    UNCOUNTED = "uncounted"  # from now on, writes may be merged
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


@dataclass(slots=True)
class CountedFile:
    """A file whose writes are counted, and how many still are.

    A long transaction would fill the kernel's queue, and the events of all databases would be lost.
    """

    event: Event
    left: int = COUNTED_MAX

    def take(self, found: list[Event]) -> bool:
        """Append what a counted write means. Returns whether it is the last one that is counted."""
        self.left -= 1
        if self.left:
            add_counted(found, self.event)
        else:
            found.append(replace(self.event, kind=Kind.UNCOUNTED))
        return not self.left
