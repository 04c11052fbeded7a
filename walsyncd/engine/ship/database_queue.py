"""A database's lane: its objects become visible strictly in order, one at a time.

The lane holds no rows: what waits is in the journal and is read when it is its turn. ``has_work`` is a latch
that an offer sets; it is cleared before the journal is read, so nothing that comes meanwhile is overlooked.

``is_busy`` is the ownership rule: whoever has set it (under the uploader's lock) may use the fields below
"while busy" without the lock until it is cleared; the others belong to the lock.
"""

from __future__ import annotations

from dataclasses import dataclass

from walsyncd.core.send.merge import MERGED_SIZE_MAX
from walsyncd.core.send.pacing import Bucket, due_ms, refill, take

LOOK_UPLOADS_MAX = 64  # uploads between two looks at owner.json
LOOK_MS_MAX = 3_600_000.0  # between two looks while writing
LANDING_MS = 600_000.0  # within which a request lands that nobody waits for any more, nearly always
DRIFT_MS_MAX = 60_000.0  # between the clocks; one that is set jumps by less, as a rule, a machine set back by more


@dataclass(frozen=True, slots=True)
class Claim:
    """A generation that was continued, the last key that was stored of it by then, and when (monotonic, ms).

    A machine that was cloned, disk and all, can't tell itself from the original. Whoever claimed first writes on until
    it looks at owner.json: up to ``LOOK_UPLOADS_MAX`` uploads, or ``LOOK_MS_MAX``. What it writes meanwhile stands
    beside what the other one writes, in the same frames.
    """

    generation: str
    after: str
    when_ms: float
    is_seen: bool = False
    """A first look found nobody else; one that is late enough is to come."""

    def is_old(self, now_ms: float) -> bool:
        """Whether the other one has looked by now."""
        return now_ms - self.when_ms > LOOK_MS_MAX + LANDING_MS


@dataclass(slots=True)
class DatabaseQueue:
    """One database's way into the storage. Times by the monotonic clock, in milliseconds."""

    database_id: int
    name: str
    bucket: Bucket
    interval_ms: float
    has_work: bool = False
    bytes_waiting: int = 0
    """At least this much is spooled; a hint that a full object has gathered."""
    urgent_upto: int = 0
    """Objects up to this id leave without a token."""
    check_ownership: bool = False
    """A base's part waits for the lane to be claimed."""
    is_busy: bool = False
    stopped: str = ""
    """Why not a byte more may be written, or empty."""
    not_before_ms: float = 0.0
    rows_waiting: int = 0
    """About so many objects wait that were not looked at for merging."""
    tasks_since_look: int = 0

    # While busy.
    is_claimed: bool = False
    looked_ms: float = 0.0
    wall_ahead_ms: float = 0.0
    """Of the monotonic clock, when the lane was looked at."""
    is_doubted: bool = False
    """The clocks have drifted apart since: the machine may have been set back, and storage be ahead of its journal."""
    uploads_since_look: int = 0
    failures: int = 0
    trouble: str = ""
    claimed: Claim | None = None
    """As long as a daemon that does not know of it yet may write to the claimed generation too."""
    swept_ms: float | None = None
    rewinds: int = 0
    merge_size_max: int = MERGED_SIZE_MAX
    """How large a merged object may be: less after one has failed on the way."""
    tried_id: int = 0
    """The object that an earlier attempt of this run may have brought into the store."""

    def due_ms(self, *, is_urgent: bool = False) -> float | None:
        """When the lane may send next; None: nothing to do for now."""
        if self.is_busy or self.stopped or not (self.has_work or self.check_ownership):
            return None
        unpaced = is_urgent or self.urgent_upto or self.check_ownership
        if unpaced or self.bytes_waiting >= MERGED_SIZE_MAX:
            return self.not_before_ms
        return max(self.not_before_ms, due_ms(self.bucket, interval_ms=self.interval_ms))

    def may_leave_at_once(self, now_ms: float) -> bool:
        """Whether an object spooled now would be sent now and alone."""
        idle = not (self.is_busy or self.has_work or self.stopped)
        return idle and self.is_claimed and self._taken(now_ms) is not None

    def take_token(self, now_ms: float) -> bool:
        """Take a token; False if there is none yet."""
        taken = self._taken(now_ms)
        if taken is not None:
            self.bucket = taken
        return taken is not None

    def level(self, now_ms: float) -> float:
        """The tokens there are."""
        return refill(self.bucket, now_ms=now_ms, interval_ms=self.interval_ms).level

    def needs_ownership_check(self, now_ms: float) -> bool:
        """Whether owner.json has to be read before the next write."""
        uploads = self.uploads_since_look + self.tasks_since_look
        if not self.is_claimed or self.is_doubted or uploads >= LOOK_UPLOADS_MAX:
            return True
        return now_ms - self.looked_ms >= LOOK_MS_MAX

    def compare_clocks(self, now_ms: float, wall_ms: float) -> None:
        """See whether they have drifted apart since the last look."""
        if self.is_claimed and abs(wall_ms - now_ms - self.wall_ahead_ms) > DRIFT_MS_MAX:
            self.is_doubted = True

    def ownership_checked(self, now_ms: float, wall_ms: float) -> None:
        """owner.json was read, and it names us."""
        self.is_claimed = True
        self.is_doubted = False
        self.wall_ahead_ms = wall_ms - now_ms
        self.looked_ms = now_ms
        self.uploads_since_look = self.tasks_since_look = 0

    def _taken(self, now_ms: float) -> Bucket | None:
        return take(self.bucket, now_ms=now_ms, interval_ms=self.interval_ms)
