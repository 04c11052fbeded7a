"""How soon a database is looked at again: eagerly after a write, patiently while it is busy or fails."""

from __future__ import annotations

from dataclasses import dataclass, replace

RELOOKS_MAX = 18  # pauses of 1, 2, 4 … ms for what was written and not published: up to the slow look
RELOOK_S = 0.001
BUSY_STREAK_S = 0.002  # a database that had news at every look is looked at less eagerly,
BUSY_STREAK_MAX = 11  # with pauses up to 20 ms,
BUSY_FRAMES = 250  # but not so rarely that much of a WAL comes between: by default it restarts after 1,000 pages
FAILURE_DELAY_S = 0.5
FAILURE_DELAY_MAX_S = 60.0


@dataclass(frozen=True, slots=True)
class LookPace:
    """The pace of one database; moments are monotonic seconds.

    ``rest_until_s`` is when its next look may come, whatever wakes it, so that looking does not become the load.
    """

    rest_until_s: float = 0.0
    relooks: int = 0
    streak: int = 0
    failures: int = 0

    def woken(self) -> LookPace:
        """An event came: the pauses of looking again begin at the shortest."""
        return replace(self, relooks=0) if self.relooks else self

    def resting(self, until_s: float) -> LookPace:
        """No look before ``until_s``, however busy its writers are."""
        return replace(self, rest_until_s=until_s)

    def found(self, frames: int, now_s: float) -> LookPace:
        """A look found so many new frames; 0: it caught up without any."""
        if not frames:
            return replace(self, streak=0) if self.streak else self
        streak = self.streak // 2 if frames > BUSY_FRAMES else min(self.streak + 1, BUSY_STREAK_MAX)
        return replace(self, streak=streak, rest_until_s=now_s + BUSY_STREAK_S * max(0, streak - 1))

    def relooked(self) -> LookPace:
        """One more look for what was written and not published."""
        return replace(self, relooks=self.relooks + 1)

    def relook_s(self, now_s: float) -> float | None:
        """The pause before that look, or None if there were enough of them."""
        if self.relooks >= RELOOKS_MAX:
            return None
        return max(RELOOK_S * 2.0**self.relooks, self.rest_until_s - now_s)

    def failed(self) -> LookPace:
        """A look could not be taken."""
        return replace(self, failures=self.failures + 1)

    def failure_delay_s(self) -> float:
        """The pause after a failure, before it is counted."""
        return min(FAILURE_DELAY_MAX_S, FAILURE_DELAY_S * 2.0 ** min(self.failures, 10))

    def well(self) -> LookPace:
        """A look was taken."""
        return replace(self, failures=0) if self.failures else self
