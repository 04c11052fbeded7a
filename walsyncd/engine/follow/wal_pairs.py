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
- ``touches`` counts what may have changed the database while it had no WAL. ``vouch`` says up to which of them the
  follower knows its content, and the DELETE of a -wal does too; so a life is witnessed if none came after that.
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
from walsyncd.adapters.files.source import Liveness, OpenFile, Role, liveness, open_file, side_path
from walsyncd.core.follow.decision import Mark, ShmEvidence
from walsyncd.core.sqlite.walindex import WALINDEX_READ_SIZE, parse_index_header
from walsyncd.engine.follow.index_reads import Glances, frames_behind
from walsyncd.errors import WalsyncdError

LIVES_MAX = 64  # descriptors held for one database: a second of the fastest cycle seen; more are a gap

_LOST_SIGHT = {Kind.OVERFLOW, Kind.WATCH_LOST, Kind.REAPPEARED}


@dataclass(slots=True)
class Life:
    """One -wal file and the -shm that goes with it."""

    wal: OpenFile
    shm: OpenFile | None = None
    serial: int = 0
    """Counts the -shm descriptors, so that a mark knows its own."""
    announced: bool = False
    """Its CREATE event was seen."""
    witnessed: bool = False
    """Announced, and nothing but a WAL changed the database since its content was known."""
    reborn: int = 0
    """Events after which the -shm may be counting anew; events are counted, so that none is lost between threads."""
    closed: int = 0
    """CLOSE_WRITE events of the -shm."""
    closed_at_write: int = 0
    """What ``closed`` counted when the -wal or the database was last written."""
    written: bool = False
    """The -wal was written since its CREATE."""
    checkpointed: bool = False
    """The database was written meanwhile."""
    overwritten: bool = False
    """The -wal was written after that: frames of this life may have been overwritten or cut off."""
    uncounted: bool = False
    """The -shm may have begun to count anew after the first frame, so iChange may leave out what was overwritten."""
    glances: Glances = field(default_factory=Glances)
    shm_gone: bool = False
    ended: bool = False
    orderly: bool = False
    """It ended as a last close ends it: -shm deleted first, then -wal."""
    retired: list[OpenFile] = field(default_factory=list)
    """Earlier -shm files, which the follower may still be reading."""

    def evidence(self, mark: Mark) -> ShmEvidence:
        """What the queue said of the -shm since the mark was set."""
        return ShmEvidence(reborn=self.reborn != mark.reborn, closed=self.closed != mark.closed)

    def close(self) -> None:
        """Let the descriptors go."""
        for file in (self.wal, self.shm, *self.retired):
            if file is not None:
                file.close()


