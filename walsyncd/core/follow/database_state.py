"""The state of a database as the daemon reports it: one word from a bounded set."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class DatabaseState(StrEnum):
    """The state of a database. The journal stores the word, and ``status`` prints it.

    NEW: the database was not looked at yet. DEGRADED: something was missed, or can't be shipped. MISSING: there is no
    file. REFUSED: the database can't be followed until somebody changes something. FAILING: the last look failed, and
    the next attempt may succeed. SUSPENDED: something is configured that can't be a database of ours. STOPPED: the
    database would be followed if a daemon ran. NOT_CONFIGURED: the database is in the journal from an earlier
    configuration.
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
        """Whether a database in this state is not followed. The daemon still tries it from time to time."""
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
