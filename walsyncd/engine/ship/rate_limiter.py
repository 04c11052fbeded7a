"""Limits the rate of all uploads together to ``upload_bytes_per_second_max``; without a limit it does nothing.

The rule is in ``bandwidth``. A segment waits here, in the thread that uploads it. A base's part begins only when it may
be sent, so a waiting part never occupies a thread that the segments need.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from walsyncd.adapters.system import clock
from walsyncd.core.send.bandwidth import RateLimit

BEAT_S = 1.0  # a waiting thread reports this often that it is not stuck
BODY_SLACK_MS = 5.0  # a shorter wait is not worth its cost


class RateLimiter:
    """Any thread may call. ``monotonic_ms`` is the clock; a waiting thread calls ``beat`` now and then."""

    def __init__(
        self,
        bytes_per_s: float | None,
        monotonic_ms: Callable[[], float] = clock.monotonic_ms,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._line = None if bytes_per_s is None else RateLimit(bytes_per_s)
        self._monotonic_ms = monotonic_ms
        self._beat = beat
        self._changed = threading.Condition()
        self._is_open = False

    def wait_for_segment(self, size: int) -> None:
        """Wait until a segment's next ``size`` bytes may be sent, and count them."""
        with self._changed:
            while self._line is not None and not self._is_open:
                wait_ms = self._line.segments_until_ms - self._monotonic_ms()
                if wait_ms <= BODY_SLACK_MS:
                    break
                self._changed.wait(min(wait_ms / 1000, BEAT_S))
                self._beat()
            if self._line is not None:
                self._line = self._line.segment_sent(size, now_ms=self._monotonic_ms())

    def part_begins(self, size: int) -> None:
        """Count a base's part of ``size`` bytes that is sent now."""
        with self._changed:
            if self._line is not None:
                self._line = self._line.part_sent(size, now_ms=self._monotonic_ms())

    @property
    def parts_not_before_ms(self) -> float:
        """Return when the next part of a base may be sent."""
        with self._changed:
            return 0.0 if self._line is None else self._line.all_until_ms

    def open(self) -> None:
        """Stop limiting: the daemon stops."""
        with self._changed:
            self._is_open = True
            self._changed.notify_all()
