"""The WAL pairs of a database: which -wal file goes with which -shm, and what happened in between.

SQLite creates -wal, then -shm, when the first connection opens. The last one to close deletes -shm, then -wal. An
application that opens and closes for every commit makes many WAL pairs a second. So each is opened at its CREATE event;
through the descriptor its content stays readable, and the follower takes the pairs in order.

- If a -wal is deleted again before it can be opened at its CREATE, nobody saw that pair. It is ``lost`` if it was ever
  written. A pair is also lost if, at its DELETE, its descriptor turns out to be of a file that is not deleted: the pair
  was opened too late, and the descriptor is that of the next pair.
- A write to a -wal or a database causes a MODIFY, in order. So a -wal without MODIFY held no commit. A -wal without
  MODIFY after one of the database holds all that was ever committed into it, because SQLite overwrites or cuts off only
  what it has copied back.
- A -shm belongs to a pair only if the pair's -wal still has its name when the -shm is open, because the -shm is younger
  than the -wal and is deleted before it.
- ``database_writes`` counts what may have changed the database while it had no WAL. ``confirm_known`` reports which of
  these are in the content that the follower knows. After the DELETE of a -wal, all of them are. A pair is
  ``known_since`` if no such write came after that.
- The absence of events shows nothing while nothing watches, or when some were lost.

The callers are the thread that drains the event queue (so nothing slower than opening a file is done), the follower,
and the start. Each public method holds the lock. Only the follower closes descriptors, since it reads through them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from walsyncd.adapters.files.inotify import Event, Kind
from walsyncd.adapters.files.source import OpenFile, Role, open_file, side_path
from walsyncd.core.follow.decision import CounterMark
from walsyncd.core.follow.follow_state import SeenBesideWal
from walsyncd.core.follow.gap import OTHER_FILE, Gap, GapKind
from walsyncd.core.follow.write_trail import WriteTrail
from walsyncd.engine.follow.wal_pair import Drains, IndexRead, WalPair, is_busy, note_trail
from walsyncd.engine.read_ahead.reading import ShownIndex
from walsyncd.errors import WalsyncdError
from walsyncd.file_calls import RevocableLock

WAL_PAIRS_MAX = 64  # descriptors held for one database: one second of the fastest cycle seen; more are a gap

REPLACED = OTHER_FILE
WRITTEN = "the database was written while it had a WAL, and no checkpoint explains it"

_LOST_SIGHT = {Kind.OVERFLOW, Kind.WATCH_LOST, Kind.REAPPEARED}


@dataclass(slots=True)
class WalPairs:
    """All WAL pairs of one database that the follower has not finished, oldest first."""

    path: Path
    queue: deque[WalPair] = field(default_factory=deque)
    watched: bool = True
    """Whether events come. If not, their absence shows nothing."""
    blind: bool = False
    """Events were lost: whatever they might have shown has to be looked for."""
    database_writes: int = 0
    replaced: Gap | None = None
    """How another file came to be at the database's path, if one did."""
    lost: Gap | None = None
    """Why a WAL pair may have been missed altogether."""
    error: WalsyncdError | None = None
    """Why a -wal or -shm that exists could not be opened."""
    drains: Drains = field(default_factory=Drains)
    suspended: bool = False
    """Nobody follows the database now, so nothing is held."""
    own_only: bool = False
    """Whether a file with several names must belong to its folder's owner (``open_file``)."""
    trail: WriteTrail = field(default_factory=WriteTrail)
    _vouched: int = -1
    _serial: int = 0
    _unseen: Gap | None = None
    """Why the WAL that exists, or existed just now, could not be opened. It is lost once something is written to it."""
    _mistakable: bool = False
    """The pair that ended last may have been mistaken for a later one, to which nothing was written."""
    _lock: RevocableLock = field(default_factory=RevocableLock)

    @property
    def current(self) -> WalPair | None:
        """The WAL pair that the follower reads."""
        return self.queue[0] if self.queue else None

    @property
    def is_alive(self) -> bool:
        """Whether a WAL exists, as far as events have told."""
        return self._alive() is not None

    @property
    def is_unwritten(self) -> bool:
        """Whether no change was reported since the database's content was known, and a change would be reported."""
        return self.watched and self.database_writes == self._vouched

    def confirm_known(self, database_writes: int) -> None:
        """Note that the caller knows the content, which was read after ``database_writes``, and so has these writes."""
        with self._lock:
            self._vouched = max(self._vouched, database_writes)
            self.trail.accept()

    def pop_finished(self) -> None:
        """Remove the current WAL pair, which was read to its end."""
        with self._lock:
            self.queue.popleft().close()

    def rest(self) -> None:
        """Close everything and stay suspended until ``clear``: between two generations no WAL pair is of any use."""
        with self._lock:
            self.clear()
            self.suspended = True

    def clear(self) -> None:
        """Forget everything, because a new generation begins or the database is given up."""
        with self._lock:
            self.suspended = False
            while self.queue:
                self.pop_finished()
            self.replaced = self.lost = self._unseen = None
            self.blind = self._mistakable = False
            self.trail.seen = self.error = None

    def look_around(self) -> None:
        """Open what exists now. This is for the start, where nothing watches, and when events were lost."""
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

    def check_later(self) -> None:
        """Have the next look ask whether the database is the same file, because something may have been missed."""
        with self._lock:
            self.blind = True

    def check_now(self) -> None:
        """Open what exists, for a look that asks whether the database is the same file."""
        with self._lock:
            self.blind = False
            self.look_around()

    def begin_anew(self, wal_pair: WalPair, mark: CounterMark) -> bool:
        """Treat ``wal_pair`` as new (``WalPair.begin_anew``), unless events may be missing. Returns whether it is."""
        with self._lock:
            return self.watched and wal_pair.begin_anew(mark)

    def begin_unwritten(self, wal_pair: WalPair) -> None:
        """Begin a generation with ``wal_pair``, whose WAL is empty. By its wal-index it always was, or it is unused."""
        with self._lock:
            wal_pair.known_since = self.watched

    def find_shm(self) -> None:
        """Open the -shm of the current pair if its CREATE was not seen. Raises WalsyncdError if it can't be opened."""
        with self._lock:
            self.error = None
            self._catch_shm(self.queue[0])
            if self.error is not None:
                raise self.error

    def index_read(self) -> bytes | None:
        """Read the wal-index after a drain that had an event of this database. Returns its header, if there is one."""
        with self._lock:
            last = self._alive()
            if last is None:
                return None
            if last.index_reads.due:
                last.read_index(is_watched=self.watched)
            return last.read_checkpoints(self.drains)[1]

    def begin_put_off(self) -> IndexRead | None:
        """Begin the index read of a look that is put off, before it reads what was committed."""
        with self._lock:
            last = self._alive()
            return last.index_reads.begin(is_put_off=True) if last is not None else None

    def end_put_off(self, begun: IndexRead | None, shown: ShownIndex | None) -> None:
        """End that index read with what was ``shown``. If ``shown`` is None, read the wal-index now, as a look does."""
        with self._lock:
            if (last := self._alive()) is not None:
                last.end_index_read(begun, shown, is_watched=self.watched)

    def explain_writes(self, now_ms: int) -> bool:
        """Check whether a checkpoint explains the writes to the database. Returns whether one may still do so."""
        with self._lock:
            last = self.queue[0]
            write, shm = last.checkpoints.unexplained, last.shm
            if last.ended or (write is None and last.checkpoints.has_reading):
                return False
            reading, _ = last.read_checkpoints(self.drains)
            busy = is_busy(self.path, shm, own_only=self.own_only)
            if not last.checkpoints.explain(reading, is_busy=busy, now_ms=now_ms):
                last.doubt = last.doubt or Gap.of(GapKind.DOUBT, WRITTEN)
            return last.checkpoints.unexplained is not None and not busy

    def check_file(self, seen: SeenBesideWal, told: tuple[int, int], now_ms: int) -> bool:
        """Doubt a change, ``seen`` after ``told``, that no event reported. Returns whether the event may still come."""
        with self._lock:
            last = self._alive() if self.watched else None
            return last is not None and last.check_file(seen, told, self.trail, now_ms)

    def is_written_untold(self, look: tuple[int, int], told: tuple[int, int], now_ms: int) -> bool:
        """Whether a database without a WAL has changed since the last look at its file, and no event reported it."""
        with self._lock:
            return self.watched and self.trail.untold_ms(look, now_ms, told=told) >= 0

    def note(self, event: Event) -> None:
        """Take one event in, in queue order."""
        with self._lock:
            if event.kind in _LOST_SIGHT:
                self._note_lost_sight(event.kind)
                return
            last, doubt = self._alive(), note_trail(self.trail, event, self.drains.count)
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
        """Note that an event could not be taken in. It is lost, as when the queue overflows. The next look retries."""
        with self._lock:
            self._lose_events()
            self.error = error

    def close_old(self) -> None:
        """Close the earlier -shm files. The follower calls this between two looks, while it reads none of them."""
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
        """Take in that events were lost, so that anything may have happened."""
        self.trail.events_lost()
        self.database_writes += 1
        self.blind = True
        for wal_pair in self.queue:
            wal_pair.lose_events()
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
            last.ended = True  # its DELETE never came
        if last is None or last.ended:
            wal = self._open(Role.WAL)
            if wal is None:
                self._note_unseen()
                return
            last = self._append(WalPair(wal))
        last.announced = True  # or it had been opened before its CREATE was read
        last.known_since = self.is_unwritten
        if self.watched:
            last.check_file_at_birth(self.path, self.trail, own_only=self.own_only)

    def _note_unseen(self) -> None:
        """Note a new WAL that can't be opened. If no event reports a write to that WAL, nothing was in it."""
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
        """Take in that the -wal was deleted. The link count shows whether we hold the very file that was deleted."""
        untold = not (wal_pair.written or wal_pair.checkpointed or self._mistakable)
        if untold and wal_pair.announced and not wal_pair.wal.unlinked():
            wal_pair.announced = wal_pair.shm_gone = False  # nothing was in it, and we hold the next one
            return
        wal_pair.ended = True
        wal_pair.judge_end(self.trail)
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
            if not last.shm_gone:  # after the DELETE, the close is that of the process that deleted the -shm
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
        """The WAL pair that has not ended, or None if all have."""
        return self.queue[-1] if self.queue and not self.queue[-1].ended else None

    def _append(self, wal_pair: WalPair) -> WalPair:
        if len(self.queue) >= WAL_PAIRS_MAX:
            text = "the WAL was created and deleted {times} times before it could be read"
            self.lost = Gap.of(GapKind.OVERWRITTEN, text, times=WAL_PAIRS_MAX)
            self.queue.pop().close()
        self.queue.append(wal_pair)
        self.trail.wal_created()
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
        if len(wal_pair.old_descriptors) >= WAL_PAIRS_MAX:
            text = "the wal-index was replaced {times} times before it could be read"
            self.lost = Gap.of(GapKind.OVERWRITTEN, text, times=WAL_PAIRS_MAX)
            shm.close()
            return
        if wal_pair.shm is not None:
            wal_pair.index_rebuilds += 1
            wal_pair.old_descriptors.append(wal_pair.shm)
        self._serial += 1
        wal_pair.shm, wal_pair.serial = shm, self._serial
        wal_pair.read_index(is_watched=self.watched)

    def _open(self, role: Role) -> OpenFile | None:
        try:
            return open_file(side_path(self.path, role), own_only=self.own_only)
        except WalsyncdError as error:
            self.error = error
            return None
