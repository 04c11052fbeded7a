"""What the daemon believes about the history of a database, as one value that is replaced as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from walsyncd.core.follow.evidence import Evidence
from walsyncd.core.follow.follow_state import FollowState
from walsyncd.core.follow.other_path import OtherPath
from walsyncd.engine.follow.segment_builder import LongTransaction
from walsyncd.engine.follow.step import Step


@dataclass(frozen=True, slots=True)
class Belief:
    """What steps that are durable have found.

    ``state`` is the follow state, or None between two generations. ``evidence`` is what else looks have found of it.
    ``pending`` is a transaction of which no commit was read yet. ``other_path`` are the signs of an application that
    uses another path; they are of the file's folder, and outlive the generation.
    """

    state: FollowState | None = None
    evidence: Evidence = field(default_factory=Evidence)
    pending: LongTransaction | None = None
    other_path: OtherPath = field(default_factory=OtherPath)

    def after(self, step: Step) -> Belief:
        """Return what is believed after ``step``. A gap changes nothing but the signs of another path."""
        other_path = self.other_path if step.other_path is None else step.other_path
        if step.gap is not None:
            return replace(self, other_path=other_path)
        state = self.state if step.state is None else step.state
        evidence = self.evidence if step.evidence is None else step.evidence
        return Belief(state, evidence, step.pending, other_path)

    def at(self, state: FollowState | None, *, verified: bool = False) -> Belief:
        """Return what is believed at another state: nothing else of it is known.

        ``verified``: this run of the daemon has seen that the WAL holds what the state says. The caller has dropped the
        pending transaction.
        """
        return Belief(state, Evidence(verified=verified), None, self.other_path)
