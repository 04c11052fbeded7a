"""The findings of the looks at a database, beyond the follow state. A look takes an ``Evidence`` and returns the next.

Evidence does not outlive the process. The daemon starts without evidence. A database whose spool was taken back
continues without evidence. A new generation begins with what was seen when it began.
"""

from __future__ import annotations

from dataclasses import dataclass

from walsyncd.core.follow.decision import CounterMark, Cursor, Observation, ProvisionalProof
from walsyncd.core.sqlite.wal import Salts


@dataclass(frozen=True, slots=True)
class Lag:
    """A live wal-index that lags behind the WAL. ``last`` is the last commit that a search of the WAL found."""

    cursor: Cursor
    last: int
    since_ms: int


@dataclass(frozen=True, slots=True)
class StuckLook:
    """An intermediate state that every look has shown since ``since_ms`` (monotonic)."""

    seen: Observation
    since_ms: int


@dataclass(frozen=True, slots=True)
class Scanned:
    """The last commit that a scan of the WAL found. Committed frames stay, so no later scan need search up to there."""

    salts: Salts
    last: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """The findings that one look hands on to the next.

    ``verified``: this run of the daemon has seen that the WAL still holds what was shipped of it. ``mark`` belongs to
    the follow state's cursor. ``provisional`` is the last count that was believed because an event had not come; the
    event may still come. ``quiet_since_ms`` is since when nobody has had the database open (monotonic); it is kept
    only while it matters, which is after a reboot. ``stale_ichange`` is what a wal-index counted at the last
    look at which nobody seemed to use it.
    """

    verified: bool = False
    mark: CounterMark | None = None
    provisional: ProvisionalProof | None = None
    believe_index: bool = True
    lag: Lag | None = None
    waiting: StuckLook | None = None
    scanned: Scanned | None = None
    quiet_since_ms: int | None = None
    stale_ichange: int | None = None

    @property
    def is_settled(self) -> bool:
        """Whether the WAL was verified, its wal-index is believed, and its count is known."""
        return self.verified and self.believe_index and self.mark is not None
