"""Changes of the journal that need not be durable at once: the next transaction of anybody commits them with its own.

They are applied before anything else in that transaction, so whoever writes finds them made. Whoever reads does so
too, because a query commits them first, unless no query depends on them. A process that is killed before has not made
them.
"""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

DEFER_S = 0.1  # changes are deferred at most this long, and only if transactions came that often until now
RETRY_S = 1.0  # the wait after a commit that failed, for example because the disk is full

# Makes a change, and returns what is to be done once it is committed.
Change: TypeAlias = Callable[[sqlite3.Connection], Callable[[], None]]


class DeferredChanges:
    """The deferred changes of one connection. ``apply`` and its result need the connection's lock, the others none."""

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._changes: list[tuple[Change, bool]] = []  # each with whether queries must find it made
        self._due_s = 0.0
        self._committed_s: deque[float] = deque(maxlen=2)

    def __bool__(self) -> bool:
        return bool(self._changes)

    def is_worthwhile(self) -> bool:
        """Whether another transaction is likely to come soon: two have, a moment ago."""
        return len(self._committed_s) == 2 and self._monotonic_s() - self._committed_s[0] < DEFER_S

    def is_awaited(self) -> bool:
        """Whether a query must find one of the changes made."""
        return any(is_awaited for _, is_awaited in self._changes.copy())

    def add(self, change: Change, *, is_awaited: bool = True) -> None:
        """Defer a change. It is not awaited if every query may as well find that it has not been made."""
        if not self._changes:
            self._due_s = self._monotonic_s() + DEFER_S
        self._changes.append((change, is_awaited))

    def due_s(self) -> float | None:
        """Return in how many seconds the changes have to be committed, or None if there are none."""
        return max(0.0, self._due_s - self._monotonic_s()) if self._changes else None

    def postpone(self) -> None:
        """Note that the changes are tried to be committed now. If that fails, they are due again after a moment."""
        self._due_s = self._monotonic_s() + RETRY_S

    def apply(self, connection: sqlite3.Connection) -> Callable[[], None]:
        """Make the changes in a transaction that has just begun. Returns what to call after its commit."""
        applied = len(self._changes)  # another thread may add more meanwhile
        follow_ups = [change(connection) for change, _ in self._changes[:applied]]

        def committed() -> None:
            del self._changes[:applied]
            self._committed_s.append(self._monotonic_s())
            for follow_up in follow_ups:
                follow_up()

        return committed
