"""A database waits until it is known whether it goes on with a replica that another daemon has left.

::

    unasked ──> asked ──> at work ──> over
                  └──(nobody began within ANSWER_S_MAX)──> over

The follower asks when the database is there to be followed, and begins no generation until it is over. A storage that
does not answer delays that by ``ANSWER_S_MAX`` only. While somebody is at work on the replica, the database waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from enum import Enum, auto

ANSWER_S_MAX = 20.0  # a request takes a tenth of a second where all is well; a busy machine and a slow line need more


class _Phase(Enum):
    UNASKED = auto()
    ASKED = auto()
    AT_WORK = auto()
    OVER = auto()


class Examination:
    """One question about one database, which is asked once ``is_there``. ``ask`` has somebody answer it.

    Any thread may call.
    """

    def __init__(
        self,
        ask: Callable[[], object],
        is_there: Callable[[], bool] = lambda: True,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask, self._is_there = ask, is_there
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._phase = _Phase.UNASKED
        self._asked_s = 0.0
        self.is_stopped = False
        """The daemon stops, and nobody answers any more."""

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for the answer any more."""
        with self._lock:
            return self._phase is _Phase.OVER

    def must_wait(self) -> bool:
        """Whether the next generation may not begin yet. Asks at the first call for a database that is there."""
        if self._phase is _Phase.UNASKED and not self._is_there():
            return False
        with self._lock:
            if self._phase is _Phase.UNASKED:
                self._phase, self._asked_s = _Phase.ASKED, self._monotonic_s()
                self._ask()
            elif self._phase is _Phase.ASKED and not self.is_stopped:
                is_late = self._monotonic_s() - self._asked_s > ANSWER_S_MAX
                self._phase = _Phase.OVER if is_late else self._phase
            return self._phase is not _Phase.OVER

    def begin(self) -> bool:
        """Have the database wait for as long as it takes. Returns False if it has gone on already."""
        with self._lock:
            is_awaited = self._phase is _Phase.ASKED
            self._phase = _Phase.AT_WORK if is_awaited else self._phase
            return is_awaited

    def end(self) -> None:
        """Have the database go on."""
        with self._lock:
            self._phase = _Phase.OVER
