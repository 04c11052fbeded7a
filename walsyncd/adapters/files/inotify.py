"""One inotify instance for all databases: reports which file of which database had an event (inotify(7)).

Watches are on folders, because a watch on a file ends when the file is replaced. One watch serves all databases of a
folder; an event of any other file in the folder costs a dictionary lookup. The mask of a watch:

| a folder that | has |
|---|---|
| leads to a folder of the next rows | DELETE, MOVED_FROM, MOVED_TO |
| is listed (for a glob pattern), or lacks a folder that is awaited | CREATE as well |
| holds databases | MODIFY and CLOSE_WRITE as well |

All masks have DELETE_SELF and MOVE_SELF. Every folder from ``/`` down is watched, so that a renamed parent or a
switched symbolic link is seen. When a path stops leading to the watched inode, WATCH_LOST is reported, then REAPPEARED
if another folder is there. A deleted folder that a process still has open sends no DELETE_SELF, but its parent sends
DELETE.

IN_EXCL_UNLINK is not set: writes to an unlinked -wal or -shm, and its close, must be seen, and a spurious event costs
only a look. IN_ATTRIB is not set: an unlink is reported as DELETE even if the file is open.

No mask reports writes through mmap, or through a hard link in another folder. A file system that is mounted over a
watched folder appears in the kernel's mount table, which can be polled (proc(5)).

A watch on a file itself makes its writes countable. The kernel merges an event only with an equal event that was queued
last. A write to such a file queues an event of both watches, so two writes are never merged.

Events are hints: they coalesce, and after an overflow everything must be looked at. The kernel never reuses a watch
descriptor. The mask of a watch only ever grows: too large a mask costs wake-ups, too small a mask loses events.
"""

from __future__ import annotations

import contextlib
import errno
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self, TypeAlias

from inotify_simple import flags

from walsyncd.adapters.files.file_event import CountedFile, Event, Kind
from walsyncd.adapters.files.inotify_queue import MODIFY, InotifyQueue, parse_record
from walsyncd.adapters.files.source import FILE_ROLES, Role, is_side_name, side_path
from walsyncd.errors import UnresponsiveError, UsageError
from walsyncd.file_calls import FileCall, RevocableLock

__all__ = ["Event", "InotifyReader", "Kind", "Role"]

_LEADS = int(flags.ONLYDIR | flags.DELETE_SELF | flags.MOVE_SELF | flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO)
_LISTS = int(_LEADS | flags.CREATE)
_HOLDS = int(_LISTS | flags.MODIFY | flags.CLOSE_WRITE)
_COUNTS = int(flags.DONT_FOLLOW | flags.MODIFY | flags.MASK_ADD)

# Plain integers: every event of every file in a watched folder is compared with these.
_OVERFLOW = int(flags.Q_OVERFLOW)
_SELF = int(flags.DELETE_SELF | flags.MOVE_SELF | flags.UNMOUNT | flags.IGNORED)
_NAMES = int(flags.CREATE | flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO)
_NEW_NAMES = int(flags.CREATE | flags.MOVED_TO)
_IS_FOLDER = int(flags.ISDIR)
_WRITES_MAX = 4096  # files that belong to no database are remembered as well

# Returns whether a new name matters. The second argument says whether the name is a folder's.
Wants: TypeAlias = Callable[[str, bool], bool]

_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_TROUBLE = {
    errno.ENOSPC: "the limit of inotify watches is reached (hint: raise fs.inotify.max_user_watches)",
    errno.EACCES: "permission denied (hint: watching a folder needs read permission on it)",
}

_KINDS = {
    int(flags[kind.name]): kind
    for kind in (Kind.MODIFY, Kind.CLOSE_WRITE, Kind.CREATE, Kind.DELETE, Kind.MOVED_FROM, Kind.MOVED_TO)
}


class _Named(NamedTuple):
    database: Path
    role: Role


@dataclass(slots=True, eq=False)
class _Folder:
    """A node of the tree of folders, from ``/`` to the watched ones."""

    path: Path
    parent: _Folder | None
    children: dict[str, _Folder] = field(default_factory=dict)
    names: dict[str, _Named] = field(default_factory=dict)  # file name → the database and the file's role
    listings: list[Wants] = field(default_factory=list)  # one entry for each ``add_directory`` of this folder
    absent: set[str] = field(default_factory=set)  # children that are not watched
    watch: int | None = None
    asked: int = 0  # the events that this folder needs in the mask of its watch
    trouble: str = ""  # why there is no watch although the folder may exist

    def mask(self) -> int:
        if self.names:
            return _HOLDS
        return _LISTS if self.listings or self.absent else _LEADS

    def is_wanted(self, name: str, mask: int) -> bool:
        """Whether a listing wants this new name."""
        return not is_side_name(name) and any(wants(name, bool(mask & _IS_FOLDER)) for wants in self.listings)

    def events(self, kind: Kind) -> Iterator[Event]:
        """Yield an event for each database and listing of this folder itself."""
        for named in self.names.values():
            if named.role is Role.DATABASE:
                yield Event(named.database, Role.DATABASE, kind)
        if self.listings:
            yield Event(self.path, Role.DIRECTORY, kind)