@dataclass(slots=True)
class Lives:
    """All lives of one database that the follower has not finished with, oldest first."""

    path: Path
    queue: deque[Life] = field(default_factory=deque)
    watched: bool = True
    """Whether events come; without them their absence says nothing."""
    blind: bool = False
    """Events were lost: whatever they might have told has to be looked for."""
    touches: int = 0
    replaced: str = ""
    """How another file came to be at the database's path, in words; empty if none did."""
    lost: str = ""
    """Why a life may have been missed altogether."""
    error: WalsyncdError | None = None
    """Why a -wal or -shm that exists could not be opened."""
    asleep: bool = False
    """Nobody follows the database now: nothing is held."""
    _vouched: int = -1
    _serial: int = 0
    _unseen: str = ""
    """Why the WAL that exists, or did a moment ago, could not be opened: it is lost as soon as something is written."""
    _mistakable: bool = False
    """The life that ended last may have been taken for a later one, which nothing was written to."""
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def current(self) -> Life | None:
        """The life that the follower reads."""
        return self.queue[0] if self.queue else None

    @property
    def untouched(self) -> bool:
        """Whether events would have told if anything had changed the database since its content was known."""
        return self.watched and self.touches == self._vouched

    def vouch(self, touches: int) -> None:
        """What ``touches`` counted when the caller read it is known: no event up to then changed more."""
        with self._lock:
            self._vouched = touches

    def bury(self) -> None:
        """The current life is read to its end."""
        with self._lock:
            self.queue.popleft().close()

    def rest(self) -> None:
        """Let everything go until ``clear``: between two generations no life is of any use."""
        with self._lock:
            self.clear()
            self.asleep = True

    def clear(self) -> None:
        """Forget everything: a new generation begins, or the database is given up."""
        with self._lock:
            self.asleep = False
            while self.queue:
                self.bury()
            self.replaced = self.lost = self._unseen = ""
            self.blind = self._mistakable = False
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
                last = self._append(Life(wal))
            self._catch_shm(last)

    def begin_anew(self, life: Life, mark: Mark) -> bool:
        """Take ``life``, whose -wal is empty, for a new one, unless it was written after somebody closed its -shm.

        True: all who used the wal-index are gone since ``mark``, and nobody who uses none wrote after them.
        """
        with self._lock:
            if life.closed == mark.closed or life.closed_at_write != mark.closed or not self.watched:
                return False
            life.witnessed = True
            life.written = life.checkpointed = life.overwritten = life.uncounted = False
            return True

    def find_shm(self) -> None:
        """Open the -shm of the current life, if its CREATE was not seen; the error if there is one and it can't be."""
        with self._lock:
            self.error = None
            self._catch_shm(self.queue[0])
            if self.error is not None:
                raise self.error

    def glance(self) -> None:
        """Read the wal-index if the database was written since that was done last; after each drain."""
        with self._lock:
            last = self._alive()
            if last is not None and last.glances.due:
                self._glance(last)

    def note(self, event: Event) -> None:
        """Take one event in, in queue order."""
        with self._lock:
            if event.kind in _LOST_SIGHT:
                self._note_lost_sight(event.kind)
                return
            if self.asleep:
                self.touches += 1
                return
            match event.role:
                case Role.WAL:
                    self._note_wal(event.kind)
                case Role.SHM:
                    self._note_shm(event.kind)
                case Role.JOURNAL:
                    self.touches += 1
                case Role.DATABASE:
                    self._note_database(event.kind)

    def _note_lost_sight(self, kind: Kind) -> None:
        self.touches += 1
        self.blind = True
        self.watched = kind is Kind.REAPPEARED or (self.watched and kind is not Kind.WATCH_LOST)
        for life in self.queue:
            life.reborn += 1
            life.written = life.checkpointed = life.overwritten = life.uncounted = True
            life.closed_at_write = -1
            life.closed += 1  # one may be among what was lost
            life.glances.forget()
        if self._unseen:
            self.lost = self._unseen
        if not self.asleep:
            self.look_around()

    def _note_wal(self, kind: Kind) -> None:
        last = self._alive()
        if kind is Kind.CREATE:
            self._note_birth(last)
        elif kind is Kind.MODIFY:
            self._note_frames(last)
        elif kind is Kind.DELETE and last is not None:
            self._end(last)
        elif kind is Kind.DELETE:
            self._unseen = ""
        elif kind in {Kind.MOVED_FROM, Kind.MOVED_TO}:
            self.touches += 1
            self.look_around()

    def _note_birth(self, last: Life | None) -> None:
        if last is not None and last.announced:
            last.ended = True  # its DELETE was never told
            last = None
        if last is None:
            wal = self._open(Role.WAL)
            if wal is None:
                self._note_unseen()
                return
            last = self._append(Life(wal))
        last.announced = True  # or it had been opened before its CREATE was read
        last.witnessed = self.untouched

    def _note_unseen(self) -> None:
        """A WAL came that can't be opened: unless an event tells of writes to it, nothing was in it."""
        doubtful = self.error is not None or self._mistakable or bool(self._unseen)
        cause = self.error.message if self.error is not None else "it was deleted again at once"
        self._unseen = f"a new WAL could not be opened: {cause}"
        if doubtful:
            self.lost = self._unseen

    def _note_frames(self, last: Life | None) -> None:
        """The -wal was written."""
        if self._unseen:
            self.lost = self._unseen
        if last is not None:
            last.written = True
            last.overwritten = last.overwritten or last.checkpointed
            last.closed_at_write = last.closed
            last.glances.wal_written()

    def _end(self, life: Life) -> None:
        """The -wal was deleted; that we hold the very file that was, its link count shows."""
        untold = not (life.written or life.checkpointed or self._mistakable)
        if untold and life.announced and not life.wal.unlinked():
            life.announced = life.shm_gone = False  # nothing was in it, and what we hold is the next one
            return
        life.ended = True
        life.orderly = life.shm_gone and life.shm is not None and life.shm.unlinked()
        self._vouched = self.touches
        self._mistakable = life.written and not life.wal.size()
        if not life.wal.unlinked():
            self.lost = "a WAL was deleted and the next one created before it could be opened"

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
                last.reborn += 1
        else:
            last.reborn += 1
            last.uncounted = last.uncounted or last.written
            if kind is not Kind.MODIFY:
                last.shm_gone = False
                self._catch_shm(last)

    def _note_database(self, kind: Kind) -> None:
        if kind in {Kind.CREATE, Kind.MOVED_TO}:
            self.replaced = "another file was put in the database's place"
        elif kind in {Kind.DELETE, Kind.MOVED_FROM}:
            self.replaced = "the database was deleted or moved away"
        if kind is Kind.CLOSE_WRITE:
            return
        last = self._alive()
        if last is None:
            self.touches += 1
        else:
            last.checkpointed = True
            last.closed_at_write = last.closed
            last.glances.database_written()

    def _alive(self) -> Life | None:
        """The life that goes on."""
        last = self.queue[-1] if self.queue else None
        return None if last is None or last.ended else last

    def _append(self, life: Life) -> Life:
        if len(self.queue) >= LIVES_MAX:
            self.lost = f"the WAL was created and deleted {LIVES_MAX} times before it could be read"
            self.queue.pop().close()
        self.queue.append(life)
        return life

    def _catch_shm(self, life: Life) -> None:
        if life.shm is not None and life.shm.still_named():
            return
        shm = self._open(Role.SHM)
        if shm is None:
            return
        if not life.wal.still_named():
            shm.close()
            return
        if life.shm is not None:
            life.reborn += 1
            life.retired.append(life.shm)
        self._serial += 1
        life.shm, life.serial = shm, self._serial
        self._glance(life)

    def _glance(self, life: Life) -> None:
        life.glances.due = False
        if life.shm is None or not self.watched:
            return
        with contextlib.suppress(WalsyncdError):  # the follower's look will say it
            if liveness(life.shm) is Liveness.LIVE and life.shm.still_named():
                index = parse_index_header(life.shm.pread(0, WALINDEX_READ_SIZE))
                if index is not None:
                    life.glances.add(index, moving=frames_behind(life.wal, life.shm, index))

    def _open(self, role: Role) -> OpenFile | None:
        try:
            return open_file(side_path(self.path, role))
        except WalsyncdError as error:
            self.error = error
            return None
