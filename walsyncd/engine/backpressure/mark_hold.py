"""The lock of backpressure at one database: takes, keeps and gives up what ``backpressure_decision`` decides.

It belongs to the one thread of the child process (``mark_process``), and does nothing but lock, read the header of the
wal-index, and unlock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from walsyncd.adapters.files.inotify import Event, Kind
from walsyncd.adapters.files.read_mark import lock_mark, unlock_mark
from walsyncd.adapters.files.source import (
    Liveness,
    OpenFile,
    Role,
    dms_holder,
    is_checkpointing,
    open_file,
    side_path,
)
from walsyncd.core.follow.backpressure_decision import (
    Copied,
    Held,
    HoldState,
    ReleaseMark,
    SeenIndex,
    TakeMark,
    decide_hold,
)
from walsyncd.core.sqlite.walindex import WALINDEX_READ_SIZE, parse_index_header, parse_read_marks
from walsyncd.engine.threads.boundary import boundary
from walsyncd.errors import WalsyncdError

_BLIND = {Kind.OVERFLOW, Kind.WATCH_LOST, Kind.REAPPEARED}


@dataclass(frozen=True, slots=True)
class HoldTarget:
    """A database whose writers are to be slowed. ``own_only``: see ``open_file``."""

    path: Path
    own_only: bool
    wal_bytes_max: int


class MarkHold:
    """The lock at one database. ``report`` gets what the log should say: a kind of report, and the reason."""

    def __init__(self, target: HoldTarget, report: Callable[[str, str], None]) -> None:
        self.copied: Copied | None = None
        self._target = target
        self._report = report
        self._shm_path = side_path(target.path, Role.SHM)
        self._shm: OpenFile | None = None
        self._state = HoldState()
        self._is_touched = self._is_modified = self._is_written = False
        self._problem = ""

    @property
    def is_held(self) -> bool:
        """Whether the lock is held."""
        return self._state.held is not None

    def note(self, event: Event) -> None:
        """Take in one event."""
        if event.kind in _BLIND:
            self._is_touched = True
        elif event.role is Role.SHM:
            self._is_modified |= event.kind is Kind.MODIFY
            self._is_touched |= event.kind not in {Kind.MODIFY, Kind.CLOSE_WRITE}
        elif event.role is Role.WAL:
            self._is_written = True

    def is_due(self, now_ms: int) -> bool:
        """Whether a look is due, because of an event, or because a lock is held or may be taken."""
        return self._is_touched or self._is_modified or self._is_written or self._state.is_active(now_ms)

    def look(self, now_ms: int) -> None:
        """Look, and take, keep or give up the lock. Whatever fails costs this database's lock, until its next event."""
        try:
            with boundary("backpressure"):
                self._look(now_ms)
        except WalsyncdError as error:
            self._forget_events()
            self.close()
            self._complain(error.message)

    def close(self) -> None:
        """Give up what is held."""
        shm, self._shm = self._shm, None
        if shm is not None:
            shm.close()
        self._state = HoldState()

    def _look(self, now_ms: int) -> None:
        if self._shm is not None and not self._shm.still_named():
            self.close()
        if self._shm is None:
            self._shm = open_file(self._shm_path, own_only=self._target.own_only)
        shm = self._shm
        if shm is None:
            self._forget_events()
            return
        seen = self._see(shm, now_ms)
        self._state = self._state.after(seen)
        match decide_hold(self._state, seen, self._target.wal_bytes_max):
            case TakeMark(marks):
                self._take(shm, marks, now_ms)
            case ReleaseMark() as release:
                self._release(shm, release)
        self._state = replace(self._state, was_torn=seen.index is None)

    def _see(self, shm: OpenFile, now_ms: int) -> SeenIndex:
        head = shm.pread(0, WALINDEX_READ_SIZE)
        index = parse_index_header(head)
        holder = dms_holder(shm)
        seen = SeenIndex(
            index=index,
            marks=parse_read_marks(head),
            is_used=holder.liveness is Liveness.LIVE and holder.is_process,
            is_named=shm.still_named(),
            is_touched=self._is_touched,
            is_modified=self._is_modified,
            index_bytes=shm.size(),
            is_written=self._is_written,
            is_checkpointing=is_checkpointing(shm),
            copied=self.copied,
            now_ms=now_ms,
        )
        self._forget_events()
        return seen

    def _forget_events(self) -> None:
        self._is_touched = self._is_modified = self._is_written = False

    def _take(self, shm: OpenFile, marks: tuple[int, ...], now_ms: int) -> None:
        """Lock a mark, then see whether all that was seen before the lock still holds."""
        mark = next((each for each in marks if lock_mark(shm, each)), None)
        if mark is None:
            return
        seen = self._see(shm, now_ms)
        self._state = self._state.after(seen)
        if seen.index is None:  # otherwise the lock could not be void: nobody would know its incarnation
            unlock_mark(shm, mark)
            return
        self._state = replace(self._state, held=Held(mark, seen.index.salts, now_ms, seen.index_bytes))
        decision = decide_hold(self._state, seen, self._target.wal_bytes_max)
        if isinstance(decision, ReleaseMark):
            self._release(shm, decision)
        else:
            self._complain("")

    def _release(self, shm: OpenFile, release: ReleaseMark) -> None:
        held = self._state.held
        if held is not None:
            unlock_mark(shm, held.mark)
        state = self._state
        self._state = replace(
            state, held=None, is_over=state.is_over or release.is_over, is_void=state.is_void or release.is_void
        )
        if release.is_void:
            self._complain(release.reason)
        elif release.is_limit:
            self._report("limit", release.reason)

    def _complain(self, reason: str) -> None:
        """Report once why nothing is locked, and once that a lock was taken again."""
        if reason != self._problem:
            self._problem = reason
            self._report("hindrance", reason)
