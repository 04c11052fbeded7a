"""Which worker is on one piece of work, and since when: a worker that never comes back from one hangs.

A worker that waits for work is well. Idle threads do nothing here, so being watched costs no wake-up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

UPLOAD_PATIENCE = 3.0  # how many times as long a step of an upload may take: a part on a slow line


class StallDetector:
    """Any thread works, any thread asks; each entry of the table is written by its own thread alone."""

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._since_s: dict[int, float] = {}
        self._names: dict[int, str] = {}

    @contextmanager
    def work(self) -> Iterator[None]:
        """The calling thread is on a piece of work."""
        me = threading.get_ident()
        self._names[me] = threading.current_thread().name
        self._since_s[me] = self._monotonic_s()
        try:
            yield
        finally:
            self._since_s.pop(me, None)

    def beat(self) -> None:
        """The calling thread got on with what it is at."""
        me = threading.get_ident()
        if me in self._since_s:
            self._since_s[me] = self._monotonic_s()

    def longest_s(self, prefix: str = "") -> float:
        """For how long the slowest of the workers so named has been on its piece of work; 0: none is."""
        now_s = self._monotonic_s()
        since = [since for me, since in self._since_s.copy().items() if self._names[me].startswith(prefix)]
        return max((now_s - since_s for since_s in since), default=0.0)

    def hung(self, limit_s: float, *, overdue_s: float) -> str:
        """The worker that got nowhere for ``limit_s``, or empty; ``overdue_s``: for how long a look has been due."""
        for worker in ("follower", "watcher"):
            if self.longest_s(worker) > limit_s:
                return worker
        if overdue_s > limit_s:
            return "follower"
        return "upload" if self.longest_s("upload") > UPLOAD_PATIENCE * limit_s else ""
