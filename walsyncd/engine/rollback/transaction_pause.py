"""Prevents looks at a database in the middle of a transaction: the thirty events of a commit cause one look at its end.

A look before the end is of no use, and costs about as much CPU as shipping the commit. A transaction begins with a
write to its journal. It ends with the journal's deletion or, in journal modes PERSIST and TRUNCATE, with the journal's
next event after the database was written. (If a transaction writes the database several times, the journal has such
events before the end, too.) If neither event comes, a look follows after ``PAUSE_S``.
"""

from __future__ import annotations

import time

from walsyncd.adapters.files.inotify import Event, Kind
from walsyncd.adapters.files.source import Role
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.schedule import Schedule

PAUSE_S = 0.05  # a commit with its syncs takes 2 to 20 ms on most disks


class TransactionPause:
    """Lets events wake ``tracked`` only when a transaction ends. The thread that drains the queue calls this."""

    def __init__(self, schedule: Schedule, tracked: FollowedDatabase, *, pause_s: float = PAUSE_S) -> None:
        self._schedule = schedule
        self._tracked = tracked
        self._pause_s = pause_s
        self.until_s = 0.0
        """The monotonic time until which there are no looks. Any thread may read it.

        It is in the past if no transaction is under way.
        """
        self._is_written = False

    def note(self, event: Event) -> None:
        """Take in one event. The caller does this before the event wakes the database."""
        if event.role is Role.DATABASE and event.kind is Kind.MODIFY:
            self._is_written = True
        if event.role is not Role.JOURNAL or event.kind in {Kind.CLOSE_WRITE, Kind.COUNTED, Kind.UNCOUNTED}:
            return
        is_written, self._is_written = self._is_written, False
        if is_written or event.kind not in {Kind.CREATE, Kind.MODIFY}:
            self._end()
        else:
            self._begin()

    def _begin(self) -> None:
        now_s = time.monotonic()
        if self.until_s <= now_s and self._tracked.pace.rest_until_s <= now_s:
            self.until_s = now_s + self._pause_s
            self._schedule.rest(self._tracked, self.until_s)

    def _end(self) -> None:
        """End the pause, unless a look has set another pause since."""
        if self._tracked.pace.rest_until_s == self.until_s:
            self._schedule.rest(self._tracked, 0.0)
        self.until_s = 0.0
