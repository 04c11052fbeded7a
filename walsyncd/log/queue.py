"""A queue of lines to write, so that the threads that log never wait for the reader of the log.

One thread writes, and up to ``LINES_MAX`` lines wait for it. Further lines are dropped and counted. The number of
dropped lines is logged as soon as half of the queue is free again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

LINES_MAX = 10_000  # some megabytes; at info level this is hours of logging


class Queue(Generic[T]):
    """Calls ``write`` with each item in turn, in a thread of its own.

    ``say_dropped`` returns an item which says that this many items were dropped.
    """

    def __init__(self, write: Callable[[T], None], say_dropped: Callable[[int], T], lines_max: int = LINES_MAX) -> None:
        self._write = write
        self._say_dropped = say_dropped
        self._lines_max = lines_max
        self._condition = threading.Condition()
        self._waiting: deque[T] = deque()
        self._is_writing = False
        self._unsaid = 0
        self.dropped = 0
        """How many items were dropped because the queue was full."""
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def put(self, item: T) -> None:
        """Queue an item, or drop it if the queue is full. Returns at once."""
        with self._condition:
            if len(self._waiting) >= self._lines_max:
                self.dropped += 1
                self._unsaid += 1
                return
            if self._unsaid and len(self._waiting) <= self._lines_max // 2:
                self._waiting.append(self._say_dropped(self._unsaid))
                self._unsaid = 0
            self._waiting.append(item)
            self._condition.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Wait until all items are written. Returns False if that takes longer than ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        with self._condition:
            return self._condition.wait_for(
                lambda: not self._waiting and not self._is_writing, max(0.0, deadline - time.monotonic())
            )

    def _run(self) -> None:
        while True:
            with self._condition:
                self._is_writing = False
                self._condition.notify_all()
                self._condition.wait_for(lambda: self._waiting)
                item = self._waiting.popleft()
                self._is_writing = True
            self._write(item)
