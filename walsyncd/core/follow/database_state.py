"""The state of a database as the daemon reports it: one word from a bounded set."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class DatabaseState(StrEnum):
    """The state of a database. The journal stores the word, and ``status`` prints it.

    NEW: nobody has looked at it yet. DEGRADED: something was missed, or can't be shipped. MISSING: there is no file.
    REFUSED: it can't be followed until somebody changes something. FAILING: it could not be looked at, and the next
    attempt may succeed. SUSPENDED: something is configured that can't be a database of ours. STOPPED: it would be
    followed if a daemon ran. NOT_CONFIGURED: the journal knows it from before.
    """

    NEW = "new"
    FOLLOWING = "following"
    COPYING_BASE = "copying base"
    DEGRADED = "degraded"
    MISSING = "missing"
    REFUSED = "refused"
    FAILING = "failing"
    SUSPENDED = "suspended"
    STOPPED = "stopped"
    NOT_CONFIGURED = "not configured"

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong with a database in this state."""
        return self in _WELL

    @property
    def is_suspended(self) -> bool:
        """Whether a database in this state is not followed. It is still tried from time to time."""
        return self in _SUSPENDED


_WELL = frozenset({DatabaseState.NEW, DatabaseState.FOLLOWING, DatabaseState.COPYING_BASE})
_SUSPENDED = frozenset({DatabaseState.MISSING, DatabaseState.REFUSED, DatabaseState.FAILING, DatabaseState.SUSPENDED})


@dataclass(frozen=True, slots=True)
class StateReport:
    """The state of a database, and the cause if the state is not well."""

    state: DatabaseState
    cause: str = ""

    def __str__(self) -> str:
        return f"{self.state}: {self.cause}" if self.cause else str(self.state)
