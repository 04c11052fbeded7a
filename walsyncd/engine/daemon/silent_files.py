"""Lets the daemon continue while a file system does not answer, and follow its databases when it answers again.

Another thread takes the place of the one that hangs (``hang_watch``). The next call on a silent path raises an error,
so that the database's state says what does not answer. When the path answers again, its databases are followed from the
beginning, as after a start of the daemon. The call may have hung while the thread changed what the daemon knows of
these databases.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from walsyncd.config import Settings
from walsyncd.engine.daemon.databases import Databases
from walsyncd.engine.daemon.path_finder import PathFinder
from walsyncd.engine.follow.schedule import Schedule
from walsyncd.engine.threads.hang_watch import HangWatch
from walsyncd.engine.threads.stall_detector import StallDetector
from walsyncd.engine.threads.supervisor import Supervisor

ANSWERED = "answered"  # the main thread receives this


class SilentFiles:
    """Connects the ``watch`` with the daemon's threads. ``databases`` returns the daemon's databases."""

    def __init__(
        self,
        supervisor: Supervisor,
        stalls: StallDetector,
        schedule: Schedule,
        finder: PathFinder,
        databases: Callable[[], Databases],
    ) -> None:
        self._supervisor = supervisor
        self._stalls = stalls
        self._schedule = schedule
        self._finder = finder
        self._databases = databases
        self._answered: list[str] = []
        self._lock = threading.Lock()
        self.watch = HangWatch(
            owns=supervisor.owns, replace=self._replace, answered=self._answer, silenced=self._silenced
        )

    def take(self, settings: Settings) -> None:
        """Follow the databases of the paths that answer again. Only the main thread may call."""
        with self._lock:
            paths, self._answered = self._answered, []
        self._databases().answer_again(paths, settings)
        self._finder.wake()

    def _replace(self, thread: int) -> None:
        self._stalls.forget(thread)
        self._supervisor.replace(thread)
        self._finder.wake()  # if the finder's thread hung, its successor looks again

    def _answer(self, paths: list[str]) -> None:
        with self._lock:
            self._answered += paths
        self._supervisor.call(ANSWERED)

    def _silenced(self, path: str) -> None:
        """Have all databases of a mount looked at, so that their states say what is the matter."""
        self._schedule.wake(self._databases().below(path))
