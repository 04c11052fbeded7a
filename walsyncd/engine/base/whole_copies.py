"""Decides how often an encrypted file with a rollback journal is copied whole, since nothing else stores its changes.

Each change requires a copy of the whole file. Without a pace a file of 47 MB with a commit every 3 s would be uploaded
twenty times a minute. So after each copy the database rests, in proportion to what that copy has cost. A caller that
waits for what is committed now, as ``sync`` does, ends the rest.

A copy that begins at the end of a rest may meet a commit. Such a copy is given up at once, and begun again once: no
moment for a copy is better than the one after a commit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from walsyncd.core.keep.base_schedule import whole_copy_rest_s
from walsyncd.core.limits import DEFAULT_LIMITS
from walsyncd.engine.follow.followed_database import FollowedDatabase


@dataclass(frozen=True, slots=True)
class _Rest:
    """The rest of a database in ``generation``, until ``until_s`` (monotonic).

    The next generation does not rest, because it has no base yet. ``given_up`` counts the copies that were given up
    since the last complete one.
    """

    until_s: float
    generation: str
    given_up: int


@dataclass(frozen=True, slots=True)
class BegunCopy:
    """A copy that began at ``began_s`` (monotonic). ``is_asked`` means that a caller waits for the copy."""

    generation: str
    began_s: float
    is_asked: bool


class WholeCopies:
    """The rests of all databases. Any thread may call."""

    def __init__(
        self,
        monotonic_s: Callable[[], float] = time.monotonic,
        *,
        bytes_per_s: float = DEFAULT_LIMITS.whole_copy_bytes_per_s,
    ) -> None:
        self._bytes_per_s = bytes_per_s
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._rests: dict[int, _Rest] = {}
        self._asked: set[int] = set()

    def begin(self, tracked: FollowedDatabase) -> BegunCopy:
        """Note that a copy begins. Callers that have asked until now wait for this copy."""
        with self._lock:
            is_asked = tracked.row_id in self._asked
            self._asked.discard(tracked.row_id)
        return BegunCopy(tracked.generation or "", self._monotonic_s(), is_asked)

    def end(self, tracked: FollowedDatabase, begun: BegunCopy, copied_bytes: int) -> None:
        """Note that a copy is over.

        ``copied_bytes`` is the size of a file whose base is complete, or 0 if the copy was given up.
        """
        now_s = self._monotonic_s()
        took_s, interval_s = now_s - begun.began_s, tracked.spec.snapshot_interval_s
        rest_s = whole_copy_rest_s(took_s, copied_bytes, interval_s, bytes_per_s=self._bytes_per_s)
        with self._lock:
            before = self._rests.get(tracked.row_id)
            given_up = 0 if copied_bytes else 1 + (0 if before is None else before.given_up)
            until_s = now_s if given_up == 1 else now_s + rest_s
            self._rests[tracked.row_id] = _Rest(until_s, begun.generation, given_up)
            if begun.is_asked and not copied_bytes:
                self._asked.add(tracked.row_id)

    def hasten(self, tracked: FollowedDatabase) -> None:
        """Cancel the database's rest, and its further rests until a copy is complete."""
        with self._lock:
            self._asked.add(tracked.row_id)

    def begins_again(self, tracked: FollowedDatabase) -> bool:
        """Whether the last copy was the first one to be given up since a complete one."""
        with self._lock:
            rest = self._rests.get(tracked.row_id)
            return rest is not None and rest.given_up == 1

    def rest_s(self, tracked: FollowedDatabase) -> float:
        """Return for how many seconds the next copy has to wait."""
        with self._lock:
            rest = self._rests.get(tracked.row_id)
            if rest is None or rest.generation != tracked.generation or tracked.row_id in self._asked:
                return 0.0
            return max(0.0, rest.until_s - self._monotonic_s())

    def forget(self, tracked: FollowedDatabase) -> None:
        """Drop a database that is not followed any more."""
        with self._lock:
            self._rests.pop(tracked.row_id, None)
            self._asked.discard(tracked.row_id)
