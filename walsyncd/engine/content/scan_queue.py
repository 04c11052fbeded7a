"""The scan thread: it reads database files block by block, one scan at a time and at a limited pace.

All scans share one pace, because they may share a disk. Without a limit, a scan from a cold page cache slows a busy
writer to a tenth (measured). In addition, the thread's I/O priority is the idle class.

A pace for each device number would not be a pace for each disk. Every subvolume of Btrfs, every partition and every
logical volume has a number of its own, so a hundred tenants on one disk would be read at a hundred times the pace.

A scan is a generator. After each block it yields a ``ScanWait``, which says what the scan waits for. Of the scans that
wait for nothing, the first urgent scan continues, or the first other scan if none is urgent. So an urgent scan
interrupts a scan that may take a day.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeAlias

from walsyncd.adapters.system.io_priority import lower_io_priority
from walsyncd.engine.threads.alarm import Alarm

BYTES_PER_S_MAX = 64 << 20  # costs a busy writer 5 % at most, and 4 to 8 % of a core (measured)
BLOCK_BYTES = 256 << 10  # a multiple of every page size


@dataclass(frozen=True, slots=True)
class ScanWait:
    """A scan has read ``size`` bytes. It continues when its turn comes, no sooner than ``until_s`` (monotonic)."""

    size: int = 0
    until_s: float = 0.0


ScanSteps: TypeAlias = Generator[ScanWait, None, None]


@dataclass(slots=True, eq=False)
class _Scan:
    steps: ScanSteps
    urgent: bool
    number: int
    """Scans are numbered as they are added."""
    until_s: float = 0.0

    @property
    def rank(self) -> tuple[bool, int]:
        """The scan's rank. Of the scans that wait for nothing, the scan with the lowest rank continues."""
        return not self.urgent, self.number


class ScanQueue:
    """The queue of scans. Any thread may add a scan. ``run`` is the scan thread, and calls ``between`` after each."""

    def __init__(
        self,
        *,
        bytes_per_s_max: float = BYTES_PER_S_MAX,
        between: Callable[[], None] = lambda: None,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bytes_per_s_max = bytes_per_s_max
        self._between = between
        self._monotonic_s = monotonic_s
        self._alarm = Alarm()
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._scans: dict[int, _Scan] = {}  # the scans that have not ended, by number
        # Each scan is in one of these two heaps, except the scan that is reading a block. Each database may have one.
        self._ready: list[tuple[tuple[bool, int], _Scan]] = []
        self._waiting: list[tuple[float, int, _Scan]] = []
        self._current: _Scan | None = None
        self._next_s = 0.0

    def add(self, steps: ScanSteps, *, urgent: bool = False, delay_s: float = 0.0) -> None:
        """Add a scan. It runs when its turn comes, in ``delay_s`` seconds at the earliest."""
        with self._lock:
            scan = _Scan(steps, urgent, next(self._numbers), self._monotonic_s() + delay_s)
            self._scans[scan.number] = scan
            self._put(scan)
        self._alarm.wake()

    def call(self, then: Callable[[], None]) -> None:
        """Run ``then`` in the scan thread, before the next block of any scan."""

        def steps() -> ScanSteps:
            then()
            yield from ()

        self.add(steps(), urgent=True)

    def stop(self) -> None:
        """End the thread after the block that is being read. Scans that have not ended are closed."""
        self._alarm.stop()

    @property
    def is_stopping(self) -> bool:
        """Whether the thread is to end."""
        return self._alarm.is_stopped

    def run(self) -> None:
        """Run the thread until ``stop``."""
        lower_io_priority()
        self._drop_hanging()
        while (scan := self._next()) is not None:
            self._current = scan
            wait = next(scan.steps, None)
            self._current = None
            if wait is None:
                with self._lock:
                    del self._scans[scan.number]
                self._between()
                continue
            scan.until_s = wait.until_s
            with self._lock:
                self._put(scan)
            self._next_s = max(self._next_s, self._monotonic_s()) + wait.size / self._bytes_per_s_max
        for left in self._scans.values():
            left.steps.close()

    def _put(self, scan: _Scan) -> None:
        heapq.heappush(self._waiting, (scan.until_s, scan.number, scan))

    def _drop_hanging(self) -> None:
        """Drop the scan in which the previous scan thread hangs. The database begins again when its file answers."""
        with self._lock:
            if self._current is not None:
                del self._scans[self._current.number]
                self._current = None

    def _next(self) -> _Scan | None:
        """Take the scan whose turn it is, once the pace permits it. Returns None if the thread is to end."""
        wait_s: float | None = 0.0
        while self._alarm.wait(wait_s):
            now_s = self._monotonic_s()
            with self._lock:
                while self._waiting and self._waiting[0][0] <= now_s:
                    scan = heapq.heappop(self._waiting)[2]
                    heapq.heappush(self._ready, (scan.rank, scan))
                if self._ready and now_s >= self._next_s:
                    return heapq.heappop(self._ready)[1]
                wait_s = self._wait_s(now_s)
        return None

    def _wait_s(self, now_s: float) -> float | None:
        if self._ready:
            return self._next_s - now_s
        return max(self._waiting[0][0], self._next_s) - now_s if self._waiting else None
