"""Notes which workers are busy with a piece of work, and since when. A worker that never finishes its work hangs.

A worker that waits for work is well. Idle threads do nothing here, so watching them causes no wake-up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

UPLOAD_PATIENCE = 3.0  # a step of an upload may take this many times the limit, because a part on a slow line does


class StallDetector:
    """A table of the busy threads. Any thread may read it. Each thread writes only its own entry."""

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._since_s: dict[int, float] = {}
        self._names: dict[int, str] = {}

    @contextmanager
    def work(self) -> Iterator[None]:
        """Note that the calling thread is busy with a piece of work, as long as the context lasts."""
        me = threading.get_ident()
        self._names[me] = threading.current_thread().name
        self._since_s[me] = self._monotonic_s()
        try:
            yield
        finally:
            self._since_s.pop(me, None)

    def beat(self) -> None:
        """Note that the calling thread made progress with its piece of work."""
        me = threading.get_ident()
        if me in self._since_s:
            self._since_s[me] = self._monotonic_s()

    def forget(self, thread: int) -> None:
        """Stop watching a thread that was abandoned."""
        self._since_s.pop(thread, None)

    def longest_s(self, prefix: str = "") -> float:
        """Return for how long the slowest worker whose name begins with ``prefix`` has been busy, or 0."""
        now_s = self._monotonic_s()
        since = [since for me, since in self._since_s.copy().items() if self._names[me].startswith(prefix)]
        return max((now_s - since_s for since_s in since), default=0.0)

    def hung(self, limit_s: float, *, overdue_s: float) -> str:
        """Return the worker that made no progress for ``limit_s``, or an empty text.

        ``overdue_s`` is for how long the follower's next look has been due.
        """
        for worker in ("follower", "watcher"):
            if self.longest_s(worker) > limit_s:
                return worker
        if overdue_s > limit_s:
            return "follower"
        return "upload" if self.longest_s("upload") > UPLOAD_PATIENCE * limit_s else ""
