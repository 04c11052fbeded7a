"""The thread that finds out again and again which databases the configuration selects, because files come and go.

The thread looks when an event shows that the result may differ (a new name that a pattern matches, another link on the
way of a path, another file in a database's place, a mount), and once a minute for changes without an event. However
many events come, the thread looks at most once a second, and rests nine times as long as a look takes. So neither a
storm of temporary files nor an endless tree keeps a core busy, and the main thread, which takes what was found, answers
signals meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import structlog

from walsyncd.config import Found, SearchStoppedError, Settings
from walsyncd.engine.threads.alarm import Alarm
from walsyncd.engine.threads.boundary import boundary
from walsyncd.errors import WalsyncdError

PAUSE_S = 1.0
PAUSE_FACTOR = 9.0
RECHECK_S = 60.0

_log = structlog.get_logger()


@dataclass(slots=True)
class FoundPaths:
    """The result of a look by these settings. The callers that wait are answered when the result has been applied."""

    settings: Settings
    found: Found
    waiting: list[Future[None]]

    def applied(self) -> None:
        """Answer the callers: the databases are followed, or left, as was found."""
        for future in self.waiting:
            future.set_result(None)


class PathFinder:
    """Looks with ``find``, and calls ``ready`` when there is a result. ``settings`` returns the settings in force."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        find: Callable[[Settings, Callable[[], bool]], Found],
        ready: Callable[[], None],
        *,
        pause_s: float = PAUSE_S,
        pause_factor: float = PAUSE_FACTOR,
        recheck_s: float = RECHECK_S,
    ) -> None:
        self._settings = settings
        self._find = find
        self._ready = ready
        self._pause_s, self._pause_factor, self._recheck_s = pause_s, pause_factor, recheck_s
        self._alarm = Alarm()
        self._lock = threading.Lock()
        self._waiting: list[Future[None]] = []
        self._finding: FoundPaths | None = None

    def wake(self) -> None:
        """Look again soon."""
        self._alarm.wake()

    def look_now(self) -> Future[None]:
        """Look at once; the future is done when what was found is applied."""
        future: Future[None] = Future()
        with self._lock:
            self._waiting.append(future)
        self._alarm.wake(urgent=True)
        return future

    def take(self) -> FoundPaths | None:
        """Return the result of the last look. Returns None if it was taken already."""
        with self._lock:
            finding, self._finding = self._finding, None
            return finding

    def run(self) -> None:
        """Run the thread until ``stop``."""
        pause_s = 0.0
        while self._alarm.pause(pause_s) and self._alarm.wait(max(0.0, self._recheck_s - pause_s)):
            began_s = time.monotonic()
            try:
                self._look()
            except WalsyncdError as error:
                _log.error("database_search_failed", reason=str(error), remedy="tried again within a minute")
            pause_s = max(self._pause_s, self._pause_factor * (time.monotonic() - began_s))

    def stop(self) -> None:
        """End the thread, in the middle of a look if need be."""
        self._alarm.stop()

    def _look(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        settings = self._settings()
        try:
            with boundary("search_databases"):
                found = self._search(settings)
        except WalsyncdError as error:
            for future in waiting:
                future.set_exception(error)
            raise
        if found is None:
            return
        with self._lock:
            before = self._finding.waiting if self._finding is not None else []
            self._finding = FoundPaths(settings, found, [*before, *waiting])
        self._ready()

    def _search(self, settings: Settings) -> Found | None:
        """Return what is found, or None if the daemon stops."""
        try:
            return self._find(settings, lambda: self._alarm.is_stopped)
        except SearchStoppedError:
            return None
