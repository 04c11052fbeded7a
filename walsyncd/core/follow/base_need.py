"""Whether a base of the current generation is wanted, and what it waits for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from walsyncd.core.follow.follow_state import FollowState


@dataclass(frozen=True, slots=True)
class BaseNeed:
    """Whether a base of the current generation is wanted, and why. ``wanted`` is empty if none is.

    ``awaits_restart``: a base is due, and waits until the WAL restarts in the current epoch, because the base's start
    S must lie in that epoch.
    """

    wanted: str = ""
    under_way: bool = False
    awaits_restart: bool = False
    waits_since_s: float | None = None
    """Since when a base has been due and has waited for that restart (monotonic)."""
    hindrance: str = ""
    """Why no epoch could be begun for the base although the WAL has not restarted."""
    begun_epoch: int = 0
    """The last epoch that was begun for a base, or 0 if none was."""
    begun_bytes: int = 0
    """The stored size of that epoch's first transaction."""
    unbased_since_s: float | None = None
    """Since when there is a change that is in no base, where only bases store changes (monotonic)."""
    problem: str = ""
    """Why no base could be taken, after several attempts."""

    def wanting(self, reason: str) -> BaseNeed:
        """Return that a base is wanted. The reason is ``reason``, unless a base was wanted before."""
        return replace(self, wanted=self.wanted or reason)

    def begun_for_base(self, epoch: int, frame: int) -> int:
        """Return how many bytes after this position were stored again for a base. Returns 0 if none were."""
        return self.begun_bytes if (epoch, frame) == (self.begun_epoch, 0) else 0

    def can_begin(self, state: FollowState | None) -> bool:
        """Whether to request a base now: a base is wanted, or the restart that it waited for has come."""
        if state is None or self.under_way:
            return False
        if self.awaits_restart:
            return state.start_epoch == state.stream.epoch
        return bool(self.wanted)
