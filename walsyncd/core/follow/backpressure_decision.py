"""Backpressure: one lock that keeps a writer from restarting the WAL before the follower has copied it.

SQLite restarts a WAL only if it can lock the read marks 1 to 4 for itself. A shared lock on one *unused* mark prevents
that, and nothing else: every checkpoint still copies everything back, because nobody reads up to that mark. The
application sees no error, and its WAL grows until the follower has caught up.

- **Which mark is locked.** Mark 4, 3 or 2 is locked, if its value is `MARK_UNUSED`. The value is read again after
  locking. A used mark is never locked, since a checkpoint stops there. Mark 1 is never locked either, because SQLite
  needs it for a WAL that was just emptied, nor is mark 0.
- **When the lock is taken.** It is taken as soon as the WAL has restarted, before there is anything to lose, and only
  if a process holds the DMS byte by a POSIX lock, the wal-index header is whole, and the WAL moved within the last
  ``IDLE_MS``.
- **When the lock is given up for this incarnation.** It is given up when the follower has copied up to mxFrame, and
  either the checkpoint has copied back as much (nBackfill = mxFrame > 0), or the WAL is past half the size at which it
  restarted last and a checkpoint is under way. So a WAL that grows normally is held only until the follower has read
  the last frame. The lock is also given up after ``HOLD_MS_MAX``, and if the WAL is larger than ``wal_bytes_max``.
- **When the lock is given up until the next look.** It is given up if the mark is used, the process is gone, the -shm
  was changed or its path names another file, the header was not whole at two looks in a row, the WAL is idle and
  copied, or nobody follows the WAL.
- **A growth of the -shm is no reason to give the lock up.** SQLite grows the -shm when the WAL passes 4,062 frames, and
  then again after each 4,096 frames. A writer would restart the WAL just then, while the follower is furthest behind.
  If the -shm was set up again instead, the mark is used or the header is not whole, and each look checks both.
- **When the lock is void.** A WAL that restarts although the lock is held is used without SQLite's locks
  (locking_mode=EXCLUSIVE, entered late). Nothing is locked again as long as that -shm exists. A WAL without a frame
  does not restart when its salts change: a connection that has not restarted it draws new salts for its first frame.

No proof of the follower depends on the lock. It makes a gap rare, not impossible.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from walsyncd.core.sqlite.wal import FRAME_HEADER_SIZE, Salts
from walsyncd.core.sqlite.walindex import MARK_UNUSED, IndexHeader

MARKS = (4, 3, 2)
IDLE_MS = 20
HOLD_MS_MAX = 500

PRICE = (
    "RESTART and TRUNCATE checkpoints of the application are busy or wait while the lock is held, and other writers "
    "without a busy timeout then get 'database is locked'; the WAL may grow up to wal_bytes_max"
)
VOID = (
    "the WAL restarted although a read mark was locked: an application has the database for itself "
    "(locking_mode=EXCLUSIVE) and uses no locks, so backpressure has no effect on it"
)


@dataclass(frozen=True, slots=True)
class Copied:
    """How far the follower has read: ``frames`` frames of the incarnation with these salts."""

    salts: Salts
    frames: int


@dataclass(frozen=True, slots=True)
class Held:
    """A lock that has been held on ``mark``, in the incarnation ``salts``, since ``since_ms`` (monotonic).

    ``index_bytes`` is the size that the -shm had when the lock was taken.
    """

    mark: int
    salts: Salts
    since_ms: int
    index_bytes: int


@dataclass(frozen=True, slots=True)
class SeenIndex:
    """The result of one look at the wal-index.

    ``index`` is None if the header is not whole. ``marks`` are the values of all read marks, even if the header is not
    whole; the tuple is empty if the -shm is too short. ``is_used``: a process holds the DMS byte by a POSIX lock.
    ``is_named``: the path names this -shm. ``is_touched``: the -shm was created, deleted or renamed since the last
    look, or that can't be known. ``is_modified``: the -shm was written, cut or grown since the last look.
    ``index_bytes``: the size of the -shm. ``is_written``: the -wal was written since the last look.
    ``is_checkpointing``: the CKPT byte is locked.
    """

    index: IndexHeader | None
    marks: tuple[int, ...]
    is_used: bool
    is_named: bool
    is_touched: bool
    is_modified: bool
    index_bytes: int
    is_written: bool
    is_checkpointing: bool
    copied: Copied | None
    now_ms: int


@dataclass(frozen=True, slots=True)
class HoldState:
    """What is remembered of one -shm from look to look.

    ``frames`` is the number of frames that the incarnation with ``salts`` has. ``restart_frames`` is the number that
    the previous incarnation had when the WAL restarted; it is 0 if no restart was seen. ``is_over``: nothing is locked
    again in this incarnation. ``is_void``: nothing is locked again in this -shm.
    """

    salts: Salts | None = None
    frames: int = 0
    restart_frames: int = 0
    moved_ms: int = -IDLE_MS
    was_torn: bool = False
    is_over: bool = False
    is_void: bool = False
    held: Held | None = None

    def after(self, seen: SeenIndex) -> HoldState:
        """Return the state after a look that has ``seen`` this."""
        moved_ms = seen.now_ms if seen.is_written else self.moved_ms
        index = seen.index
        if index is None:
            return replace(self, moved_ms=moved_ms)
        if index.salts != self.salts:
            ended = self.frames if self.salts is not None else 0
            held = self.held
            if held is not None and not self.frames:
                held = replace(held, salts=index.salts)
            return replace(
                self,
                salts=index.salts,
                frames=index.max_frame,
                restart_frames=ended or self.restart_frames,
                moved_ms=seen.now_ms if self.salts is not None else moved_ms,
                is_over=False,
                held=held,
            )
        if index.max_frame != self.frames:
            moved_ms = seen.now_ms
        return replace(self, frames=index.max_frame, moved_ms=moved_ms)

    def is_active(self, now_ms: int) -> bool:
        """Whether a look is due although no event asks for one."""
        may_take = not self.is_over and not self.is_void and now_ms - self.moved_ms < IDLE_MS
        return self.held is not None or may_take


@dataclass(frozen=True, slots=True)
class TakeMark:
    """Lock the first of these marks that can be locked, then look again."""

    marks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class KeepMark:
    """Leave everything as it is."""


@dataclass(frozen=True, slots=True)
class ReleaseMark:
    """Give the lock up, if one is held. ``is_limit``: a limit ends it, and the follower may not have caught up."""

    reason: str
    is_over: bool = False
    is_void: bool = False
    is_limit: bool = False


Decision = TakeMark | KeepMark | ReleaseMark


def decide_hold(state: HoldState, seen: SeenIndex, wal_bytes_max: int) -> Decision:
    """Return what to do after a look that has ``seen`` this. ``state`` already includes that look."""
    if reason := _in_the_way(state, seen):
        return ReleaseMark(reason)
    index, held = seen.index, state.held
    if held is not None and index is not None and index.salts != held.salts:
        return ReleaseMark(VOID, is_void=True)
    if held is not None and seen.now_ms - held.since_ms >= HOLD_MS_MAX:
        return ReleaseMark(f"it was held for {HOLD_MS_MAX} ms", is_over=True, is_limit=True)
    if index is None:
        return KeepMark()
    if index.max_frame * (index.page_size + FRAME_HEADER_SIZE) > wal_bytes_max:
        return ReleaseMark("the WAL is larger than wal_bytes_max", is_over=True, is_limit=held is not None)
    if _has_caught_up(seen, index):
        if _nears_restart(state, seen, index):
            return ReleaseMark("the follower has copied everything", is_over=True)
        if seen.now_ms - state.moved_ms >= IDLE_MS:
            return ReleaseMark("the WAL is idle")
    if held is not None or state.is_over or state.is_void or seen.now_ms - state.moved_ms >= IDLE_MS:
        return KeepMark()
    free = tuple(mark for mark in MARKS if seen.marks[mark] == MARK_UNUSED)
    return TakeMark(free) if free else KeepMark()


def _in_the_way(state: HoldState, seen: SeenIndex) -> str:
    """Return why nothing may be locked now, however much is copied. The text is empty if nothing is in the way."""
    if seen.is_touched or not seen.is_named or (seen.is_modified and not _has_grown(state, seen)):
        return "the wal-index was changed, or is another file"
    if not seen.marks or (state.held is not None and seen.marks[state.held.mark] != MARK_UNUSED):
        return "the read mark is used"
    if not seen.is_used:
        return "no process uses the database by SQLite's locks"
    if seen.index is None and (state.held is None or state.was_torn):
        return "the header of the wal-index is not whole"
    return "nobody follows the WAL" if seen.copied is None else ""


def _has_grown(state: HoldState, seen: SeenIndex) -> bool:
    """Whether the -shm grew since the lock was taken. While a -shm is in use, SQLite writes to the file only then."""
    return state.held is not None and seen.index_bytes > state.held.index_bytes


def _has_caught_up(seen: SeenIndex, index: IndexHeader) -> bool:
    copied = seen.copied
    return copied is not None and copied.salts == index.salts and copied.frames >= index.max_frame


def _nears_restart(state: HoldState, seen: SeenIndex, index: IndexHeader) -> bool:
    """Whether the WAL may restart soon, so that a lock that is kept would prevent the restart."""
    if index.backfilled == index.max_frame > 0:
        return True
    return seen.is_checkpointing and 0 < state.restart_frames < 2 * index.max_frame
