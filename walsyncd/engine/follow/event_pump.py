"""The thread that reads inotify. It only opens descriptors, takes the two locks of presence, and marks databases.

A look at a database may be put off (``read_ahead.deferred_look``). Then it reads what was committed, up to a megabyte.

Two threads drain the queue, under one lock: this thread when events come, and the follower's before it believes a
header.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import structlog

from walsyncd.adapters.files.inotify import Event, InotifyReader, Kind
from walsyncd.adapters.files.source import Role
from walsyncd.config import NewNames
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.schedule import Schedule
from walsyncd.engine.follow.wal_pair import Drains
from walsyncd.engine.threads.boundary import boundary
from walsyncd.engine.threads.stall_detector import StallDetector
from walsyncd.errors import WalsyncdError
from walsyncd.file_calls import RevocableLock

RECHECK_S = 60.0  # mounts and limits change without an event

# While writes to WALs come faster than this, several times in a row, their events stay in the kernel's queue for this
# long after each drain, where they merge. Any other event ends that, and the first writes of a quiet database never
# wait. No event is left there while a database has no WAL: a new WAL may be gone again before the pause is over.
PAUSE_S = 0.005
QUICK_S = 0.0075  # between the beginnings of two drains
QUICK_DRAINS = 4
PAUSE_DATABASES_MAX = 100  # each is checked before a pause

_WRITES = {Kind.MODIFY, Kind.CLOSE_WRITE}
_COUNTS = {Kind.COUNTED, Kind.UNCOUNTED}  # each belongs to the MODIFY before it, which is reason enough for a look

_log = structlog.get_logger()


class EventPump:
    """Hands every event to its database, and ``wake`` the databases that are to be looked at.

    With a ``schedule``, looks may be put off, and this thread reads what is committed meanwhile (``read_ahead``).

    ``appeared`` is called when paths and patterns may stand for something else now: a name that was waited for has
    appeared, or something other than a write happened to a database.
    """

    def __init__(
        self,
        watcher: InotifyReader,
        wake: Callable[[Iterable[FollowedDatabase]], None],
        appeared: Callable[[], None],
        stall_detector: StallDetector | None = None,
        schedule: Schedule | None = None,
        *,
        quick_s: float = QUICK_S,
    ) -> None:
        self._watcher = watcher
        self._wake = wake
        self._appeared = appeared
        self._schedule = schedule
        self._stall_detector = stall_detector or StallDetector()
        self._lock = RevocableLock()
        # The databases whose events are being taken in. A thread that hangs in one database's event leaves the others
        # to its successor.
        self._events: deque[Event] = deque()
        self._touched: dict[int, FollowedDatabase] = {}
        self._urgent: set[int] = set()  # something else than a write to the WAL happened to these
        self._unread: dict[int, FollowedDatabase] = {}  # a commit of these was written and not published
        # The databases in a transaction, each with the time to wake it if the transaction's end does not wake it.
        # Only the thread that waits for events uses this.
        self._inside: dict[int, tuple[FollowedDatabase, float]] = {}
        self._appears = False
        self._drains = Drains()
        self._tracked: dict[Path, FollowedDatabase] = {}
        self._folders: dict[Path, dict[NewNames, Callable[[str, bool], bool]]] = {}
        self._unwatched: set[Path] = set()
        self._quick_s = quick_s
        self._stopping = False

    def add(self, tracked: FollowedDatabase) -> None:
        """Watch a database from now on."""
        with self._lock:
            self._tracked[tracked.path] = tracked
            tracked.wal_pairs.watched = False  # stays so if this fails; then it is looked at every second
            self._watcher.add(tracked.path)
            tracked.wal_pairs.watched = self._watcher.is_watched(tracked.path)
            tracked.wal_pairs.drains = self._drains

    def remove(self, tracked: FollowedDatabase) -> None:
        """Stop watching a database."""
        with self._lock:
            self._watcher.remove(tracked.path)
            del self._tracked[tracked.path]

    def watch_folders(self, folders: Mapping[Path, frozenset[NewNames]]) -> bool:
        """Call ``appeared`` from now on when these names appear in these folders. Returns whether a folder is new."""
        with self._lock:
            before, self._folders = self._folders, {folder: {} for folder in folders}
            for folder, wanted in folders.items():
                known = before.get(folder, {})
                for names in wanted:
                    wants = self._folders[folder][names] = known.get(names) or _filter(names)
                    if names not in known:
                        self._watcher.add_directory(folder, wants)
            for folder, known in before.items():
                for names, wants in known.items():
                    if names not in folders.get(folder, ()):
                        self._watcher.remove_directory(folder, wants)
            return not folders.keys() <= before.keys()

    def drain(self) -> None:
        """Take in all queued events."""
        self._take_in()

    def count_journal_writes(self, path: Path) -> None:
        """Let no two writes to this -journal merge into one event (see ``Environment``)."""
        self._watcher.count_journal_writes(path)

    def _take_in(self, *, waits: bool = False) -> bool:
        """Take in all queued events. Returns whether all of them were writes to WALs.

        ``waits``: the caller waits until what was written is published. Otherwise that is left to the follower.
        """
        only_writes = True
        with self._lock:
            self._drains.count += 1
            self._events.extend(self._watcher.drain())
            while self._events:
                event = self._events.popleft()
                tracked = self._tracked.get(event.path)
                if event.role is Role.DIRECTORY:
                    self._appears = True
                elif tracked is not None and event.kind in _COUNTS:
                    _note(tracked, event)
                elif tracked is not None:
                    self._appears = self._appears or (event.role is Role.DATABASE and event.kind not in _WRITES)
                    self._touched[tracked.row_id] = tracked
                    _note(tracked, event)
                    if event.kind is not Kind.MODIFY or event.role is not Role.WAL:
                        only_writes = False
                        self._urgent.add(tracked.row_id)
            touched, urgent = self._touched.copy(), self._urgent.copy()
            appeared, self._appears = self._appears, False
        written: list[FollowedDatabase] = []
        for row_id, tracked in touched.items():
            index_header = None
            with suppress(WalsyncdError), boundary("read_index", database=tracked.name):
                index_header = tracked.wal_pairs.index_read()
                tracked.presence.update()
            may_wait = self._is_read(tracked, index_header) and (waits or row_id not in self._unread)
            if row_id not in urgent and not may_wait:
                written.append(tracked)
        woken = [each for row_id, each in touched.items() if row_id in urgent and not (waits and self._rests(each))]
        if woken:
            self._wake(woken)
        if written:
            (self._wake if self._schedule is None else self._schedule.written)(written)
        for row_id in touched:  # only now: if this thread hangs above, its successor wakes them
            self._touched.pop(row_id, None)
            self._urgent.discard(row_id)
        if appeared:
            self._appeared()
        return only_writes and not appeared

    def _rests(self, tracked: FollowedDatabase) -> bool:
        """Whether a transaction is under way, so that no look is worthwhile before the transaction ends.

        The follower is not woken during the transaction, not even to wait: this thread waits for the end.
        """
        until_s = 0.0 if tracked.scans is None else tracked.scans.in_transaction_until_s()
        if until_s <= time.monotonic():
            return False
        self._inside[tracked.row_id] = tracked, until_s
        return True

    def _wake_inside(self) -> None:
        """Wake the databases whose transactions last longer than their looks rest.

        If another thread has taken in the end of a transaction, or the beginning of the next, that thread has woken the
        database.
        """
        now_s = time.monotonic()
        for row_id, (tracked, until_s) in tuple(self._inside.items()):
            is_over = tracked.scans is None or tracked.scans.in_transaction_until_s() != until_s
            if is_over or until_s <= now_s:
                self._inside.pop(row_id)
            if not is_over and until_s <= now_s:
                self._wake([tracked])

    def _is_read(self, tracked: FollowedDatabase, index_header: bytes | None = None) -> bool:
        """Read what was committed, if the database's look is put off. Returns whether the look may still be put off.

        For a while no look will show that nothing came after what was read, so this reading is kept as an index read.
        """
        deferred = tracked.deferred
        if deferred is None or self._schedule is None:
            return False
        with suppress(WalsyncdError), boundary("read_ahead", database=tracked.name):
            begun = tracked.wal_pairs.begin_put_off()
            deferred.read(index_header)
            if deferred.is_due:
                return False
            tracked.wal_pairs.end_put_off(begun, deferred.reading.shown)
            self._schedule.put_off(tracked, deferred.until_s)
            if deferred.pause_s:
                self._unread[tracked.row_id] = tracked
            return True
        return False

    def _read_again(self, unread: Mapping[int, FollowedDatabase]) -> None:
        """Read again what was not published and may be published now, unless an event has caused that meanwhile."""
        for row_id, tracked in tuple(unread.items()):
            deferred = tracked.deferred
            is_unread = deferred is not None and deferred.pause_s and row_id not in self._unread
            if is_unread and not self._is_read(tracked):
                self._wake([tracked])

    def _pause_s(self) -> float:
        """Return how long to wait for events. The follower may add databases to ``_unread`` meanwhile."""
        looks = (tracked.deferred for tracked in self._unread.copy().values())
        pause_s = min((look.pause_s for look in looks if look is not None and look.pause_s), default=RECHECK_S)
        for _, until_s in tuple(self._inside.values()):
            pause_s = max(0.0, min(pause_s, until_s - time.monotonic()))
        return pause_s

    def run(self) -> None:
        """Run the thread until ``stop``."""
        is_left = bool(self._touched)  # taken in by an earlier thread, which hangs in an event
        checked_s = drained_s = -RECHECK_S
        quick_drains = 0
        while not self._stopping:
            if time.monotonic() - checked_s >= RECHECK_S:
                checked_s = time.monotonic()
                self._recheck()
            if not is_left:
                self._watcher.wait(self._pause_s())
            is_left = False
            before_s, drained_s = drained_s, time.monotonic()
            unread, self._unread = self._unread, {}
            with self._stall_detector.work():
                only_writes = self._take_in(waits=True)
                self._read_again(unread)
                self._wake_inside()
            is_quick = only_writes and drained_s - before_s < self._quick_s
            quick_drains = quick_drains + 1 if is_quick else 0
            if quick_drains >= QUICK_DRAINS and not self._unread and self._may_pause():
                self._watcher.pause(PAUSE_S)

    def _may_pause(self) -> bool:
        """Whether each database has a WAL that is in use, so that no event is urgent."""
        with self._lock:
            if len(self._tracked) > PAUSE_DATABASES_MAX:
                return False
            return all(tracked.wal_pairs.is_alive for tracked in self._tracked.values())

    def _recheck(self) -> None:
        """Check that the watches are in place, and log it when databases become unwatched or are all watched again.

        An unwatched database is looked at every second instead.
        """
        with self._lock:
            self._watcher.recheck()
            unwatched = self._watcher.unwatched()
        if unwatched.keys() == self._unwatched:
            return
        self._unwatched = set(unwatched)
        if unwatched:
            _log.warning("databases_unwatched", count=len(unwatched), cause=next(iter(unwatched.values())))
        else:
            _log.info("databases_watched_again")

    def stop(self) -> None:
        """End the thread."""
        self._stopping = True
        self._watcher.wake()


def _filter(names: NewNames) -> Callable[[str, bool], bool]:
    def wants(name: str, is_folder: bool) -> bool:
        return names.wants(name, is_folder=is_folder)

    return wants


def _note(tracked: FollowedDatabase, event: Event) -> None:
    """Hand the database its event. If that fails, the event is lost, as if the queue had overflowed."""
    try:
        with boundary("note_event", database=tracked.name):
            if tracked.scans is not None:  # first, because a journal is opened here, and may be gone in a millisecond
                tracked.scans.note(event)
            tracked.wal_pairs.note(event)
            tracked.presence.note(event)
    except WalsyncdError as error:
        tracked.wal_pairs.fail(error)
        if tracked.scans is not None:
            tracked.scans.lose_events()
