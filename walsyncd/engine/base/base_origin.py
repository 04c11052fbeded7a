"""The origin of a base: its start, what takes in the copied bytes, and whether the copy can still become a base."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from walsyncd.adapters.files.source import DatabaseLock, OpenFile, database_lock
from walsyncd.core.follow.follow_state import FollowState
from walsyncd.core.stored.position import Position
from walsyncd.engine.base.base_copy import AbandonedError
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.step import BaseReading, MapReading

BeginMap: TypeAlias = Callable[[FollowedDatabase, FollowState, tuple[str, int, int]], MapReading | None]
"""Returns the reading that makes a page map of a base that begins at this state, or None if there is a map already."""


@dataclass(frozen=True, slots=True)
class BaseOrigin:
    """The follower's state at the start of a base. ``unbroken`` still matches if nothing was missed since."""

    state: FollowState
    unbroken: tuple[str, int, int]
    reading: BaseReading | None = None
    """Takes in what is copied of a database without a WAL, so that a scan can ship what changes during the copy."""
    new_map: MapReading | None = None
    """Takes in what is copied of a database with a WAL, if it has no page map."""

    @property
    def taking(self) -> BaseReading | None:
        """Return the object that takes in the copied bytes, if there is one."""
        return self.reading or self.new_map

    @property
    def start(self) -> Position:
        """The first frame that a restore applies to the base (S)."""
        return self.state.start

    def check(self, tracked: FollowedDatabase) -> None:
        """Raise AbandonedError if applying the frames from S on to what was copied no longer gives the database."""
        state = tracked.state
        if state is None or state.stream.generation != self.start.generation:
            raise AbandonedError("the generation ended")
        if tracked.unbroken(state.stream.generation) != self.unbroken:
            raise AbandonedError("the spool is read again, or a gap is bridged")

    def disturbance(self, tracked: FollowedDatabase, file: OpenFile) -> str:
        """Return why a copy made now would not be a committed state, or an empty text if it would be one.

        Returns an empty text also if the database has a WAL now or had one at the start. The header is not read,
        because encryption hides the journal mode. The modes MEMORY and OFF leave no journal, so only the lock shows a
        writer.
        """
        if self.state.cursor is not None or tracked.wal_pairs.current is not None:
            return ""
        if tracked.has_hot_journal():
            return "a rollback journal waits to be played back"
        return "a writer is in the middle of a transaction" if database_lock(file) is DatabaseLock.WRITER else ""


def no_map(_tracked: FollowedDatabase, _state: FollowState, _unbroken: tuple[str, int, int]) -> None:
    """Make no page map."""


def origin_of(tracked: FollowedDatabase, state: FollowState) -> BaseOrigin:
    """Return the origin of a base that begins now. Only the follower's thread may call."""
    return BaseOrigin(state, tracked.unbroken(state.stream.generation))
