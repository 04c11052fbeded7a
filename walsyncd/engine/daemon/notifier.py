"""Notifies people who have no Prometheus: a heartbeat that stops, and a report of each problem.

While nothing is wrong, the heartbeat's URL is requested every ``heartbeat_interval``. While something is wrong, that
URL with ``/fail`` is requested instead, and each change between the two is reported at once. The problem's URL gets one
POST when a problem begins and one when it is over::

    {"event": "began", "host": "web-1", "database": "srv/app.db", "problem": "missing", "text": "…", "remedy": "…",
     "since": "2026-11-22T10:56:00.000Z", "time": "2026-11-22T10:56:01.000Z"}

``database`` is null for a problem of the storage as a whole. One thread sends everything, so nothing else ever waits
for a receiver. Reports that can't be delivered wait in order, at most ``WAITING_MAX`` of them, and are tried again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from walsyncd.adapters.journal.journal import DatabaseRow
from walsyncd.adapters.system import clock
from walsyncd.adapters.system.web_hook import get, post, with_suffix
from walsyncd.config import NotifySettings, Suspended
from walsyncd.core.follow.database_state import DatabaseState
from walsyncd.core.limits import DEFAULT_LIMITS
from walsyncd.core.stored.moment import format_moment
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.threads.alarm import Alarm
from walsyncd.errors import TransientError

CALM_S = 1.0  # changes are examined after this time: thousands come together, and some are over at once
WAITING_MAX = 1000  # reports; a receiver that is down for long must not fill the memory
RETRY_S, RETRY_MAX_S = 2.0, 60.0

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Complaint:
    """One problem of ``database``, or of the storage as a whole if that is None.

    ``kind`` is one of a fixed set of words.
    """

    database: str | None
    kind: str
    text: str
    remedy: str = ""

    @property
    def key(self) -> tuple[str | None, str]:
        """The identity of the problem. Complaints with the same key are the same problem, even with different texts."""
        return self.database, self.kind


def complaints_of(
    followed: Sequence[FollowedDatabase],
    rows: Mapping[int, DatabaseRow],
    *,
    trouble: str,
    failed_drills: Collection[int],
    suspended: Sequence[Suspended] = (),
) -> list[Complaint] | None:
    """Return what is wrong now, or None until each database was looked at once.

    ``trouble`` is what is wrong with the storage as a whole, or empty. While something is wrong, refusals of single
    databases are part of it. The ``suspended`` files are configured and can't be replicated.
    """
    if any(tracked.report.state is DatabaseState.NEW for tracked in followed):
        return None
    found = [Complaint(None, "storage", trouble)] if trouble else []
    found += [Complaint(each.name, str(DatabaseState.SUSPENDED), each.cause, each.remedy) for each in suspended]
    for tracked in followed:
        row = rows.get(tracked.row_id)
        if row is None:
            continue
        if not tracked.report.state.is_well:
            found.append(Complaint(row.name, str(tracked.report.state), tracked.report.cause, row.remedy))
        if row.error and not trouble:
            found.append(Complaint(row.name, "storage", row.error))
        if row.id in failed_drills:
            found.append(Complaint(row.name, "drill", "the last rehearsed restore failed", "walsyncd status says why"))
    return found


class Notifier:
    """``complaints`` returns what is wrong now, or None while that is unknown, at the start. Any thread may call."""

    def __init__(
        self,
        host: str,
        complaints: Callable[[], Sequence[Complaint] | None],
        *,
        wall_ms: Callable[[], int] = clock.wall_ms,
        waiting_max: int = WAITING_MAX,
        check_s: float = DEFAULT_LIMITS.notify_check_s,
    ) -> None:
        self._host = host
        self._waiting_max = waiting_max
        self._check_s = check_s
        self._complaints = complaints
        self._wall_ms = wall_ms
        self._alarm = Alarm()
        self._settings = NotifySettings()
        # Used by the running thread alone.
        self._known: dict[tuple[str | None, str], tuple[Complaint, int]] = {}
        self._waiting: deque[dict[str, Any]] = deque()
        self._beat_due_s = 0.0
        self._post_due_s = 0.0
        self._retry_s = RETRY_S
        self._unreachable: dict[str, str] = {}

    def settle(self, settings: NotifySettings) -> None:
        """Apply these settings from now on."""
        self._settings = settings
        self.wake()

    def wake(self) -> None:
        """Note that a problem may have begun or ended."""
        if self._settings.is_wanted:
            self._alarm.wake()

    def stop(self) -> None:
        """End the thread after the request under way."""
        self._alarm.stop()

    def run(self) -> None:
        """Run the thread until ``stop``."""
        wait_s: float | None = None
        while self._alarm.wait(wait_s, calm_s=CALM_S):
            wait_s = self.round(time.monotonic())

    def round(self, now_s: float) -> float | None:
        """Do what is due at this moment (monotonic). Returns the seconds until something is due again, or None."""
        settings = self._settings
        if not settings.is_wanted:
            self._known.clear()
            self._waiting.clear()
            return None
        complaints = self._complaints()
        if complaints is None:
            return CALM_S
        is_news = self._compare(complaints)
        moments = [now_s + self._check_s]
        if settings.heartbeat_url is not None:
            if is_news or now_s >= self._beat_due_s:
                self._beat_due_s = now_s + settings.heartbeat_interval_s
                self._beat(settings.heartbeat_url, is_well=not self._known)
            moments.append(self._beat_due_s)
        if settings.problem_url is None:
            self._waiting.clear()
        elif self._waiting:
            if now_s >= self._post_due_s:
                self._deliver(settings.problem_url, now_s)
            if self._waiting:
                moments.append(self._post_due_s)
        return max(0.0, min(moments) - time.monotonic())

    def _compare(self, complaints: Sequence[Complaint]) -> bool:
        """Note which problems began and which ended. Returns whether the first began or the last ended."""
        was_well, now_ms = not self._known, self._wall_ms()
        found = {complaint.key: complaint for complaint in complaints}
        for key, (complaint, since_ms) in list(self._known.items()):
            if key not in found:
                del self._known[key]
                self._report("ended", complaint, since_ms, now_ms)
        for key, complaint in found.items():
            if key not in self._known:
                self._known[key] = (complaint, now_ms)
                self._report("began", complaint, now_ms, now_ms)
        return was_well != (not self._known)

    def _report(self, event: str, complaint: Complaint, since_ms: int, now_ms: int) -> None:
        if self._settings.problem_url is None:
            return
        if len(self._waiting) >= self._waiting_max:
            self._waiting.popleft()
            self._failed("problem_url", f"more than {self._waiting_max} reports wait: the oldest are dropped")
        self._waiting.append(
            {
                "event": event,
                "host": self._host,
                "database": complaint.database,
                "problem": complaint.kind,
                "text": complaint.text,
                "remedy": complaint.remedy,
                "since": format_moment(since_ms),
                "time": format_moment(now_ms),
            }
        )

    def _beat(self, url: str, *, is_well: bool) -> None:
        try:
            get(url if is_well else with_suffix(url, "/fail"))
        except TransientError as error:
            self._failed("heartbeat_url", error.message)
        else:
            self._reached("heartbeat_url")

    def _deliver(self, url: str, now_s: float) -> None:
        """Send the waiting reports in order, until one is not accepted or the next heartbeat is due."""
        until_s = time.monotonic() + self._check_s
        while self._waiting and time.monotonic() < until_s and not self._alarm.is_stopped:
            try:
                post(url, self._waiting[0])
            except TransientError as error:
                self._post_due_s = now_s + self._retry_s
                self._retry_s = min(RETRY_MAX_S, self._retry_s * 2)
                self._failed("problem_url", error.message)
                return
            self._waiting.popleft()
            self._retry_s = RETRY_S
            self._reached("problem_url")

    def _failed(self, which: str, reason: str) -> None:
        """Log a receiver's failure once, until the receiver answers again or fails in another way."""
        if self._unreachable.get(which) != reason:
            self._unreachable[which] = reason
            _log.warning("notification_failed", receiver=which, reason=reason, remedy="it is tried again")

    def _reached(self, which: str) -> None:
        if self._unreachable.pop(which, None) is not None:
            _log.info("notification_delivered_again", receiver=which)
