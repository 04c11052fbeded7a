"""What one step of a look found; the follower makes it durable, then carries it over into the Tracked."""

from __future__ import annotations

from dataclasses import dataclass

from walsyncd.adapters.journal.journal import NewObject
from walsyncd.core.follow.decision import CounterMark
from walsyncd.core.follow.follow_state import FollowState
from walsyncd.core.follow.gap import Gap, GapKind


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
    gap: Gap | None = None
    doubt: str = ""
    """Why the wal-index is not believed from now on."""
    base_wanted: str = ""
    recovered: int = 0
    """Frames taken from behind a WAL that had restarted."""
    proven_by: str = ""
    """What proved that nothing was missed where the WAL restarted: its count or its remains."""


def gap_step(kind: GapKind, text: str, *, remedy: str = "", **facts: int | str) -> Step:
    """The step that a gap ends in; ``text`` names each of the facts in braces."""
    return Step(gap=Gap(kind, text, facts, remedy))


AT_ONCE = Step(again_s=0)
SHORTLY = Step(moving=True)
