"""The events of a database's files, as ``inotify`` reports them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from walsyncd.adapters.files.source import Role

COUNTED_MAX = 1000  # writes; each takes two places of the kernel's queue, which has 16,384 (inotify(7))


class Kind(Enum):
    """What happened. The kinds from COUNTED on are our conclusions, not the kernel's events."""

    MODIFY = "modify"
    CLOSE_WRITE = "close write"
    CREATE = "create"
    DELETE = "delete"
    MOVED_FROM = "moved from"
    MOVED_TO = "moved to"
    COUNTED = "counted"  # the MODIFY before this event is one write, and no other write was merged with it
    UNCOUNTED = "uncounted"  # from now on, writes may be merged
    APPEARED = "appeared"  # a new name in a listed folder; the event's path is that name
    OVERFLOW = "overflow"  # events were lost
    WATCH_LOST = "watch lost"  # the folder is gone, or its path leads to another folder
    REAPPEARED = "reappeared"  # the folder exists and is watched (again); anything may have happened in it


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a database's file, or of a listed folder.

    ``path`` is the database's path. With Role.DIRECTORY it is the path of a listed folder or of a name in it. OVERFLOW,
    WATCH_LOST and REAPPEARED are reported once for each database, with Role.DATABASE.
    """

    path: Path
    role: Role
    kind: Kind


def add_counted(found: list[Event], counted: Event) -> None:
    """Append a COUNTED to the events found so far. From the third write in a row on, nothing is added.

    A COUNTED belongs to the MODIFY before it. Callers that count only ask whether there was more than one write.
    """
    run = found[-5:]
    if len(run) == 5 and run[0] == run[2] == run[4] and run[1] == run[3] == counted:
        found.pop()
    else:
        found.append(counted)


@dataclass(slots=True)
class CountedFile:
    """A file whose writes are counted. ``left`` is how many more writes are counted.

    Without this limit a long transaction would fill the kernel's queue, and the events of all databases would be lost.
    """

    event: Event
    left: int = COUNTED_MAX

    def take(self, found: list[Event]) -> bool:
        """Append the event of a counted write. Returns whether this write is the last one that is counted."""
        self.left -= 1
        if self.left:
            add_counted(found, self.event)
        else:
            found.append(replace(self.event, kind=Kind.UNCOUNTED))
        return not self.left