def _any_name(_name: str, _is_folder: bool) -> bool:
    return True


class InotifyReader:
    """Watches databases and folders, by absolute paths without symbolic links in the last component.

    Every method may be called from any thread, but only one thread may be in ``wait``, none after ``close``.
    """

    def __init__(self) -> None:
        self._queue = InotifyQueue()
        self._lock = RevocableLock()
        self._records: deque[bytes] = deque()  # not processed yet
        self._root = _Folder(Path("/"), None)
        self._folders: dict[Path, _Folder] = {self._root.path: self._root}
        self._by_watch: dict[int, list[_Folder]] = {}  # two paths can lead to the same inode, and share its watch
        self._counted: dict[int, CountedFile] = {}  # files with a watch of their own, by watch
        self._found: list[Event] = []  # not drained yet
        self._writes: dict[bytes, tuple[Event, ...]] = {}  # the meaning of a MODIFY, by its bytes; any change clears it
        self._arm(self._root)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove every watch. No thread may be in ``wait``."""
        self._queue.close()

    def add(self, database: Path) -> None:
        """Watch a database. Neither the database nor its folder has to exist. Adding it twice has no further effect."""
        with self._changing():
            folder = self._folder(database.parent)
            for role in FILE_ROLES:
                folder.names[side_path(database, role).name] = _Named(database, role)
            self._arm(folder)

    def remove(self, database: Path) -> None:
        """Stop watching a database. It is no error if the database is unknown."""
        with self._changing():
            folder = self._folders.get(database.parent)
            if folder is None:
                return
            for role in FILE_ROLES:
                folder.names.pop(side_path(database, role).name, None)
            self._prune(folder)
            for watch in [watch for watch, counted in self._counted.items() if counted.event.path == database]:
                del self._counted[watch]
                self._remove_watch(watch)

    def count_journal_writes(self, database: Path) -> None:
        """Report each write to the -journal that exists now as a MODIFY and a COUNTED, as long as that file exists.

        After many writes one UNCOUNTED is reported, and no more. If the file can't be watched, no COUNTED is reported.
        """
        path = side_path(database, Role.JOURNAL)
        with self._changing(), contextlib.suppress(OSError, UnresponsiveError), FileCall(path, "watch"):
            watch = int(self._queue.inotify.add_watch(path, _COUNTS))
            self._counted[watch] = CountedFile(Event(database, Role.JOURNAL, Kind.COUNTED))

    def add_directory(self, path: Path, wants: Wants = _any_name) -> None:
        """Report new names that ``wants`` accepts in a folder (APPEARED), except databases and side files."""
        with self._changing():
            folder = self._folder(path)
            folder.listings.append(wants)
            self._arm(folder)

    def remove_directory(self, path: Path, wants: Wants = _any_name) -> None:
        """Undo one ``add_directory``."""
        with self._changing():
            folder = self._folders.get(path)
            if folder is None or wants not in folder.listings:
                return
            folder.listings.remove(wants)
            self._prune(folder)

    def wait(self, timeout: float | None = None) -> bool:
        """Block until there are events (True), ``wake`` is called or ``timeout`` seconds have passed (False)."""
        has_events, has_mounts = self._queue.wait(timeout)
        if has_mounts:
            self.recheck()
        with self._lock:
            return has_events or bool(self._found)

    def pause(self, timeout: float) -> None:
        """Block for ``timeout`` seconds, whatever events come, or until ``wake`` is called. ``wait`` then returns."""
        self._queue.pause(timeout)

    def fileno(self) -> int:
        """The descriptor that is readable while events wait, for callers that also wait for other things."""
        return self._queue.fileno()

    def wake(self) -> None:
        """Make ``wait`` return, now or at its next call."""
        self._queue.wake()

    def drain(self) -> list[Event]:
        """Return all events that were queued before this call (and perhaps more), in that order. It never blocks.

        Two threads that drain get a part of the events each. So hold one lock during the call and the processing of the
        events. Otherwise a thread can find the queue empty before the other has processed the events from it.
        """
        with self._lock:
            self._records.extend(self._queue.records())
            while self._records:  # one by one: a thread that hangs in a record leaves the others to its successor
                self._take_record(self._records.popleft())
            found, self._found = self._found, []
            return found

    def recheck(self) -> None:
        """Check that every path still leads to its watched folder, since some changes cause no event."""
        with self._changing():
            self._recheck()

    def is_watched(self, database: Path) -> bool:
        """Whether events report what happens to this database."""
        with self._lock:
            folder = self._folders.get(database.parent)
            return folder is not None and not _blind(folder)

    def unwatched(self) -> dict[Path, str]:
        """Return the databases that have no events, each with the cause. Look at these databases periodically."""
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
        """Hold the lock, and wake the waiting thread if a change of the tree has caused events."""
        with self._lock:
            self._writes.clear()
            yield
            if self._found:
                self.wake()

    def _take_record(self, record: bytes) -> None:
        """Process one event of the kernel. The events that a MODIFY results in are remembered by its bytes."""
        known = self._writes.get(record)
        if known is not None:
            self._found += known
            return
        count, (watch, mask, name) = len(self._found), parse_record(record)
        self._take(watch, mask, name)
        if mask == MODIFY and name:
            if len(self._writes) >= _WRITES_MAX:
                self._writes.clear()
            self._writes[record] = tuple(self._found[count:])

    def _take(self, watch: int, mask: int, name: str) -> None:
        if mask & _OVERFLOW:
            for folder in self._folders.values():
                self._found.extend(folder.events(Kind.OVERFLOW))
            self._recheck()
            return
        counted = self._counted.get(watch)
        if counted is not None and mask & MODIFY:
            if counted.take(self._found):
                self._remove_watch(watch)
        elif counted is not None and mask & _SELF:
            del self._counted[watch]
        # There is no folder if the watch was removed. The loop needs a copy, since arming changes the list.
        for folder in tuple(self._by_watch.get(watch, ())):
            if mask & _SELF:
                self._arm(folder)
            else:
                self._take_name(folder, mask, name)

    def _take_name(self, folder: _Folder, mask: int, name: str) -> None:
        named = folder.names.get(name)
        if named is not None:
            # A mask rarely has more than one bit. A truncation that clears setuid is MODIFY and ATTRIB.
            self._found.extend(Event(*named, kind) for bit, kind in _KINDS.items() if mask & bit)
        if not mask & _NAMES:
            return
        if folder.listings and named is None and mask & _NEW_NAMES and folder.is_wanted(name, mask):
            self._found.append(Event(folder.path / name, Role.DIRECTORY, Kind.APPEARED))
        child = folder.children.get(name)
        if child is not None:
            self._arm(child)

    def _folder(self, path: Path) -> _Folder:
        """Return the node of ``path``. A new node is created and armed, after new nodes above it."""
        if not path.is_absolute():
            raise UsageError(f"watch {path}: not an absolute path")
        folder = self._folders.get(path)
        if folder is None:
            parent = self._folder(path.parent)
            folder = self._folders[path] = parent.children[path.name] = _Folder(path, parent)
            self._arm(folder)
        return folder

    def _prune(self, folder: _Folder) -> None:
        """Remove a folder if it is no longer needed, and then in the same way the folders above it."""
        parent = folder.parent
        if parent is None or folder.names or folder.listings or folder.children:
            return
        self._give_up(folder)
        del self._folders[folder.path], parent.children[folder.path.name]
        parent.absent.discard(folder.path.name)
        self._prune(parent)

    def _recheck(self) -> None:
        # A folder comes after its parent in this dictionary, so the parent is armed first.
        for folder in tuple(self._folders.values()):
            self._arm(folder)

    def _arm(self, folder: _Folder) -> None:
        """Watch what the folder's path leads to now. If that has changed, report it."""
        watch = self._ask(folder)
        if watch is None and not folder.trouble and self._await(folder):
            watch = self._ask(folder)  # the folder may have appeared before its parent's watch reported new names
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
        """Return the kernel's watch for what the path leads to. The same inode has the same watch as before."""
        folder.asked |= folder.mask()
        try:
            with FileCall(folder.path, "watch"):
                watch: int | None = int(self._queue.inotify.add_watch(folder.path, folder.asked | flags.MASK_ADD))
                folder.trouble = ""
        except UnresponsiveError as error:
            watch, folder.trouble = None, error.message
        except OSError as error:
            watch = None
            folder.trouble = "" if error.errno in _ABSENT else _TROUBLE.get(error.errno or 0, str(error.strerror))
        return watch

    def _await(self, folder: _Folder) -> bool:
        """Have the parent report when the folder appears. Returns whether the parent's watch had to be changed."""
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
        self._writes.clear()
        self._by_watch.setdefault(watch, []).append(folder)
        if folder.parent is not None:
            folder.parent.absent.discard(folder.path.name)

    def _give_up(self, folder: _Folder) -> None:
        """Take the watch from the folder. If no other folder uses that watch, remove it from the kernel."""
        watch, folder.watch = folder.watch, None
        self._writes.clear()
        if watch is None:
            return
        peers = self._by_watch[watch]
        peers.remove(folder)
        if not peers:
            del self._by_watch[watch]
            self._remove_watch(watch)

    def _remove_watch(self, watch: int) -> None:
        with contextlib.suppress(OSError):  # EINVAL: the kernel removed the watch with the folder, or the file
            self._queue.inotify.rm_watch(watch)


def _blind(folder: _Folder) -> str:
    """Return why no event can report about a folder, or "" if it is watched, or is absent and awaited."""
    while folder.watch is None and not folder.trouble and folder.parent is not None:
        folder = folder.parent
    return folder.trouble if folder.watch is None else ""
