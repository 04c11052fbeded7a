"""Reads a database without a WAL at a committed moment whose content is shipped, so that the file equals the replica.

If no event came since the last scan that shipped pages (``PageScans.is_shipped``), the file equals what a restore to
the position after that scan gives. Such a moment comes soon after each scan, so the follower is asked for a scan.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from walsyncd.adapters.files.source import OpenFile
from walsyncd.core.follow.follow_state import FollowState
from walsyncd.engine.content.map_making import Request
from walsyncd.engine.content.scan_queue import ScanWait
from walsyncd.engine.content.scrub_steps import NoMomentError
from walsyncd.engine.follow.environment import Environment
from walsyncd.engine.follow.file_facts import file_facts
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.rollback.committed_moment import Hindrance, begin_moment, end_moment
from walsyncd.engine.rollback.database_looks import DatabaseLooks
from walsyncd.errors import TransientError

POLL_S = 0.005  # between two looks for the follower's scan; a busy writer leaves the file alone for some milliseconds

T = TypeVar("T")
# Reads the pages of the file that the caller needs. The second argument is page 1. A reader waits only for its turn.
Reader: TypeAlias = "Callable[[OpenFile, bytes], Generator[ScanWait, None, T]]"


@dataclass(frozen=True, slots=True)
class ShippedState(Generic[T]):
    """The result of a read at a moment at which the file equalled a restore to the position of ``state``."""

    state: FollowState
    read: T


class ShippedMoments:
    """Reads databases at such moments. The thread that reads files runs the steps. ``request`` reaches the follower."""

    def __init__(self, environment: Environment, request: Request) -> None:
        self._environment = environment
        self._request = request

    def read(
        self, tracked: FollowedDatabase, page_size: int, reader: Reader[T]
    ) -> Generator[ScanWait, None, ShippedState[T]]:
        """Call ``reader`` at a committed moment whose content is shipped, and return its result.

        Raises NoMomentError if there was no such moment for a while.
        """
        wait_s = self._environment.limits.shipped_moment_s
        until_s, reason = time.monotonic() + wait_s, "the database is written all the time"
        while time.monotonic() < until_s:
            answer = self._request(tracked, lambda _tracked: None)
            while not answer.done():
                if time.monotonic() > until_s:
                    answer.cancel()
                    raise NoMomentError(f"what was written last was not shipped within {wait_s:.0f} s")
                yield ScanWait(until_s=time.monotonic() + POLL_S)
            answer.result()
            found = yield from self._now(tracked, page_size, reader)
            if not isinstance(found, str):
                return found
            reason = found
            yield ScanWait(until_s=time.monotonic() + POLL_S)
        raise NoMomentError(f"there was no moment to compare it within {wait_s:.0f} s: {reason}")

    def read_now(
        self,
        tracked: FollowedDatabase,
        page_size: int,
        read: Callable[[OpenFile], T],
        pause: Callable[[float], None],
    ) -> tuple[FollowState, T]:
        """Return the state at such a moment and what ``read`` returns then. The calling thread waits with ``pause``."""

        def reader(file: OpenFile, _page_1: bytes) -> Generator[ScanWait, None, T]:
            yield from ()
            return read(file)

        with closing(self.read(tracked, page_size, reader)) as steps:
            while True:
                try:
                    wait = next(steps)
                except StopIteration as end:
                    found: ShippedState[T] = end.value
                    return found.state, found.read
                pause(max(0.0, wait.until_s - time.monotonic()))

    def _now(
        self, tracked: FollowedDatabase, page_size: int, reader: Reader[T]
    ) -> Generator[ScanWait, None, ShippedState[T] | str]:
        """Return what ``reader`` reads now, or why this is not a committed moment whose content is shipped."""
        file = tracked.open()
        if file is None:
            raise TransientError(f"{tracked.path} does not exist")
        with file:
            looks = DatabaseLooks(tracked, self._environment, file, page_size)
            start = begin_moment(looks)
            if isinstance(start, Hindrance):
                return start.value
            facts, scans = file_facts(file.identity(), self._environment.boot_id, None), tracked.scans
            if scans is not None and not scans.has_map():
                raise TransientError("it has no page map, so only its next base holds what changed")
            if scans is None or not scans.is_shipped(start.events, facts):
                return "what was written last is not shipped yet"
            state = tracked.state  # read after the check, because only later writes change the state
            if state is None or tracked.bridge is not None or state.mode != "rollback":
                return "the database's history was broken off just now"
            if not state.file.is_file(facts):
                return "another file was put in the database's place"
            found = yield from reader(file, start.page_1)
            hindrance = end_moment(looks, start, file.pread(0, page_size))
            return ShippedState(state, found) if hindrance is None else hindrance.value
