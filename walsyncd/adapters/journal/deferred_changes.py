"""Changes of the journal that need not be durable at once.

The next transaction of any thread first makes the deferred changes, and then commits them together with its own. So the
statements of that transaction see the deferred changes. Queries see them too, because a query first commits the changes
that queries must see. If the process is killed before a commit, the changes are lost.
"""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

DEFER_S = 0.1  # changes are deferred at most this long, and only if the last two transactions were within this time
RETRY_S = 1.0  # the wait after a commit that failed, for example because the disk is full

# Makes a change, and returns a function to call once the change is committed.
Change: TypeAlias = Callable[[sqlite3.Connection], Callable[[], None]]


class DeferredChanges:
    """The deferred changes of one connection. Only ``apply`` and its result need the connection's lock."""

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._changes: list[tuple[Change, bool]] = []  # each change, and whether queries must see it
        self._due_s = 0.0
        self._committed_s: deque[float] = deque(maxlen=2)

    def __bool__(self) -> bool:
        return bool(self._changes)

    def is_worthwhile(self) -> bool:
        """Whether another transaction is likely to come soon, as the last two came a moment ago."""
        return len(self._committed_s) == 2 and self._monotonic_s() - self._committed_s[0] < DEFER_S

    def is_awaited(self) -> bool:
        """Whether queries must see any of the changes."""
        return any(is_awaited for _, is_awaited in self._changes.copy())

    def add(self, change: Change, *, is_awaited: bool = True) -> None:
        """Defer a change. ``is_awaited`` says that queries must see the change."""
        if not self._changes:
            self._due_s = self._monotonic_s() + DEFER_S
        self._changes.append((change, is_awaited))

    def due_s(self) -> float | None:
        """Return after how many seconds the changes have to be committed, or None if there are none."""
        return max(0.0, self._due_s - self._monotonic_s()) if self._changes else None

    def postpone(self) -> None:
        """Note that a commit of the changes is attempted now. If the commit fails, they are due again after RETRY_S."""
        self._due_s = self._monotonic_s() + RETRY_S

    def apply(self, connection: sqlite3.Connection) -> Callable[[], None]:
        """Make the changes in a transaction that has just begun. Returns a function to call after the commit."""
        applied = len(self._changes)  # another thread may add more meanwhile
        follow_ups = [change(connection) for change, _ in self._changes[:applied]]

        def committed() -> None:
            del self._changes[:applied]
            self._committed_s.append(self._monotonic_s())
            for follow_up in follow_ups:
                follow_up()

        return committed
