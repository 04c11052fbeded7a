"""Limits the log lines of each database, so that a noisy database hides no lines of the others.

A database may log ``LINES_PER_MINUTE_MAX`` lines in a minute. Further lines are only counted. When the minute is over,
a ``log_lines_folded`` with the count is logged before the next line of the log.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

# journald takes 10,000 lines in 30 s from a service by default, and then drops those of all its databases
# (RateLimitBurst=, journald.conf(5)). So 200 databases may be noisy at once, each with more lines than anybody reads.
LINES_PER_MINUTE_MAX = 100
MINUTE_S = 60.0


@dataclass(slots=True)
class _Minute:
    began_s: float
    lines: int = 0

    @property
    def folded(self) -> int:
        return max(0, self.lines - LINES_PER_MINUTE_MAX)


class LineLimit:
    """Counts the lines of each database. Any thread may call."""

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._minutes: dict[str, _Minute] = {}

    def take(self, database: str) -> bool:
        """Count a line of a database. Returns False if the line is above the limit."""
        with self._lock:
            minute = self._minutes.setdefault(database, _Minute(self._monotonic_s()))
            minute.lines += 1
            return not minute.folded

    def folded(self) -> dict[str, int]:
        """Forget the minutes that are over. Returns how many lines were left out in them, by database, if any."""
        with self._lock:
            end_s = self._monotonic_s() - MINUTE_S
            over = {name: minute for name, minute in self._minutes.items() if minute.began_s <= end_s}
            for name in over:
                del self._minutes[name]
        return {name: minute.folded for name, minute in over.items() if minute.folded}
