"""How soon a database is looked at again: soon after a write, less often while it is busy or fails."""

from __future__ import annotations

from dataclasses import dataclass, replace

from walsyncd.core.send.backoff import delay_s

RELOOKS_MAX = 18  # while something is written and not published, pauses of 1, 2, 4 … ms last until the slow look
RELOOK_S = 0.001
# A database that had new frames at every look is looked at less often, with pauses of up to 20 ms. A look that finds
# more than BUSY_FRAMES halves the streak, so that not much of a WAL comes between two looks: by default a WAL restarts
# after 1,000 pages.
BUSY_STREAK_S = 0.002
BUSY_STREAK_MAX = 11
BUSY_FRAMES = 250
FAILURE_DELAY_S = 0.5
FAILURE_DELAY_MAX_S = 60.0


@dataclass(frozen=True, slots=True)
class LookPace:
    """The pace of one database; moments are monotonic seconds.

    The next look comes no earlier than ``rest_until_s``, whatever wakes it, so that looking does not become the load.
    """

    rest_until_s: float = 0.0
    relooks: int = 0
    streak: int = 0
    failures: int = 0

    def woken(self) -> LookPace:
        """Return the pace after an event: the pauses between repeated looks start at the shortest again."""
        return replace(self, relooks=0) if self.relooks else self

    def resting(self, until_s: float) -> LookPace:
        """Return the pace with no look before ``until_s``, however busy the writers are."""
        return replace(self, rest_until_s=until_s)

    def found(self, frames: int, now_s: float) -> LookPace:
        """Return the pace after a look that found ``frames`` new frames.

        ``frames`` is 0 after a look that caught up and found no frame.
        """
        if not frames:
            return replace(self, streak=0) if self.streak else self
        streak = self.streak // 2 if frames > BUSY_FRAMES else min(self.streak + 1, BUSY_STREAK_MAX)
        return replace(self, streak=streak, rest_until_s=now_s + BUSY_STREAK_S * max(0, streak - 1))

    def relooked(self) -> LookPace:
        """Return the pace with one more look counted for something that is written and not published."""
        return replace(self, relooks=self.relooks + 1)

    def relook_s(self, now_s: float) -> float | None:
        """Return the pause before the next repeated look, or None if there were ``RELOOKS_MAX`` of them."""
        if self.relooks >= RELOOKS_MAX:
            return None
        return max(RELOOK_S * 2.0**self.relooks, self.rest_until_s - now_s)

    def failed(self) -> LookPace:
        """Return the pace after a look that failed."""
        return replace(self, failures=self.failures + 1)

    def failure_delay_s(self) -> float:
        """Return the pause after a failure. The caller asks for it before it counts the failure (``failed``)."""
        return delay_s(self.failures + 1, fraction=1.0, base_s=FAILURE_DELAY_S, cap_s=FAILURE_DELAY_MAX_S)

    def well(self) -> LookPace:
        """Return the pace after a look that succeeded."""
        return replace(self, failures=0) if self.failures else self
