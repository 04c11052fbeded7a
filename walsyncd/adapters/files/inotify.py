"""One inotify instance for all databases: which file of which database something happened to (inotify(7)).

Watches are on folders, never on files (a watch on a file dies when it is replaced). One watch serves all
databases of a folder; files of others in it cost a dictionary lookup an event. What is asked of a folder:

| a folder that | is asked for |
|---|---|
| leads to one of the others | DELETE, MOVED_FROM, MOVED_TO |
| is listed (for a glob pattern), or lacks a folder that is awaited | CREATE as well |
| holds databases | MODIFY and CLOSE_WRITE as well |

and all of them for DELETE_SELF and MOVE_SELF. Every folder from ``/`` down is watched, so that a renamed
parent or a switched symbolic link is seen: a folder whose path leads to another inode is WATCH_LOST, then
REAPPEARED if there is one. A deleted folder that somebody still has open sends no DELETE_SELF; the DELETE in
its parent tells.

IN_EXCL_UNLINK is not set: a write to, or the close of, an unlinked -wal or -shm must be seen, and a spurious
event costs a look. IN_ATTRIB is not asked for: an unlink shows as DELETE whoever holds the file.

Not seen, whatever the mask: writes through mmap; writes through a hard link in another folder; another file
system mounted over a watched folder, until ``recheck``.

Events are hints: they coalesce, and after an overflow everything must be looked at. The kernel uses no watch
descriptor twice. The mask of a watch only ever grows: too much of it costs wake-ups, too little events.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import select
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from threading import Lock
from typing import NamedTuple, Self

from inotify_simple import INotify, flags

from walsyncd.adapters.files.source import FILE_ROLES, Role, is_side_name, side_path
from walsyncd.errors import RefusedError, UsageError

__all__ = ["Event", "InotifyReader", "Kind", "Role"]

_LEADS = int(flags.ONLYDIR | flags.DELETE_SELF | flags.MOVE_SELF | flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO)
_LISTS = int(_LEADS | flags.CREATE)
_HOLDS = int(_LISTS | flags.MODIFY | flags.CLOSE_WRITE)

# Plain integers: every event of every file in a watched folder is compared with these.
_OVERFLOW = int(flags.Q_OVERFLOW)
_SELF = int(flags.DELETE_SELF | flags.MOVE_SELF | flags.UNMOUNT | flags.IGNORED)
_NAMES = int(flags.CREATE | flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO)
_NEW_NAMES = int(flags.CREATE | flags.MOVED_TO)

_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_TROUBLE = {
    errno.ENOSPC: "the limit of inotify watches is reached (hint: raise fs.inotify.max_user_watches)",
    errno.EACCES: "permission denied (hint: watching a folder needs read permission on it)",
}


class Kind(Enum):
    """What happened; from APPEARED on it is not the kernel's word but our conclusion."""

    MODIFY = "modify"
    CLOSE_WRITE = "close write"
    CREATE = "create"
    DELETE = "delete"
    MOVED_FROM = "moved from"
    MOVED_TO = "moved to"
    APPEARED = "appeared"  # a new name in a listed folder; the event's path is that name
    OVERFLOW = "overflow"  # events were lost
    WATCH_LOST = "watch lost"  # the folder is gone, or is another one
    REAPPEARED = "reappeared"  # the folder is there and watched (again); anything may have happened in it


_KINDS = {
    int(flags[kind.name]): kind
    for kind in (Kind.MODIFY, Kind.CLOSE_WRITE, Kind.CREATE, Kind.DELETE, Kind.MOVED_FROM, Kind.MOVED_TO)
}


@dataclass(frozen=True, slots=True)
class Event:
    """``path`` is the database's, whatever the role; with Role.DIRECTORY a listed folder or a name in it.

    OVERFLOW, WATCH_LOST and REAPPEARED come once for a database, with Role.DATABASE.
    """

    path: Path
    role: Role
    kind: Kind


class _Named(NamedTuple):
    database: Path
    role: Role


@dataclass(slots=True, eq=False)
class _Folder:
    """A node of the tree of folders from ``/`` to those of interest."""

    path: Path
    parent: _Folder | None
    children: dict[str, _Folder] = field(default_factory=dict)
    names: dict[str, _Named] = field(default_factory=dict)  # file name → what it is
    listings: int = 0  # how many want its new names
    absent: set[str] = field(default_factory=set)  # children that are not watched
    watch: int | None = None
    asked: int = 0  # the mask of the watch, as far as this folder asked for it
    trouble: str = ""  # why there is no watch although the folder may exist

    def mask(self) -> int:
        if self.names:
            return _HOLDS
        return _LISTS if self.listings or self.absent else _LEADS

    def events(self, kind: Kind) -> Iterator[Event]:
        """An event for everything of interest in this very folder."""
        for named in self.names.values():
            if named.role is Role.DATABASE:
                yield Event(named.database, Role.DATABASE, kind)
        if self.listings:
            yield Event(self.path, Role.DIRECTORY, kind)


