"""All that one step of a look found. The follower makes it durable, then the database applies it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from walsyncd.adapters.journal.journal import NewObject
from walsyncd.core.follow.evidence import Evidence
from walsyncd.core.follow.follow_state import FollowState
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.engine.follow.segment_builder import LongTransaction


@dataclass(frozen=True, slots=True)
class Step:
    """The facts found, and what follows from them.

    ``caught_up``: everything that was committed when the step began is in ``state``. ``gap`` is why the generation
    can't go on. ``life_ended``: the current WAL is read to its end. If ``state`` or ``evidence`` is None, the
    database's stays as it was.
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
    begins: str = ""
    """A generation begins at ``state``, for this reason."""
    base_wanted: str = ""
    bridged: bool = False
    """``objects`` is the bridge over a gap, and ``state`` is the one after it."""
    again_s: float | None = None
    """Look again after this many seconds, at once if 0."""
    moving: bool = False
    """There are frames after the last published one, so a commit may be under way."""
    rest_until_s: float | None = None
    """Do not look before then (monotonic), because this look was costly and found nothing."""
    doubt: str = ""
    """Why the wal-index is not believed from now on."""
    recovered: int = 0
    """How many frames were taken from the old incarnation of a WAL that had restarted."""
    proven_by: str = ""
    """What proved that nothing was missed where the WAL restarted: its count or its remains."""

    @property
    def is_shortly(self) -> bool:
        """Whether it found only an intermediate state, so that the look is repeated shortly."""
        return replace(self, evidence=None, pending=None) == SHORTLY


def gap_step(kind: GapKind, text: str, *, remedy: str = "", **facts: int | str) -> Step:
    """Return the step for a gap. ``text`` names each of the facts in braces."""
    return Step(gap=Gap(kind, text, facts, remedy))


AT_ONCE = Step(again_s=0)
SHORTLY = Step(moving=True)
