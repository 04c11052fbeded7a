"""A read-only view of a storage. It limits the bytes read per second, for readers that can wait.

``pause`` waits for a number of seconds. It is also called with 0 before every request. An exception from it ends the
reading.
"""

from __future__ import annotations

import builtins
import threading
import time
from collections.abc import Callable, Iterator

from walsyncd.adapters.storage.interface import ObjectInfo, Readable

SLACK_S = 0.005  # a shorter wait costs more than it is worth


class PacedReads:
    """Reads from ``inner``. Several threads share the limit."""

    def __init__(
        self,
        inner: Readable,
        bytes_per_s: float,
        pause: Callable[[float], None],
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inner = inner
        self._bytes_per_s = bytes_per_s
        self._pause = pause
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._taken_until_s = 0.0

    @property
    def url(self) -> str:
        """See ``Storage.url``."""
        return self._inner.url

    def head(self, key: str) -> ObjectInfo | None:
        """See ``Storage.head``."""
        self._pause(0)
        return self._inner.head(key)

    def get(self, key: str, *, first: int = 0, length: int | None = None) -> bytes:
        """See ``Storage.get``."""
        self._pause(0)
        body = self._inner.get(key, first=first, length=length)
        self._took(len(body))
        return body

    def stream(self, key: str) -> Iterator[bytes]:
        """See ``Storage.stream``."""
        self._pause(0)
        for block in self._inner.stream(key):
            self._took(len(block))
            yield block

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        """See ``Storage.list``."""
        self._pause(0)
        return self._inner.list(prefix, start_after=start_after)

    def folders(self, prefix: str) -> builtins.list[str]:
        """See ``Storage.folders``."""
        self._pause(0)
        return self._inner.folders(prefix)

    def _took(self, size: int) -> None:
        """Count bytes that were read, and wait until the limit allows more."""
        with self._lock:
            now_s = self._monotonic_s()
            self._taken_until_s = max(now_s, self._taken_until_s) + size / self._bytes_per_s
            wait_s = self._taken_until_s - now_s
        self._pause(wait_s if wait_s > SLACK_S else 0)