class InotifyReader:
    """Watches databases and folders, by absolute paths without symbolic links in the last component.

    Every method may be called from any thread, but only one thread may be in ``wait``, none after ``close``.
    """

    def __init__(self) -> None:
        try:
            self._inotify = INotify(nonblocking=True)
        except OSError as error:
            raise RefusedError(
                f"start inotify: {error.strerror}", hint="raise fs.inotify.max_user_instances or LimitNOFILE"
            ) from error
        self._alarm = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._inotify.fileno(), select.POLLIN)
        self._poll.register(self._alarm, select.POLLIN)
        self._lock = Lock()
        self._root = _Folder(Path("/"), None)
        self._folders: dict[Path, _Folder] = {self._root.path: self._root}
        # Two paths can lead to one inode, and an inode has one watch.
        self._by_watch: dict[int, list[_Folder]] = {}
        self._found: list[Event] = []  # not drained yet
        self._arm(self._root)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up every watch; no thread may be in ``wait``."""
        self._inotify.close()
        os.close(self._alarm)

    def add(self, database: Path) -> None:
        """Watch a database, which need not exist, nor its folder; twice is once."""
        with self._changing():
            folder = self._folder(database.parent)
            for role in FILE_ROLES:
                folder.names[side_path(database, role).name] = _Named(database, role)
            self._arm(folder)

    def remove(self, database: Path) -> None:
        """Stop watching a database; an unknown one is no error."""
        with self._changing():
            folder = self._folders.get(database.parent)
            if folder is None:
                return
            for role in FILE_ROLES:
                folder.names.pop(side_path(database, role).name, None)
            self._prune(folder)

    def add_directory(self, path: Path) -> None:
        """Tell about new names in a folder (APPEARED), those of databases and their side files apart."""
        with self._changing():
            folder = self._folder(path)
            folder.listings += 1
            self._arm(folder)

    def remove_directory(self, path: Path) -> None:
        """Take one ``add_directory`` back."""
        with self._changing():
            folder = self._folders.get(path)
            if folder is None or not folder.listings:
                return
            folder.listings -= 1
            self._prune(folder)

    def wait(self, timeout: float | None = None) -> bool:
        """Block until there are events (True), ``wake`` is called or ``timeout`` seconds are over (False)."""
        ready = {fd for fd, _ in self._poll.poll(None if timeout is None else math.ceil(timeout * 1000))}
        if self._alarm in ready:
            os.eventfd_read(self._alarm)
        with self._lock:
            return self._inotify.fileno() in ready or bool(self._found)

    def wake(self) -> None:
        """Make ``wait`` return, now or at its next call."""
        os.eventfd_write(self._alarm, 1)

    def drain(self) -> list[Event]:
        """All events that were queued before this call (and perhaps more), in that order; never blocks.

        Of two threads that drain, each gets a part. So hold one lock over the call and over what follows from
        it, else a thread can find the queue empty before the other has noted what was in it.
        """
        with self._lock:
            for watch, mask, _, name in self._inotify.read(timeout=0):
                self._take(watch, mask, name)
            found, self._found = self._found, []
            return found

    def recheck(self) -> None:
        """Look whether every path still leads to the watched folder: for what no event tells."""
        with self._changing():
            self._recheck()

    def is_watched(self, database: Path) -> bool:
        """Whether events tell what happens to this database."""
        with self._lock:
            folder = self._folders.get(database.parent)
            return folder is not None and not _blind(folder)

    def unwatched(self) -> dict[Path, str]:
        """Databases of which no event will tell, with the cause: these must be looked at by the clock."""
        with self._lock:
            causes = ((folder, _blind(folder)) for folder in self._folders.values() if folder.names)
            return {
                named.database: cause
                for folder, cause in causes
                if cause
                for named in folder.names.values()
                if named.role is Role.DATABASE
            }

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Under the lock; what a change of the tree discovers wakes the waiting thread."""
        with self._lock:
            yield
            if self._found:
                self.wake()

    def _take(self, watch: int, mask: int, name: str) -> None:
        """One event of the kernel."""
        if mask & _OVERFLOW:
            for folder in self._folders.values():
                self._found.extend(folder.events(Kind.OVERFLOW))
            self._recheck()
            return
        # No folders: an event of a watch that was given up. A copy, as arming changes the list.
        for folder in tuple(self._by_watch.get(watch, ())):
            if mask & _SELF:
                self._arm(folder)
            else:
                self._take_name(folder, mask, name)

    def _take_name(self, folder: _Folder, mask: int, name: str) -> None:
        named = folder.names.get(name)
        if named is not None:
            # More than one bit is rare, but a truncation can clear setuid (MODIFY and ATTRIB).
            self._found.extend(Event(*named, kind) for bit, kind in _KINDS.items() if mask & bit)
        if not mask & _NAMES:
            return
        if folder.listings and named is None and mask & _NEW_NAMES and not is_side_name(name):
            self._found.append(Event(folder.path / name, Role.DIRECTORY, Kind.APPEARED))
        child = folder.children.get(name)
        if child is not None:
            self._arm(child)

    def _folder(self, path: Path) -> _Folder:
        """The node of ``path``, made and armed with those above it if need be."""
        if not path.is_absolute():
            raise UsageError(f"watch {path}: not an absolute path")
        folder = self._folders.get(path)
        if folder is None:
            parent = self._folder(path.parent)
            folder = self._folders[path] = parent.children[path.name] = _Folder(path, parent)
            self._arm(folder)
        return folder

    def _prune(self, folder: _Folder) -> None:
        """Forget a folder that is of no interest any more, and those above it."""
        parent = folder.parent
        if parent is None or folder.names or folder.listings or folder.children:
            return
        self._give_up(folder)
        del self._folders[folder.path], parent.children[folder.path.name]
        parent.absent.discard(folder.path.name)
        self._prune(parent)

    def _recheck(self) -> None:
        # A folder comes after its parent in this dictionary, so that it is armed under a settled one.
        for folder in tuple(self._folders.values()):
            self._arm(folder)

    def _arm(self, folder: _Folder) -> None:
        """Bring a folder's watch in line with what its path leads to now; report it if that changed."""
        watch = self._ask(folder)
        if watch is None and not folder.trouble and self._await(folder):
            watch = self._ask(folder)  # it may have come before its parent was asked to tell
        if watch == folder.watch:
            return
        if folder.watch is not None:
            self._give_up(folder)
            self._found.extend(folder.events(Kind.WATCH_LOST))
        if watch is not None:
            self._hold(folder, watch)
            self._found.extend(folder.events(Kind.REAPPEARED))
        for child in folder.children.values():
            self._arm(child)

    def _ask(self, folder: _Folder) -> int | None:
        """The kernel's watch for what the path leads to: for the same inode the same one as before."""
        folder.asked |= folder.mask()
        try:
            watch = self._inotify.add_watch(folder.path, folder.asked | flags.MASK_ADD)
        except OSError as error:
            absent = error.errno in _ABSENT
            folder.trouble = "" if absent else _TROUBLE.get(error.errno or 0, str(error.strerror))
            return None
        folder.trouble = ""
        return int(watch)

    def _await(self, folder: _Folder) -> bool:
        """Have the parent tell when the folder appears; whether it does so only from now on."""
        parent = folder.parent
        if parent is None:
            return False
        parent.absent.add(folder.path.name)
        if parent.watch is None or parent.asked & flags.CREATE:
            return False
        self._arm(parent)
        return True

    def _hold(self, folder: _Folder, watch: int) -> None:
        folder.watch = watch
        self._by_watch.setdefault(watch, []).append(folder)
        if folder.parent is not None:
            folder.parent.absent.discard(folder.path.name)

    def _give_up(self, folder: _Folder) -> None:
        """Let go of the folder's watch, and of the kernel's if nobody else needs it."""
        watch, folder.watch = folder.watch, None
        if watch is None:
            return
        peers = self._by_watch[watch]
        peers.remove(folder)
        if not peers:
            del self._by_watch[watch]
            with contextlib.suppress(OSError):  # EINVAL: the folder's end was its end
                self._inotify.rm_watch(watch)


def _blind(folder: _Folder) -> str:
    """Why no event can tell about a folder, or "" if it is watched, or absent and awaited."""
    while folder.watch is None and not folder.trouble and folder.parent is not None:
        folder = folder.parent
    return folder.trouble if folder.watch is None else ""
