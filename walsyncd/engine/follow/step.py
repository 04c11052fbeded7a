"""What one step of a look found; the follower makes it durable, then carries it over into the Tracked."""

from __future__ import annotations

from dataclasses import dataclass

from walsyncd.adapters.journal.journal import NewObject
from walsyncd.core.follow.decision import CounterMark, Gap, Salts
from walsyncd.core.follow.follow_state import FollowState


@dataclass(frozen=True, slots=True)
class Step:
    """Facts found and what follows from them; everything absent stays as it is.

    ``caught_up``: everything that was committed when the step began is in ``state``. ``gap``: the generation ends, for
    that reason. ``life_ended``: the current life of the WAL is read to its end.
    """

    state: FollowState | None = None
    objects: tuple[NewObject, ...] = ()
    mark: CounterMark | None = None
    again_s: float | None = None
    """Look again after so many seconds; 0: at once."""
    caught_up: bool = False
    moving: bool = False
    """Frames stand after the last published one: a commit may be on its way."""
    life_ended: bool = False
    gap: str = ""
    remedy: str = ""
    """What the operator can do against such gaps."""
    blocked: Salts | None = None
    """No generation gets past that gap before the WAL has other salts than these."""
    doubt: str = ""
    """Why the wal-index is not believed from now on."""
    base_wanted: str = ""
    recovered: int = 0
    """Frames taken from behind a WAL that had restarted."""
    proven_by: str = ""
    """What proved that nothing was missed where the WAL restarted: its count or its remains."""


def gap_step(gap: Gap) -> Step:
    """The step that a gap ends in."""
    return Step(gap=gap.reason, remedy=gap.remedy, blocked=gap.blocked)


AT_ONCE = Step(again_s=0)
SHORTLY = Step(moving=True)
