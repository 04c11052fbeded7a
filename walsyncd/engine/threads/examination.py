"""A database waits until it is known whether it can continue a replica that another daemon has left.

::

    unasked ──> asked ──> at work ──> over
                  └──(nothing moved for ``answer_s_max``, or ``turn_s_max`` have passed)──> over

The follower asks when the database is there to be followed, and begins no generation until the examination is over. A
storage that does not answer delays the generation by ``answer_s_max`` only. Many databases may have been moved to this
host at once, and their replicas are read one after the other. So a database waits for its turn as long as the reading
of the replicas before it makes progress. It waits no longer than ``turn_s_max``, because none of its commits is
shipped meanwhile. While its own replica is being read, it waits without a limit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from enum import Enum, auto

from walsyncd.core.limits import DEFAULT_LIMITS, Limits

_NOTHING_SHIPPED = "nothing is shipped until then, and the replica has what was committed before"
AWAITS_TURN = f"another host's replica is to go on here once those of smaller databases do: {_NOTHING_SHIPPED}"
IS_READ = f"another host's replica is being read, to go on here: {_NOTHING_SHIPPED}"


class _Phase(Enum):
    UNASKED = auto()
    ASKED = auto()
    AT_WORK = auto()
    OVER = auto()


class Examination:
    """One question about one database. It is asked when ``is_there`` is true, and ``ask`` requests the answer.

    ``moved_s`` returns when an examination before this one last made progress (monotonic). Any thread may call.
    """

    def __init__(
        self,
        ask: Callable[[], object],
        is_there: Callable[[], bool] = lambda: True,
        monotonic_s: Callable[[], float] = time.monotonic,
        *,
        moved_s: Callable[[], float] = lambda: 0.0,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._limits = limits
        self._ask, self._is_there, self._moved_s = ask, is_there, moved_s
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
        """Whether the next generation may not begin yet.

        The first call for a database that is there asks the question.
        """
        if self._phase is _Phase.UNASKED and not self._is_there():
            return False
        with self._lock:
            if self._phase is _Phase.UNASKED:
                self._phase, self._asked_s = _Phase.ASKED, self._monotonic_s()
                self._ask()
            elif self._phase is _Phase.ASKED and not self.is_stopped:
                self._phase = _Phase.OVER if self._is_late(self._monotonic_s()) else self._phase
            return self._phase is not _Phase.OVER

    def trouble(self) -> str:
        """Return why nothing is shipped if the database has waited for long, or else an empty text."""
        with self._lock:
            waited_s = self._monotonic_s() - self._asked_s
            if self._phase is _Phase.AT_WORK and waited_s > self._limits.answer_s_max:
                return IS_READ
            return AWAITS_TURN if self._phase is _Phase.ASKED and waited_s > self._limits.answer_s_max else ""

    def _is_late(self, now_s: float) -> bool:
        return (
            now_s - max(self._asked_s, self._moved_s()) > self._limits.answer_s_max
            or now_s - self._asked_s > self._limits.turn_s_max
        )

    def begin(self) -> bool:
        """Begin the work on the replica. The database waits for as long as that takes.

        Returns False if the database no longer waits.
        """
        with self._lock:
            is_awaited = self._phase is _Phase.ASKED
            self._phase = _Phase.AT_WORK if is_awaited else self._phase
            return is_awaited

    def end(self) -> None:
        """End the database's wait."""
        with self._lock:
            self._phase = _Phase.OVER
