"""What one step of a look found: all of it. The follower makes it durable, then the database applies it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from walsyncd.adapters.journal.journal import NewObject
from walsyncd.core.follow.evidence import Evidence
from walsyncd.core.follow.follow_state import FollowState
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.engine.follow.segment_builder import LongTransaction


@dataclass(frozen=True, slots=True)
class Step:
    """Facts found and what follows from them.

    ``caught_up``: everything that was committed when the step began is in ``state``. ``gap``: the generation can't go
    on, for that reason. ``life_ended``: the current WAL is read to its end. An absent ``state`` or ``evidence`` stays
    as it was.
    """

    state: FollowState | None = None
    objects: tuple[NewObject, ...] = ()
    evidence: Evidence | None = None
    pending: LongTransaction | None = None
    """The transaction of which no commit was read yet."""
    gap: Gap | None = None
    caught_up: bool = False
    life_ended: bool = False
    known_upto: int | None = None
    """The number of the last write to the database whose effect ``state`` holds (``WalPairs.database_writes``)."""
    base_wanted: str = ""
    bridged: bool = False
    """``objects`` is the bridge over a gap, and ``state`` is that after it."""
    again_s: float | None = None
    """Look again after so many seconds; 0: at once."""
    moving: bool = False
    """There are frames after the last published one: a commit may be on its way."""
    rest_until_s: float | None = None
    """No look before then (monotonic): this one was costly and found nothing."""
    doubt: str = ""
    """Why the wal-index is not believed from now on."""
    recovered: int = 0
    """Frames taken from behind a WAL that had restarted."""
    proven_by: str = ""
    """What proved that nothing was missed where the WAL restarted: its count or its remains."""

    @property
    def is_shortly(self) -> bool:
        """Whether it found nothing but a moment in between: the look is repeated shortly."""
        return replace(self, evidence=None, pending=None) == SHORTLY


def gap_step(kind: GapKind, text: str, *, remedy: str = "", **facts: int | str) -> Step:
    """The step that a gap ends in; ``text`` names each of the facts in braces."""
    return Step(gap=Gap(kind, text, facts, remedy))


AT_ONCE = Step(again_s=0)
SHORTLY = Step(moving=True)
