"""One database's upload queue: its objects become visible strictly in order, one at a time.

The queue holds no rows: pending objects are in the journal, which is read when the queue is drained. ``has_work`` is a
latch that an offer sets. The latch is cleared before the journal is read, so an object that arrives meanwhile is not
missed.

``is_busy`` says that a thread owns the queue. That thread has set it under the uploader's lock, and may use the fields
under "While busy" without the lock until it clears ``is_busy``. The other fields are guarded by the lock.
"""

from __future__ import annotations

from dataclasses import dataclass

from walsyncd.adapters.journal.journal import ObjectRow
from walsyncd.core.send.merge import MERGED_SIZE_MAX
from walsyncd.core.send.pacing import Bucket, due_ms, refill, take

LOOK_UPLOADS_MAX = 64  # uploads between two checks of owner.json
LOOK_MS_MAX = 3_600_000.0  # the longest time between two checks of owner.json while objects are written
LANDING_MS = 600_000.0  # an abandoned request has nearly always ended after this time
JOINS_MS = 15.0  # an object that is to leave together with a waiting one is spooled this long before they leave
# setting a clock usually changes the difference of the clocks by less, restoring a machine's snapshot by more
DRIFT_MS_MAX = 60_000.0


@dataclass(frozen=True, slots=True)
class Claim:
    """The claim of a generation that is continued. It was made at ``when_ms`` (monotonic).

    ``after`` is the last key of the generation that was stored before the claim.

    A machine that was cloned with its disk can't tell itself from the original. The machine that claimed first
    continues to write until it checks owner.json: for up to ``LOOK_UPLOADS_MAX`` uploads or ``LOOK_MS_MAX``. Until then
    both machines write objects with the same frames.
    """

    generation: str
    after: str
    when_ms: float
    is_seen: bool = False
    """The first check found no other writer. A second check, late enough to be sure, is still to be made."""

    def is_old(self, now_ms: float) -> bool:
        """Whether the other writer has checked owner.json by now."""
        return now_ms - self.when_ms > LOOK_MS_MAX + LANDING_MS


@dataclass(slots=True)
class DatabaseQueue:
    """One database's upload queue. Times are of the monotonic clock, in milliseconds."""

    database_id: int
    name: str
    bucket: Bucket
    interval_ms: float
    has_work: bool = False
    bytes_waiting: int = 0
    """At least this many bytes are spooled; a hint that a full object has gathered."""
    urgent_upto: int = 0
    """Objects up to this id are sent without a token."""
    check_ownership: bool = False
    """A base's part waits for the queue to be claimed."""
    is_busy: bool = False
    stopped: str = ""
    """Why nothing more may be written; empty if writing is allowed."""
    not_before_ms: float = 0.0
    offered: ObjectRow | None = None
    """The only pending object, as far as the queue knows. Its row was written as begun, so that it is sent at once."""
    rows_waiting: int = 0
    """About how many pending objects have not been considered for merging."""
    tasks_since_look: int = 0

    # While busy.
    has_paid: bool = False
    """A token was taken for the object that is being sent."""
    is_claimed: bool = False
    looked_ms: float = 0.0
    wall_ahead_ms: float = 0.0
    """How far the wall clock was ahead of the monotonic clock at ``looked_ms``, when ownership was last checked."""
    is_doubted: bool = False
    """The clocks have drifted apart since that check.

    The machine may have been restored, so that the storage is ahead of the journal.
    """
    uploads_since_look: int = 0
    failures: int = 0
    trouble: str = ""
    claimed: Claim | None = None
    """Set while another daemon, which does not know of the claim yet, may write to the claimed generation."""
    swept_ms: float | None = None
    rewinds: int = 0
    merge_size_max: int = MERGED_SIZE_MAX
    """The size limit of a merged object, which is lowered after the upload of such an object has failed."""
    tried_id: int = 0
    """The object that an earlier attempt of this run may have stored."""

    def due_ms(self, *, is_urgent: bool = False) -> float | None:
        """Return when the queue may send next. Returns None if there is nothing to do for now."""
        if self.is_busy or self.stopped or not (self.has_work or self.check_ownership):
            return None
        unpaced = is_urgent or self.urgent_upto or self.check_ownership
        if unpaced or self.bytes_waiting >= MERGED_SIZE_MAX:
            return self.not_before_ms
        return max(self.not_before_ms, due_ms(self.bucket, interval_ms=self.interval_ms))

    def may_leave_at_once(self, now_ms: float) -> bool:
        """Whether an object spooled now would be sent at once and alone."""
        idle = not (self.is_busy or self.has_work or self.stopped)
        return idle and self.is_claimed and self._taken(now_ms) is not None

    def leaves_in_ms(self, now_ms: float) -> float:
        """Return how many milliseconds the spooling of another object can wait without delaying its upload.

        The result is 0 if somebody waits for the object, or if the queue is not claimed yet. An object that is pending
        already gets the next token, and leaves together with what is spooled until then.
        """
        if self.urgent_upto or self.check_ownership or not self.is_claimed:
            return 0.0
        is_owed = self.has_work or (self.is_busy and not self.has_paid)
        bucket = self._taken(now_ms) if is_owed else None
        joins_ms = JOINS_MS if is_owed and bucket is None else 0.0
        return due_ms(bucket or self.bucket, interval_ms=self.interval_ms) - now_ms - joins_ms

    def take_token(self, now_ms: float) -> bool:
        """Take a token. Returns False if there is none yet."""
        taken = self._taken(now_ms)
        if taken is not None:
            self.bucket = taken
            self.has_paid = True
        return taken is not None

    def level(self, now_ms: float) -> float:
        """Return the number of tokens available."""
        return refill(self.bucket, now_ms=now_ms, interval_ms=self.interval_ms).level

    def needs_ownership_check(self, now_ms: float) -> bool:
        """Whether owner.json has to be read before the next write."""
        uploads = self.uploads_since_look + self.tasks_since_look
        if not self.is_claimed or self.is_doubted or uploads >= LOOK_UPLOADS_MAX:
            return True
        return now_ms - self.looked_ms >= LOOK_MS_MAX

    def compare_clocks(self, now_ms: float, wall_ms: float) -> None:
        """Check whether the clocks have drifted apart since the last ownership check."""
        if self.is_claimed and abs(wall_ms - now_ms - self.wall_ahead_ms) > DRIFT_MS_MAX:
            self.is_doubted = True

    def ownership_checked(self, now_ms: float, wall_ms: float) -> None:
        """Note that owner.json was read, and that it names us."""
        self.is_claimed = True
        self.is_doubted = False
        self.wall_ahead_ms = wall_ms - now_ms
        self.looked_ms = now_ms
        self.uploads_since_look = self.tasks_since_look = 0

    def _taken(self, now_ms: float) -> Bucket | None:
        return take(self.bucket, now_ms=now_ms, interval_ms=self.interval_ms)
