"""Releases generations at an orderly stop, so that a daemon on another host may continue them.

Nothing depends on a release: without one, another host begins a generation with a base. So a release takes a bounded
time, ends at the first sign that the storage is away, and does not wait for a late answer.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable

import structlog

from walsyncd.adapters.journal.journal import DatabaseRow, Journal
from walsyncd.engine.ship.ownership import Ownership
from walsyncd.errors import WalsyncdError

THREADS_MAX = 8

_log = structlog.get_logger()


def releasable(journal: Journal, database_ids: Iterable[int], run_id: str) -> list[DatabaseRow]:
    """Return the databases that the run ``run_id`` has written to and whose replica is complete and restorable."""
    rows = [journal.database_by_id(each) for each in database_ids]
    return [row for row in rows if row.owner_run == run_id and row.has_base and not journal.pending(row.id)]


def release_all(ownership: Ownership, rows: Iterable[DatabaseRow], timeout_s: float) -> int:
    """Release the current generations of these databases. Returns how many were released in time.

    The caller ensures that nothing is written to the databases' folders any more.
    """
    left, released = deque(rows), list[str]()
    until_s = time.monotonic() + timeout_s

    def work() -> None:
        if not ownership.is_exclusive():  # a folder may not answer, so only a thread that may hang asks
            return
        while left and time.monotonic() < until_s:
            try:
                row = left.popleft()
            except IndexError:
                return
            try:
                if row.generation is not None and ownership.release(row, row.generation):
                    released.append(row.name)
            except WalsyncdError as error:
                _log.info("generation_not_released", database=row.name, reason=error.message)
                left.clear()

    count = min(THREADS_MAX, len(left))
    threads = [threading.Thread(target=work, name=f"release-{number}", daemon=True) for number in range(1, count + 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until_s - time.monotonic()))
    return len(released)
