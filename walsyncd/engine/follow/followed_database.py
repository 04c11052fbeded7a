"""One database as the daemon holds it in memory; what must outlive the process stands in the journal.

Owned by the follower thread. Others reach it through the follower's requests, and ``wal_pairs`` under the watch lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from walsyncd.config import DatabaseSpec
from walsyncd.core.follow.database_state import DatabaseState, StateReport
from walsyncd.core.follow.decision import CounterMark, Cursor, Observation, ProvisionalProof
from walsyncd.core.follow.follow_state import FollowState
from walsyncd.core.sqlite.wal import Salts
from walsyncd.engine.follow.presence import Presence
from walsyncd.engine.follow.segment_builder import SegmentBuilder
from walsyncd.engine.follow.wal_pairs import WalPairs
from walsyncd.errors import WalsyncdError


@dataclass(slots=True)
class LongTransaction:
    """A transaction of which no commit was read yet.

    ``state`` is the one that it continues, ``cursor`` the end of what was collected.
    """

    collector: SegmentBuilder
    state: FollowState
    cursor: Cursor


@dataclass(slots=True)
class Request:
    """Somebody waits for a look that begins now: ``then`` runs in the follower thread when it has caught up."""

    then: Callable[[FollowedDatabase], object]
    done: Future[object] = field(default_factory=Future)


def _at_once() -> bool:
    return True


@dataclass(slots=True)
class FollowedDatabase:
    """A database being followed."""

    spec: DatabaseSpec
    row_id: int
    wal_pairs: WalPairs
    presence: Presence = field(init=False, compare=False)
    state: FollowState | None = None
    mark: CounterMark | None = None
    provisional: ProvisionalProof | None = None
    """The last count that was believed because an event had not come; that may still come."""
    pending: LongTransaction | None = None
    believe_index: bool = True
    lagging: tuple[Cursor, int, int] | None = None
    """Behind which cursor a live wal-index lags, the last commit in the WAL when searched, and when that was (ms)."""
    waiting: tuple[Observation, int] | None = None
    """The moment in between that looks show, and since when (monotonic, ms)."""
    scanned: tuple[Salts, int] | None = None
    """The last commit that a scan of the WAL found: committed frames stay, so it need not be searched again."""
    verified: bool = False
    """This run has seen that the WAL still holds what was shipped of it."""
    quiet_since_ms: int | None = None
    """Since when nobody has had the database open (monotonic), while that matters: after a reboot."""
    vouching: tuple[int, FollowState] | None = None
    """Up to which touch of ``wal_pairs`` the database is known as soon as this state is the one that we hold."""
    rewinds: int = 0
    """How often the journal has taken the spool back; what was begun before that counts for nothing."""
    base_under_way: bool = False
    base_wanted: str = ""
    """Why a base is due, or empty."""
    base_awaits_restart: bool = False
    """A base is due, and waits until the WAL restarts in the current epoch: S must lie in it."""
    gap_reason: str = ""
    begin_not_before: float = 0.0
    begin_when: Callable[[], bool] = _at_once
    """Whether the next generation may begin: not before storage is back, if the spool was dropped."""
    begin_delay_s: float = 0.0
    began_s: float = 0.0
    relooks: int = 0
    busy_until: float = 0.0
    """Until when (monotonic) a busy database's next look waits, so that looking does not become the load."""
    streak: int = 0
    failures: int = 0
    report: StateReport = field(default_factory=lambda: StateReport(DatabaseState.NEW))
    """What was said of it last."""
    requests: list[Request] = field(default_factory=list)
    interrupts: deque[Callable[[FollowedDatabase], object]] = field(default_factory=deque)
    """What others want done in the follower's thread before it looks again."""
    dismissed: bool = False
    """It is not followed any more; whoever still asks is told so."""

    def __post_init__(self) -> None:
        self.presence = Presence(self.spec.path, wanted=self.spec.presence)

    @property
    def path(self) -> Path:
        """The database file."""
        return self.spec.path

    @property
    def name(self) -> str:
        """The folder of its replica."""
        return self.spec.name

    @property
    def base_can_begin(self) -> bool:
        """Whether a base that is wanted, or that waited for the WAL, is to be asked for."""
        if self.state is None or self.base_under_way:
            return False
        if self.base_awaits_restart:
            return self.state.start_epoch == self.state.stream.epoch
        return bool(self.base_wanted)

    def answer(self, asked: int) -> None:
        """Everything committed when the first ``asked`` requests came is in the state."""
        requests, self.requests[:asked] = self.requests[:asked], []
        for request in requests:
            if not request.done.set_running_or_notify_cancel():
                continue
            try:
                answer = request.then(self)
            except WalsyncdError as error:  # theirs who asked
                request.done.set_exception(error)
            else:
                request.done.set_result(answer)

    def fail_requests(self, error: WalsyncdError) -> None:
        """Whoever waits is told why there is nothing to wait for."""
        requests, self.requests[:] = list(self.requests), []
        for request in requests:
            if request.done.set_running_or_notify_cancel():
                request.done.set_exception(error)

    def drop_pending(self) -> None:
        """Give up what was collected of an unfinished transaction; it is read again."""
        if self.pending is not None:
            self.pending.collector.drop()
            self.pending = None

    def go_back(self, state: FollowState, rewinds: int) -> None:
        """Stand where the journal has it now, as if the daemon began there."""
        self.drop_pending()
        self.state, self.mark, self.rewinds = state, None, rewinds
        self.provisional = None
        self.believe_index, self.lagging, self.scanned = True, None, None
        self.verified, self.quiet_since_ms = False, None
        self.vouching = None
        self.base_under_way = False

    def forget(self) -> None:
        """Leave everything behind that belongs to the generation."""
        self.drop_pending()
        self.state = self.mark = self.provisional = None
        self.believe_index, self.lagging, self.waiting, self.scanned = True, None, None, None
        self.verified, self.quiet_since_ms = True, None
        self.vouching = None
        self.base_under_way, self.base_wanted, self.base_awaits_restart = False, "", False
