"""When a bridge may take its next step: for both kinds of bridges."""

from __future__ import annotations

import time
from collections.abc import Callable

from walsyncd.core.send.backoff import delay_s
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.schedule import Schedule
from walsyncd.errors import TransientError

RETRY_S = 5.0  # after the file or the spool could not be read or written; doubled each time, up to BACK_OFF_S
BACK_OFF_S = 60.0
VOIDED_MAX = 3  # so many passes that new gaps made worthless, then a rest
BEGIN_LOOK_S = 2.0  # between two checks whether what is waited for is so; each is cheap


class BridgeWait:
    """The rests of one bridge, and what it waits for. For the follower's thread."""

    def __init__(self, tracked: FollowedDatabase, schedule: Schedule) -> None:
        self._tracked = tracked
        self._schedule = schedule
        self._not_before_s = self._asked_from_s = 0.0
        self._failures = 0
        self._is_so: Callable[[], bool] | None = None
        self._what = ""

    @property
    def is_for_event(self) -> bool:
        """Whether it waits for something that ``wait_for`` named."""
        return self._is_so is not None

    def wait_for(self, is_so: Callable[[], bool], what: str) -> None:
        """Do nothing before ``is_so``, which ``what`` names, returns True."""
        self._is_so, self._what = is_so, what

    def wait_s(self) -> float:
        """Return in how many seconds to take the next step, 0 if now. Requests end a rest early, but not at once."""
        is_asked = self._tracked.mailbox.asked() > 0
        not_before_s = min(self._asked_from_s, self._not_before_s) if is_asked else self._not_before_s
        wait_s = not_before_s - time.monotonic()
        if wait_s > 0:
            return wait_s
        if self._is_so is not None and not self._is_so():
            self._tracked.fail_requests(TransientError(f"{self._tracked.name} waits until {self._what}"))
            return BEGIN_LOOK_S
        self._is_so = None
        return 0.0

    def rest(self, wait_s: float) -> None:
        """Take the next step in ``wait_s`` seconds, or soon if somebody asks, because the writers may be quiet then."""
        now_s = time.monotonic()
        self._not_before_s, self._asked_from_s = now_s + wait_s, now_s + min(wait_s, RETRY_S)
        self._schedule.at(self._tracked, wait_s)

    def rest_after_failure(self) -> float:
        """Rest longer after each failure. Returns for how many seconds."""
        self._failures += 1
        wait_s = delay_s(self._failures, fraction=1.0, base_s=RETRY_S, cap_s=BACK_OFF_S)
        self.rest(wait_s)
        return wait_s

    def rest_after_gap(self, voided: int) -> float:
        """Rest where gaps have made ``voided`` passes worthless. Returns for how many seconds, 0 for most of them."""
        times, remainder = divmod(voided, VOIDED_MAX)
        wait_s = 0.0 if remainder else BACK_OFF_S * 2.0 ** min(5, times - 1)
        self.rest(wait_s)
        return wait_s
