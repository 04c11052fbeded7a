"""What the daemon says of a database: one word from a bounded set."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class DatabaseState(StrEnum):
    """How a database does; the journal and ``status`` hold the word.

    NEW: nobody has looked at it yet. DEGRADED: something was missed, or can't be shipped. MISSING: there is no file.
    REFUSED: it can't be followed until somebody changes something. FAILING: it could not be looked at, and the next
    attempt may succeed. STOPPED: it would be followed if a daemon ran. NOT_CONFIGURED: the journal knows it from
    before.
    """

    NEW = "new"
    FOLLOWING = "following"
    COPYING_BASE = "copying base"
    DEGRADED = "degraded"
    MISSING = "missing"
    REFUSED = "refused"
    FAILING = "failing"
    STOPPED = "stopped"
    NOT_CONFIGURED = "not configured"

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong with a database in this state."""
        return self in _WELL

    @property
    def is_suspended(self) -> bool:
        """Whether a database in this state is not looked at, but for attempts from time to time."""
        return self in _SUSPENDED


_WELL = frozenset({DatabaseState.NEW, DatabaseState.FOLLOWING, DatabaseState.COPYING_BASE})
_SUSPENDED = frozenset({DatabaseState.MISSING, DatabaseState.REFUSED, DatabaseState.FAILING})


@dataclass(frozen=True, slots=True)
class StateReport:
    """What is said of a database: its state, and why it is in it if that is not well."""

    state: DatabaseState
    cause: str = ""

    def __str__(self) -> str:
        return f"{self.state}: {self.cause}" if self.cause else str(self.state)
