"""Compares this machine's clock with the store's, by the ``Date`` of its answers.

The times in the bucket are this machine's. While its clock is far off they are wrong, `restore --at` finds other
commits than it should, and nothing is deleted (``engine.upkeep.housekeeper``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import structlog

from walsyncd.adapters.storage.interface import Storage
from walsyncd.adapters.system import clock
from walsyncd.engine.upkeep.housekeeper import CLOCK_OFF_MS

REMEDY = "set the clock (timedatectl): until then times in the bucket are wrong, and nothing is deleted"

_log = structlog.get_logger()


class ClockWatch:
    """Compares the clocks on request, from any thread. A storage without a clock of its own agrees with every clock."""

    def __init__(
        self,
        storages: Callable[[], Iterable[Storage]],
        wall_ms: Callable[[], int] = clock.wall_ms,
    ) -> None:
        self._storages = storages
        self._wall_ms = wall_ms
        self._is_off = False

    def ahead_s(self) -> float:
        """By how many seconds this machine's clock is ahead of the store whose clock differs most."""
        clocks = [storage.clock_ms() for storage in self._storages()]
        ahead = [(self._wall_ms() - store_ms) / 1000 for store_ms in clocks if store_ms is not None]
        return max(ahead, key=abs, default=0.0)

    def words(self) -> str:
        """What is wrong with this machine's clock; empty if it agrees."""
        ahead_s = self.ahead_s()
        if abs(ahead_s) * 1000 <= CLOCK_OFF_MS:
            return ""
        where = "ahead of" if ahead_s > 0 else "behind"
        return f"this machine's clock is {abs(ahead_s):.0f} s {where} the store's: {REMEDY}"

    def compare(self) -> None:
        """Log once that the clocks differ, and once that they agree again."""
        words = self.words()
        was_off, self._is_off = self._is_off, bool(words)
        if words and not was_off:
            _log.error("clock_differed", ahead_s=round(self.ahead_s()), remedy=REMEDY)
        elif was_off and not words:
            _log.info("clock_agreed_again")
