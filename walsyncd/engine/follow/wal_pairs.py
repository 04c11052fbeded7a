"""The lives of a database's WAL: which -wal file with which -shm, and what happened in between.

SQLite creates -wal, then -shm, when the first connection opens; the last one to close deletes -shm, then -wal. An
application that opens and closes for every commit makes many lives a second, so each is caught at its CREATE event
by an open descriptor, behind which it stays whole, and the follower takes them in order.

- The CREATE of a -wal that comes and goes again before it can be opened is a life that nobody saw: ``lost``, if it was
  ever written. So is one whose descriptor turns out, at its DELETE, to be on a file that is not deleted: it was opened
  too late, on the next.
- What is written to a -wal or a database raises MODIFY, in order. So a -wal without MODIFY held no commit, and one
  without MODIFY after one of the database holds all that was ever committed into it: SQLite overwrites or cuts off only
  what it has copied back.
- A -shm belongs to a life only if the life's -wal has its name still when the -shm is open: it is younger than the
  -wal and is deleted before it.
- ``database_writes`` counts what may have changed the database while it had no WAL. ``confirm_known`` says up to
  which of them the follower knows its content, and the DELETE of a -wal does too; so a life is witnessed if none
  came after that.
- Nothing is known from the absence of events while nothing watches, or when some were lost.

Called by whoever drains the event queue (does nothing slower than opening a file), by the follower and at the start:
each public method holds the lock. Only the follower closes descriptors, since it reads through them.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from walsyncd.adapters.files.inotify import Event, Kind
from walsyncd.adapters.files.source import (
    Liveness,
    OpenFile,
    Role,
    liveness,
    open_file,
    side_path,
)
from walsyncd.core.follow.decision import CounterMark
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.follow.write_trail import WriteTrail
from walsyncd.core.sqlite.walindex import WALINDEX_READ_SIZE, parse_index_header
from walsyncd.engine.follow.wal_pair import Drains, WalPair, frames_behind, is_busy, note_trail
from walsyncd.errors import WalsyncdError

LIVES_MAX = 64  # descriptors held for one database: a second of the fastest cycle seen; more are a gap

REPLACED = "another file was put in the database's place"
WRITTEN = "the database was written while it had a WAL, and no checkpoint explains it"

_LOST_SIGHT = {Kind.OVERFLOW, Kind.WATCH_LOST, Kind.REAPPEARED}


@dataclass(slots=True)
class WalPairs:
    """All lives of one database that the follower has not finished with, oldest first."""

    path: Path
    queue: deque[WalPair] = field(default_factory=deque)
    watched: bool = True
    """Whether events come; without them their absence says nothing."""
    blind: bool = False
    """Events were lost: whatever they might have told has to be looked for."""
    database_writes: int = 0
    replaced: Gap | None = None
    """How another file came to be at the database's path, if one did."""
    lost: Gap | None = None
    """Why a life may have been missed altogether."""
    error: WalsyncdError | None = None
    """Why a -wal or -shm that exists could not be opened."""
    drains: Drains = field(default_factory=Drains)
    suspended: bool = False
    """Nobody follows the database now: nothing is held."""
    own_only: bool = False
    """Whether a file with several names must be its folder's owner's (``open_file``)."""
    _trail: WriteTrail = field(default_factory=WriteTrail)
    _vouched: int = -1
    _serial: int = 0
    _unseen: Gap | None = None
    """Why the WAL that exists, or did a moment ago, could not be opened: it is lost as soon as something is written."""
    _mistakable: bool = False
    """The life that ended last may have been taken for a later one, which nothing was written to."""
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def current(self) -> WalPair | None:
        """The life that the follower reads."""
        return self.queue[0] if self.queue else None

    @property
    def is_unwritten(self) -> bool:
        """Whether events would have told if anything had changed the database since its content was known."""
        return self.watched and self.database_writes == self._vouched

    def confirm_known(self, database_writes: int) -> None:
        """What ``database_writes`` counted when the caller read it is known: no event up to then changed more."""
        with self._lock:
            self._vouched = max(self._vouched, database_writes)

    def pop_finished(self) -> None:
        """The current life is read to its end."""
        with self._lock:
            self.queue.popleft().close()

    def rest(self) -> None:
        """Let everything go until ``clear``: between two generations no life is of any use."""
        with self._lock:
            self.clear()
            self.suspended = True

    def clear(self) -> None:
        """Forget everything: a new generation begins, or the database is given up."""
        with self._lock:
            self.suspended = False
            while self.queue:
                self.pop_finished()
            self.replaced = self.lost = self._unseen = None
            self.blind = self._mistakable = False
            self._trail.seen = None
            self.error = None

    def look_around(self) -> None:
        """Open what exists now: at the start, where nothing watches, and when events were lost."""
        with self._lock:
            self.error = None
            last = self._alive()
            if last is not None and not last.wal.still_named():
                last.ended = True
                last = None
            if last is None:
                wal = self._open(Role.WAL)
                if wal is None:
                    return
                last = self._append(WalPair(wal))
            self._catch_shm(last)

    def begin_anew(self, wal_pair: WalPair, mark: CounterMark) -> bool:
        """Take ``wal_pair``, whose -wal is empty, for a new one, unless it was written after somebody closed its -shm.

        True: all who used the wal-index are gone since ``mark``, and nobody who uses none wrote after them.
        """
        with self._lock:
            if wal_pair.closed == mark.closed or wal_pair.closed_at_write != mark.closed or not self.watched:
                return False
            wal_pair.known_since = True
            wal_pair.written = wal_pair.checkpointed = wal_pair.overwritten = wal_pair.uncounted = False
            return True

    def begin_unwritten(self, wal_pair: WalPair) -> None:
        """Nothing was ever committed into the WAL of ``wal_pair``, says its wal-index: a generation begins with it."""
        with self._lock:
            wal_pair.known_since = self.watched

    def find_shm(self) -> None:
        """Open the -shm of the current life, if its CREATE was not seen; the error if there is one and it can't be."""
        with self._lock:
            self.error = None
            self._catch_shm(self.queue[0])
            if self.error is not None:
                raise self.error

    def index_read(self) -> None:
        """Read the wal-index; after each drain that told of anything of this database."""
        with self._lock:
            last = self._alive()
            if last is None:
                return
            if last.index_reads.due:
                self._index_read(last)
            last.read_checkpoints(self.drains)

    def explain_writes(self, now_ms: int) -> bool:
        """Look whether a checkpoint explains what was written to the database; whether that may still come."""
        with self._lock:
            last = self.queue[0]
            write, shm = last.checkpoints.unexplained, last.shm
            if last.ended or write is None:
                return False
            reading = last.read_checkpoints(self.drains)
            busy = is_busy(self.path, shm, own_only=self.own_only)
            if not last.checkpoints.explain(reading, is_busy=busy, now_ms=now_ms):
                last.doubt = last.doubt or Gap.of(GapKind.DOUBT, WRITTEN)
            return last.checkpoints.unexplained is not None and not busy

    def look_at_file(self, now_ms: int) -> bool:
        """See that the database did not change without an event; whether one that is late may still come."""
        with self._lock:
            last = self._alive()
            return self.watched and last is not None and last.look_at_file(self.path, self._trail, now_ms)

    def note(self, event: Event) -> None:
        """Take one event in, in queue order."""
        with self._lock:
            if event.kind in _LOST_SIGHT:
                self._note_lost_sight(event.kind)
                return
            last, doubt = self._alive(), note_trail(self._trail, event, self.drains.count)
            if last is not None:
                last.doubt = last.doubt or doubt
            if self.suspended:
                self.database_writes += 1
                return
            match event.role:
                case Role.WAL:
                    self._note_wal(event.kind)
                case Role.SHM:
                    self._note_shm(event.kind)
                case Role.JOURNAL:
                    self.database_writes += 1
                case Role.DATABASE:
                    self._note_database(event.kind)

    def fail(self, error: WalsyncdError) -> None:
        """An event could not be taken in: what it told is lost, as when the queue overflows. The next look retries."""
        with self._lock:
            self._lose_events()
            self.error = error

    def close_old(self) -> None:
        """Close the earlier -shm files; the follower calls this between two looks, while it reads none of them."""
        with self._lock:
            for wal_pair in self.queue:
                while wal_pair.old_descriptors:
                    wal_pair.old_descriptors.pop().close()

    def _note_lost_sight(self, kind: Kind) -> None:
        self.watched = kind is Kind.REAPPEARED or (self.watched and kind is not Kind.WATCH_LOST)
        self._lose_events()
        if not self.suspended:
            self.look_around()

    def _lose_events(self) -> None:
        """Events were lost: anything may have happened."""
        self._trail.events_lost()
        self.database_writes += 1
        self.blind = True
        for wal_pair in self.queue:
            wal_pair.index_rebuilds += 1
            wal_pair.written = wal_pair.checkpointed = wal_pair.overwritten = wal_pair.uncounted = True
            wal_pair.closed_at_write = -1
            wal_pair.closed += 1  # one may be among what was lost
            wal_pair.index_reads.forget()
            wal_pair.checkpoints.forget()
        if self._unseen:
            self.lost = self._unseen

    def _note_wal(self, kind: Kind) -> None:
        last = self._alive()
        if kind is Kind.CREATE:
            self._note_birth(last)
        elif kind is Kind.MODIFY:
            self._note_frames(last)
        elif kind is Kind.DELETE and last is not None:
            self._end(last)
        elif kind is Kind.DELETE:
            self._unseen = None
        elif kind in {Kind.MOVED_FROM, Kind.MOVED_TO}:
            self.database_writes += 1
            self.look_around()

    def _note_birth(self, last: WalPair | None) -> None:
        if last is not None and last.announced:
            last.ended = True  # its DELETE was never told
            last = None
        if last is None:
            wal = self._open(Role.WAL)
            if wal is None:
                self._note_unseen()
                return
            last = self._append(WalPair(wal))
        last.announced = True  # or it had been opened before its CREATE was read
        last.known_since = self.is_unwritten

    def _note_unseen(self) -> None:
        """A WAL came that can't be opened: unless an event tells of writes to it, nothing was in it."""
        doubtful = self.error is not None or self._mistakable or self._unseen is not None
        cause = self.error.message if self.error is not None else "it was deleted again at once"
        self._unseen = Gap.of(GapKind.OVERWRITTEN, "a new WAL could not be opened: {cause}", cause=cause)
        if doubtful:
            self.lost = self._unseen

    def _note_frames(self, last: WalPair | None) -> None:
        """The -wal was written."""
        if self._unseen:
            self.lost = self._unseen
        if last is not None:
            last.written = True
            last.overwritten = last.overwritten or last.checkpointed
            last.closed_at_write = last.closed
            last.index_reads.wal_written()

    def _end(self, wal_pair: WalPair) -> None:
        """The -wal was deleted; that we hold the very file that was, its link count shows."""
        untold = not (wal_pair.written or wal_pair.checkpointed or self._mistakable)
        if untold and wal_pair.announced and not wal_pair.wal.unlinked():
            wal_pair.announced = wal_pair.shm_gone = False  # nothing was in it, and what we hold is the next one
            return
        wal_pair.ended = True
        wal_pair.judge_end(self._trail)
        self._vouched = self.database_writes
        self._mistakable = wal_pair.written and not wal_pair.wal.size()
        if not wal_pair.wal.unlinked():
            text = "a WAL was deleted and the next one created before it could be opened"
            self.lost = Gap.of(GapKind.OVERWRITTEN, text)

    def _note_shm(self, kind: Kind) -> None:
        last = self._alive()
        if last is None:
            return
        if kind is Kind.CLOSE_WRITE:
            if not last.shm_gone:  # after the DELETE it is the closing of whoever deleted it
                last.closed += 1
                last.uncounted = last.uncounted or last.written
        elif kind is Kind.DELETE:
            last.shm_gone = True
            if last.shm is None or not last.shm.unlinked():
                last.index_rebuilds += 1
        else:
            last.index_rebuilds += 1
            last.uncounted = last.uncounted or last.written
            if kind is not Kind.MODIFY:
                last.shm_gone = False
                self._catch_shm(last)

    def _note_database(self, kind: Kind) -> None:
        if kind in {Kind.CREATE, Kind.MOVED_TO}:
            self.replaced = Gap.of(GapKind.REPLACED, REPLACED)
        elif kind in {Kind.DELETE, Kind.MOVED_FROM}:
            self.replaced = Gap.of(GapKind.REPLACED, "the database was deleted or moved away")
        if kind is Kind.CLOSE_WRITE:
            return
        last = self._alive()
        if last is None:
            self.database_writes += 1
        else:
            last.checkpoints.written(self.drains.count, has_index=last.shm is not None)
            last.checkpointed = True
            last.closed_at_write = last.closed
            last.index_reads.database_written()

    def _alive(self) -> WalPair | None:
        """The life that goes on."""
        return self.queue[-1] if self.queue and not self.queue[-1].ended else None

    def _append(self, wal_pair: WalPair) -> WalPair:
        if len(self.queue) >= LIVES_MAX:
            text = "the WAL was created and deleted {times} times before it could be read"
            self.lost = Gap.of(GapKind.OVERWRITTEN, text, times=LIVES_MAX)
            self.queue.pop().close()
        self.queue.append(wal_pair)
        self._trail.wal_created()
        return wal_pair

    def _catch_shm(self, wal_pair: WalPair) -> None:
        if wal_pair.shm is not None and wal_pair.shm.still_named():
            return
        shm = self._open(Role.SHM)
        if shm is None:
            return
        if not wal_pair.wal.still_named():
            shm.close()
            return
        if len(wal_pair.old_descriptors) >= LIVES_MAX:
            text = "the wal-index was replaced {times} times before it could be read"
            self.lost = Gap.of(GapKind.OVERWRITTEN, text, times=LIVES_MAX)
            shm.close()
            return
        if wal_pair.shm is not None:
            wal_pair.index_rebuilds += 1
            wal_pair.old_descriptors.append(wal_pair.shm)
        self._serial += 1
        wal_pair.shm, wal_pair.serial = shm, self._serial
        self._index_read(wal_pair)

    def _index_read(self, wal_pair: WalPair) -> None:
        wal_pair.index_reads.due = False
        if wal_pair.shm is None or not self.watched:
            return
        with contextlib.suppress(WalsyncdError):  # the follower's look will say it
            if liveness(wal_pair.shm) is Liveness.LIVE and wal_pair.shm.still_named():
                index = parse_index_header(wal_pair.shm.pread(0, WALINDEX_READ_SIZE))
                if index is not None:
                    wal_pair.index_reads.add(index, moving=frames_behind(wal_pair.wal, wal_pair.shm, index))

    def _open(self, role: Role) -> OpenFile | None:
        try:
            return open_file(side_path(self.path, role), own_only=self.own_only)
        except WalsyncdError as error:
            self.error = error
            return None
