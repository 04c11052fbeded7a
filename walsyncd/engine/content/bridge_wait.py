"""Decides when a bridge of either kind may take its next step."""

from __future__ import annotations

import time
from collections.abc import Callable

from walsyncd.core.limits import Limits
from walsyncd.core.send.backoff import delay_s
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.schedule import Schedule
from walsyncd.errors import TransientError

REST_FACTOR_MAX = 32  # the longest rest is this many times as long as the first rest
VOIDED_MAX = 3  # a bridge pauses after this many passes that new gaps made worthless


class BridgeWait:
    """The rests of one bridge, and the condition that it waits for. Only the follower's thread may use this."""

    def __init__(self, tracked: FollowedDatabase, schedule: Schedule, limits: Limits) -> None:
        self._tracked = tracked
        self._schedule = schedule
        self._limits = limits
        self._not_before_s = self._asked_from_s = 0.0
        self._failures = 0
        self._is_so: Callable[[], bool] | None = None
        self._what = ""

    @property
    def is_for_event(self) -> bool:
        """Whether the bridge waits for a condition of ``wait_for``."""
        return self._is_so is not None

    def wait_for(self, is_so: Callable[[], bool], what: str) -> None:
        """Take no step before ``is_so`` returns True. ``what`` names this condition."""
        self._is_so, self._what = is_so, what

    def wait_s(self) -> float:
        """Return after how many seconds to take the next step. Requests end a rest early, but not at once."""
        is_asked = self._tracked.mailbox.asked() > 0
        not_before_s = min(self._asked_from_s, self._not_before_s) if is_asked else self._not_before_s
        wait_s = not_before_s - time.monotonic()
        if wait_s > 0:
            return wait_s
        if self._is_so is not None and not self._is_so():
            self._tracked.fail_requests(TransientError(f"{self._tracked.name} waits until {self._what}"))
            return self._limits.begin_look_s
        self._is_so = None
        return 0.0

    def rest(self, wait_s: float) -> None:
        """Take the next step in ``wait_s`` seconds, or earlier on a request, because the writers may be quiet then."""
        now_s = time.monotonic()
        self._not_before_s, self._asked_from_s = now_s + wait_s, now_s + min(wait_s, self._limits.bridge_retry_s)
        self._schedule.at(self._tracked, wait_s)

    def rest_after_failure(self) -> float:
        """Rest, for longer after each further failure. Returns the length of the rest in seconds."""
        self._failures += 1
        first_s, last_s = self._limits.bridge_retry_s, self._limits.bridge_retry_s_max
        wait_s = delay_s(self._failures, fraction=1.0, base_s=first_s, cap_s=last_s)
        self.rest(wait_s)
        return wait_s

    def rest_after_gap(self, voided: int) -> float:
        """Pause if gaps have made many passes worthless. ``voided`` is their number.

        Returns the pause in seconds, which is mostly 0.
        """
        times, remainder = divmod(voided, VOIDED_MAX)
        rest_s = self._limits.bridge_retry_s_max
        wait_s = 0.0 if remainder else delay_s(times, fraction=1.0, base_s=rest_s, cap_s=REST_FACTOR_MAX * rest_s)
        self.rest(wait_s)
        return wait_s
