"""One round over all databases, for ``walsyncd run --once``. It is over when nothing is left that can be done now.

A thread of the daemon waits until the following is done, while all other threads work as usual:

1. Every database was looked at.
2. Every object that was spooled is stored, and no base is due or under way. A base that waits for the WAL to restart
   counts as due as long as nothing prevents the epoch that is begun for it (``engine.content.epoch_start``).
3. Compaction and pruning have done what was due.

The thread stops waiting for a database that can't be read or that another daemon has taken over, and for a base that
was abandoned ``BASE_FAILURES_MAX`` times. It stops waiting for everything when nothing was read, stored or removed for
``once_stalled_s``, or for ``once_trouble_s`` while the storage is away or refuses.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import structlog

from walsyncd.adapters.journal.journal import DatabaseRow, Journal
from walsyncd.core.limits import Limits
from walsyncd.engine.daemon.destinations import Destinations
from walsyncd.engine.follow.followed_database import FollowedDatabase

LOOK_S_MAX = 600.0  # the first look at a large WAL reads it whole
BASE_FAILURES_MAX = 3
POLL_S = 0.1

_SET_ASIDE = {"missing", "refused", "failing"}

_log = structlog.get_logger()


class SingleRound:
    """``look`` looks at databases, ``trouble`` returns what is wrong with storage, ``done`` is called at the end."""

    def __init__(
        self,
        journal: Journal,
        databases: Callable[[], Sequence[FollowedDatabase]],
        destinations: Destinations,
        look: Callable[[Sequence[FollowedDatabase], float], object],
        trouble: Callable[[], str],
        done: Callable[[], None],
        limits: Limits,
    ) -> None:
        self._journal = journal
        self._databases = databases
        self._destinations = destinations
        self._look = look
        self._trouble = trouble
        self._done = done
        self._limits = limits
        self._stopping = threading.Event()
        self.left: dict[str, str] = {}
        """What is left to be done for each database, by name; empty if nothing is."""

    def run(self) -> None:
        """Run the thread until the round is over, or until ``stop``."""
        self._look(self._databases(), LOOK_S_MAX)
        self._wait_while(self._unfinished)
        self.left = self._unfinished() | self._given_up()
        for name, reason in self.left.items():
            _log.warning("database_left_for_next_run", database=name, reason=reason)
        if not self.left:
            self._wait_while(self._is_housekeeping)
        self._done()

    def stop(self) -> None:
        """End the thread because the daemon stops."""
        self._stopping.set()

    def _wait_while(self, remains: Callable[[], object]) -> None:
        """Wait until nothing ``remains``, or until waiting longer is of no use."""
        seen, moved_s = self._progress(), time.monotonic()
        while remains() and not self._stopping.wait(POLL_S):
            now_s, progress = time.monotonic(), self._progress()
            if progress != seen:
                seen, moved_s = progress, now_s
            if now_s - moved_s > (self._limits.once_trouble_s if self._trouble() else self._limits.once_stalled_s):
                return

    def _progress(self) -> object:
        """Return a value that changes whenever something was read, stored or removed."""
        rows = self._journal.databases()
        parts = [len(self._journal.parts(base.row.id)) for row in rows for base in self._journal.bases(row.id)]
        return rows, parts, self._destinations.all()[0].removals_made()

    def _unfinished(self) -> dict[str, str]:
        """Return, by name, what the round still waits for."""
        found = {each.name: self._awaited(each, self._row(each)) for each in self._databases()}
        return {name: reason for name, reason in found.items() if reason}

    def _awaited(self, tracked: FollowedDatabase, row: DatabaseRow) -> str:
        if self._reason_given_up(tracked, row):
            return ""
        if row.state in _SET_ASIDE:  # the daemon's stop looks once more and reports a failure
            return ""
        waiting = self._journal.pending(row.id)
        if waiting:
            return row.error or f"{len(waiting)} objects are not uploaded"
        if tracked.state is None:
            return row.cause or "its next generation has not begun"
        if self._destinations.of(tracked.row_id).snapshotter.is_due(tracked):
            return row.error or "a base is due and not stored"
        if tracked.base.awaits_restart and not tracked.base.hindrance:
            return row.error or "no epoch was begun for the base that is due"
        return ""

    def _given_up(self) -> dict[str, str]:
        found = {each.name: self._reason_given_up(each, self._row(each)) for each in self._databases()}
        return {name: reason for name, reason in found.items() if reason}

    def _reason_given_up(self, tracked: FollowedDatabase, row: DatabaseRow) -> str:
        destination = self._destinations.of(tracked.row_id)
        if destination.uploader.is_taken(tracked.row_id):
            return row.error or "another daemon writes to it"
        failures = destination.snapshotter.failures(tracked)
        if failures >= BASE_FAILURES_MAX:
            return f"its base was abandoned {failures} times"
        return ""

    def _is_housekeeping(self) -> bool:
        return any(each.is_housekeeping() for each in self._destinations.all())

    def _row(self, tracked: FollowedDatabase) -> DatabaseRow:
        return self._journal.database_by_id(tracked.row_id)
