"""The housekeeper: one thread for work that can wait. It sleeps until something is due; an idle daemon never wakes it.

Failed jobs are tried again later, and each problem is reported once. No other work depends on these jobs. If the store
refuses a deletion, the round ends. Deletions come first, so nothing is compacted while the store refuses them. The
store's clock decides what may be deleted. Nothing is deleted while the store's clock and this machine's clock differ by
more than ``CLOCK_OFF_MS``.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any

import structlog

from walsyncd.adapters.files.private_modes import folder_of_url, tighten
from walsyncd.adapters.journal.journal import Journal, ObjectKind, ObjectRow
from walsyncd.adapters.storage.interface import Storage
from walsyncd.adapters.system import clock
from walsyncd.core.keep.retention import GRACE_MS
from walsyncd.core.limits import DEFAULT_LIMITS, Limits
from walsyncd.core.send.refused_request import Refused, refused_wait_s
from walsyncd.core.stored.moment import CLOCK_OFF_MS
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.ship.ownership import Ownership, Standing
from walsyncd.engine.threads.alarm import Alarm
from walsyncd.engine.threads.boundary import boundary
from walsyncd.engine.upkeep.compactor import Compactor
from walsyncd.engine.upkeep.deletion import DeletionRefusedError, Pruned, Removals
from walsyncd.engine.upkeep.pruner import Pruner, policy_of
from walsyncd.errors import RefusedError, WalsyncdError

RETRY_S = 300.0  # the wait after a failed job; everything here can wait

PRIVATE_FACT = "private "  # the fact's name is this and the storage's URL

_log = structlog.get_logger()


class Housekeeper:
    """Compacts and prunes what is due. ``submit`` runs a request in the uploads' pool.

    ``wall_ms`` returns the time of this machine's clock, and ``has_clock_leapt`` whether that clock was set forward
    recently. ``owns`` tests whether a database's replica is in this storage.
    """

    def __init__(
        self,
        journal: Journal,
        storage: Storage,
        ownership: Ownership,
        *,
        submit: Callable[[int, Callable[[], object]], Future[Any]],
        wall_ms: Callable[[], int] = clock.wall_ms,
        has_clock_leapt: Callable[[], bool] = lambda: False,
        removals: Removals | None = None,
        owns: Callable[[int], bool] = lambda _database_id: True,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._journal = journal
        self._storage = storage
        self._ownership = ownership
        self._submit = submit
        self._wall_ms = wall_ms
        self._has_clock_leapt = has_clock_leapt
        self._calm_s = limits.upkeep_calm_s
        self._removals = counts = removals or Removals()
        may_delete, store_ms = self.may_delete, self.store_ms
        self._compactor = Compactor(
            journal,
            storage,
            submit=submit,
            may_delete=may_delete,
            store_ms=store_ms,
            removals=counts,
            owns=owns,
            replaced_after_ms=limits.replaced_after_ms,
        )
        self._pruner = Pruner(journal, storage, may_delete=may_delete, store_ms=store_ms, removals=counts)
        self._asked: Counter[int] = Counter()
        self._outcomes: dict[int, Pruned | WalsyncdError] = {}
        self._said: set[str] = set()
        self._alarm = Alarm()
        self._alarm.wake()  # earlier runs may have left work
        self._lock = threading.Lock()
        self._databases: dict[int, FollowedDatabase] = {}
        self._closing: set[int] | None = None  # databases of which an epoch may have been closed; None means any
        self._dues: dict[int, int] = {}  # when prunings become due, which the next round writes down

    def adopt(self, tracked: FollowedDatabase) -> None:
        """Compact and prune this replica from now on. Its last base will allow older bases to be deleted some day."""
        row = self._journal.database_by_id(tracked.row_id)
        with self._lock:
            self._databases[tracked.row_id] = tracked
            if row.base_ms is not None and row.base_ms > row.pruned_ms:
                self._due_later(tracked.row_id, row.base_ms + _until_old_ms(tracked))
        self.wake()

    def replan(self, tracked: FollowedDatabase) -> None:
        """Apply changed rules of retention, which may allow deletions now.

        The folder is still listed at most once a day.
        """
        if self._journal.database_by_id(tracked.row_id).base_ms is not None:
            self._journal.prune_due(tracked.row_id, self.store_ms())
            self.wake()

    def forget(self, tracked: FollowedDatabase) -> None:
        """Leave the replica as it is. Its database is no longer configured, so no rules of retention apply."""
        with self._lock:
            self._databases.pop(tracked.row_id, None)
        self._may_be_closed(tracked.row_id)

    def prune_now(self, tracked: FollowedDatabase) -> None:
        """Request a pruning; ``outcome`` then returns its result."""
        with self._lock:
            self._asked[tracked.row_id] += 1
            self._outcomes.pop(tracked.row_id, None)
        self._journal.prune_asked(tracked.row_id)
        self.wake()

    def outcome(self, tracked: FollowedDatabase) -> Pruned | WalsyncdError | None:
        """Return the result of the first pruning that began after the last request, or None if there is none yet."""
        return self._outcomes.get(tracked.row_id)

    def stored(self, row: ObjectRow) -> None:
        """Note that an object became visible.

        A manifest allows older objects to be deleted some day. The first segment of an epoch closes the epoch before.
        """
        tracked = self._databases.get(row.database_id)
        if row.kind is ObjectKind.MANIFEST and tracked is not None:
            with self._lock:
                self._due_later(row.database_id, self.store_ms() + _until_old_ms(tracked))
        if row.kind is ObjectKind.MANIFEST or row.first == 1:
            self._may_be_closed(row.database_id)
            self.wake()

    def is_busy(self) -> bool:
        """Whether the thread is working or about to look for work."""
        return not self._alarm.is_idle()

    def wake(self) -> None:
        """Make the thread look for work."""
        self._alarm.wake()

    def stop(self) -> None:
        """End the thread after the request under way. The journal has the rest of the work."""
        self._alarm.stop()

    def run(self) -> None:
        """Run the thread until ``stop``."""
        self._make_private()
        wait_s: float | None = 0.0
        while self._alarm.wait(wait_s, calm_s=self._calm_s):
            wait_s = self.round()

    def _make_private(self) -> None:
        """If the storage is a folder, remove once the read permissions that older versions gave to others."""
        url = self._storage.url
        folder, fact = folder_of_url(url), PRIVATE_FACT + url
        if folder is None or self._journal.fact(fact) is not None:
            return
        try:
            changed = tighten(folder)
        except OSError as error:
            _log.warning("replica_not_private", folder=str(folder), reason=str(error), remedy=f"chmod -R o= {folder}")
            return
        self._journal.note_fact(fact, "yes")
        if changed:
            _log.info("replica_made_private", folder=str(folder), files=changed)

    def round(self) -> float | None:
        """Do what is due.

        Returns the seconds until something is due again, or None if nothing is due before another object is stored.
        """
        failed = False
        with self._lock:
            closing, self._closing = self._closing, set()
            dues, self._dues = self._dues, {}
        if dues and self._tried("pruning", partial(self._journal.prunes_become_due, dues)) is not None:
            with self._lock:
                for database_id, at_ms in dues.items():
                    self._due_later(database_id, at_ms)
                self._closing = None
            return RETRY_S
        for kind, job in self._jobs(closing):
            if self._alarm.is_stopped:
                return None
            error = self._tried(kind, job)
            failed |= error is not None
            if failed:
                with self._lock:
                    self._closing = None
            if isinstance(error, DeletionRefusedError):
                return refused_wait_s(Refused.DELETION)
        if failed:
            return RETRY_S
        if self._said:
            self._said.clear()
            _log.info("housekeeping_resumed")
        now_ms = self.store_ms()
        due = [self._compactor.next_ms(), self._journal.next_prune_ms(now_ms)]
        moments = [moment for moment in due if moment is not None]
        return max(1.0, (min(moments) - now_ms) / 1000) if moments else None

    def store_ms(self) -> int:
        """Return the time of the store's clock, or of this machine's clock for a folder, which has no clock."""
        clock_ms = self._storage.clock_ms()
        return self._wall_ms() if clock_ms is None else clock_ms

    def may_delete(self, database_id: int) -> None:
        """Raise RefusedError if the database's objects may not be deleted: they are not ours, or a clock is wrong."""
        database = self._journal.database_by_id(database_id)
        verdict = self._submit(database_id, lambda: self._ownership.look(database)).result()
        if verdict.standing is not Standing.OURS:
            raise RefusedError(f"remove objects of {database.name}: {verdict.reason}")
        if self._storage.clock_ms() is None and self._has_clock_leapt():
            raise RefusedError(
                f"remove objects of {database.name}: this machine's clock was set forward within the last day",
                hint="set it right if it is wrong; if it is right, objects are deleted after a day",
            )
        off_ms = self.store_ms() - self._wall_ms()
        if abs(off_ms) > CLOCK_OFF_MS:
            raise RefusedError(
                f"remove objects of {database.name}: this machine's clock is {abs(off_ms) // 1000} s off the store's",
                hint="set the clock; nothing is deleted until then",
            )

    def _jobs(self, closing: set[int] | None) -> list[tuple[str, Callable[[], None]]]:
        """Return what is due: first the compactor's deletions, then prunings, then compactions."""
        due = self._journal.prunes_due(self.store_ms())
        with self._lock:
            databases = [tracked for row_id in due if (tracked := self._databases.get(row_id)) is not None]
        return [
            *(("compaction", job) for job in self._compactor.replacements()),
            *(("pruning", partial(self._prune, each)) for each in databases),
            *(("compaction", job) for job in self._compactor.compactions(closing)),
        ]

    def _all(self) -> list[FollowedDatabase]:
        with self._lock:
            return list(self._databases.values())

    def _prune(self, tracked: FollowedDatabase) -> None:
        asked = self._asked[tracked.row_id]
        try:
            self._note_outcome(tracked, self._pruner.prune(tracked.row_id, policy_of(tracked.spec)), asked)
        except WalsyncdError as error:
            self._note_outcome(tracked, error, asked)
            raise

    def _note_outcome(self, tracked: FollowedDatabase, outcome: Pruned | WalsyncdError, asked: int) -> None:
        """Note the result of a pruning that began after ``asked`` requests.

        If there was another request since then, another pruning follows, and its result counts.
        """
        with self._lock:
            is_answer = self._asked[tracked.row_id] == asked
            if is_answer:
                self._outcomes[tracked.row_id] = outcome
        if not is_answer:
            self.prune_now(tracked)

    def _due_later(self, database_id: int, at_ms: int) -> None:
        """Make the next round note when a pruning is due. If this is lost, ``adopt`` computes the moment again."""
        self._dues[database_id] = min(at_ms, self._dues.get(database_id, at_ms))

    def _may_be_closed(self, database_id: int) -> None:
        with self._lock:
            if self._closing is not None:
                self._closing.add(database_id)

    def _tried(self, kind: str, job: Callable[[], None]) -> Exception | None:
        try:
            with boundary(kind):
                job()
        except WalsyncdError as error:
            self._removals.failed(kind)
            self._say(error)
            return error
        except CancelledError as error:  # the daemon stops
            return error
        return None

    def _say(self, error: WalsyncdError) -> None:
        """Report an error once until a round succeeds. A refused deletion is reported once for all objects."""
        if isinstance(error, DeletionRefusedError):
            for tracked in self._all():  # all callers get this result now, since nothing is tried again for long
                self._outcomes.setdefault(tracked.row_id, error)
        words = "deletion_refused" if isinstance(error, DeletionRefusedError) else error.message
        if words not in self._said:
            self._said.add(words)
            _log.warning("housekeeping_postponed", reason=error.message, remedy=error.hint)


def _until_old_ms(tracked: FollowedDatabase) -> int:
    return policy_of(tracked.spec).retention_ms + GRACE_MS
