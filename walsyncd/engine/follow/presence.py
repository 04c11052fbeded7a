"""Presence at a database: takes, keeps and gives up the locks as ``core.follow.presence_decision`` decides.

The thread that drains the event queue calls it, and so does the follower before its looks. An application may have the
database open for only a millisecond, so nothing slower is done here than to open three descriptors, to query locks and
to lock.

Presence has descriptors of its own and closes them together, the database's first. That releases the locks. A query of
the DMS byte through any other descriptor shows our lock. This is right, because while our lock is held, the next opener
believes the wal-index, and so must the follower.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog

from walsyncd.adapters.files.inotify import Event, Kind
from walsyncd.adapters.files.source import (
    DatabaseLock,
    Liveness,
    OpenFile,
    Role,
    database_lock,
    dms_holder,
    hot_journal,
    open_file,
    side_path,
    take_database,
    take_dms,
)
from walsyncd.adapters.system import clock
from walsyncd.core.follow.presence_decision import (
    Decision,
    GiveUp,
    HeldLocks,
    Others,
    Seen,
    Stay,
    TakeDatabase,
    TakeDms,
    decide,
)
from walsyncd.core.sqlite.wal import FRAME_HEADER_SIZE, WAL_HEADER_SIZE, parse_frame_header, parse_wal_header
from walsyncd.core.sqlite.walindex import WALINDEX_READ_SIZE, parse_index_header
from walsyncd.errors import WalsyncdError
from walsyncd.file_calls import RevocableLock

_log = structlog.get_logger()


Standing = Literal["off", "on", "held"]
OTHER_OFD_LOCKS = (
    "a process that has the database open holds OFD locks, as another walsyncd does and some drivers do (ncruces' for "
    "Go): the two can't be told apart, so presence does not join them"
)


@dataclass(slots=True)
class _Grip:
    """The descriptors that hold the locks, the descriptor of the WAL, and which locks are taken."""

    shm: OpenFile
    wal: OpenFile
    database: OpenFile
    held: HeldLocks = HeldLocks.NOTHING

    @property
    def named(self) -> bool:
        return self.shm.still_named() and self.wal.still_named() and self.database.still_named()

    def close(self) -> None:
        for file in (self.database, self.wal, self.shm):
            file.close()


class Presence:
    """Presence at one database, or none if it is not ``wanted``. Thread-safe."""

    def __init__(
        self,
        path: Path,
        *,
        wanted: bool,
        own_only: bool = False,
        monotonic_ms: Callable[[], int] = clock.monotonic_ms,
    ) -> None:
        self.path = path
        self._paths = [side_path(path, role) for role in (Role.SHM, Role.WAL, Role.DATABASE)]
        self._wanted = wanted
        self._own_only = own_only
        self._monotonic_ms = monotonic_ms
        self._lock = RevocableLock()
        self._grip: _Grip | None = None
        self._seen_ms = 0
        self._problem = ""
        self._is_beside_ofd_locks = False

    @property
    def held(self) -> bool:
        """Whether both locks are held."""
        grip = self._grip
        return grip is not None and grip.held is HeldLocks.BOTH

    @property
    def hindrance(self) -> str:
        """Why wanted locks are not held, if the cause will not pass by itself. Empty otherwise."""
        return OTHER_OFD_LOCKS if self._wanted and self._is_beside_ofd_locks and not self.held else ""

    @property
    def standing(self) -> Standing:
        """Whether presence is wanted, and whether it is held now, in the word that ``status`` shows."""
        if not self._wanted:
            return "off"
        return "held" if self.held else "on"

    def want(self, *, wanted: bool) -> None:
        """Be present from now on, or no longer."""
        with self._lock:
            self._wanted = wanted
            if not wanted:
                self._give_up("it is turned off")

    def note(self, event: Event) -> None:
        """Take one event in. A process that closed the wal-index had it open, however briefly."""
        if event.role is Role.SHM and event.kind is Kind.CLOSE_WRITE:
            self._seen_ms = self._monotonic_ms()

    def update(self) -> float | None:
        """Take, keep or give up the locks. Returns the seconds until the next call, or None to wait for an event."""
        if self.standing == "off":  # ``want`` has given them up
            return None
        with self._lock:
            try:
                return self._update() if self._wanted else None
            except WalsyncdError as error:
                self._give_up(error.message)
                self._complain(error)
                return None

    def _update(self) -> float | None:
        if self._grip is None:
            self._grip = self._reach()
        while self._grip is not None:
            match self._act(self._grip):
                case Stay(look_ms):
                    self._problem = ""
                    return None if look_ms is None else look_ms / 1000
                case GiveUp(reason):
                    self._give_up(reason)
        return None

    def _act(self, grip: _Grip) -> Decision:
        """Decide on what is seen now, and act. Returns the decision, or ``GiveUp`` if it could not be carried out."""
        decision = decide(grip.held, self._look(grip))
        match decision:
            case TakeDms() if take_dms(grip.shm):
                grip.held = HeldLocks.DMS
            case TakeDatabase() if take_database(grip.database):
                grip.held = HeldLocks.BOTH
                _log.debug("presence_taken", path=str(self.path))
            case TakeDms() | TakeDatabase():
                return GiveUp("somebody else was faster")
        return decision

    def _reach(self) -> _Grip | None:
        """Open the files. Returns None if not all of them exist."""
        with ExitStack() as opened:
            files: list[OpenFile] = []
            for path in self._paths:
                file = open_file(path, own_only=self._own_only)
                if file is None:
                    return None
                files.append(opened.enter_context(file))
            opened.pop_all()
        shm, wal, database = files
        return _Grip(shm, wal, database)

    def _look(self, grip: _Grip) -> Seen:
        others = _others(grip.shm)
        self._is_beside_ofd_locks = others is Others.DAEMON
        now_ms = self._monotonic_ms()
        if others is Others.PROCESS:
            self._seen_ms = now_ms
        return Seen(
            others=others,
            named=grip.named,
            fits=others is Others.PROCESS or _fits(grip),
            claimed=grip.held is HeldLocks.DMS and database_lock(grip.database) is DatabaseLock.WRITER,
            hot_journal=hot_journal(self.path, own_only=self._own_only),
            alone_ms=now_ms - self._seen_ms,
        )

    def _give_up(self, reason: str) -> None:
        grip, self._grip = self._grip, None
        if grip is None:
            return
        grip.close()
        if grip.held is not HeldLocks.NOTHING:
            _log.debug("presence_given_up", path=str(self.path), reason=reason)

    def _complain(self, error: WalsyncdError) -> None:
        """Log once why presence is not possible."""
        if error.message != self._problem:
            self._problem = error.message
            _log.warning("presence_failed", path=str(self.path), reason=error.message, remedy=error.hint)


def _fits(grip: _Grip) -> bool:
    """Whether the last frame of the wal-index is in the WAL, or its header is not whole, so that SQLite rebuilds it."""
    index = parse_index_header(grip.shm.pread(0, WALINDEX_READ_SIZE))
    if index is None or not index.max_frame:
        return True
    wal = parse_wal_header(grip.wal.pread(0, WAL_HEADER_SIZE))
    if wal is None or wal.salts != index.salts:
        return False
    last = parse_frame_header(grip.wal.pread(wal.offset_of(index.max_frame), FRAME_HEADER_SIZE))
    return last is not None and (last.salts, last.chain) == (index.salts, index.frame_chain)


def _others(shm: OpenFile) -> Others:
    holder = dms_holder(shm)
    if holder.liveness is Liveness.SETTING_UP:
        return Others.SETTING_UP
    if holder.liveness is Liveness.NONE:
        return Others.NOBODY
    return Others.PROCESS if holder.is_process else Others.DAEMON
