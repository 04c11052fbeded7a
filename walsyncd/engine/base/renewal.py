"""Begins a new generation in time where the store removes objects by age (``delete = false``).

Without a new generation, the old one's bases would expire. Whether a new generation is needed is decided when a base is
due (``base_schedule``), in the follower's thread. The old generation stays as it is, complete up to its last commit. A
caller that waits for a look gets a look in the new generation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import structlog

from walsyncd.adapters.journal.journal import Journal
from walsyncd.core.follow.follow_state import FollowState
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.keep.base_schedule import must_begin_anew
from walsyncd.core.stored.position import Position
from walsyncd.engine.follow.environment import Environment
from walsyncd.engine.follow.followed_database import FollowedDatabase

EXPIRING = Gap.of(GapKind.RENEWED, "what its bases need would expire: the WAL has not restarted for long")

_log = structlog.get_logger()


class Renewal:
    """Ends generations before their bases expire. ``interrupt`` is the follower's.

    The store may remove objects ``expire_s`` seconds after they were stored.
    """

    def __init__(
        self,
        journal: Journal,
        environment: Environment,
        *,
        interrupt: Callable[[FollowedDatabase, Callable[[FollowedDatabase], object]], None],
        expire_s: float,
    ) -> None:
        self._journal = journal
        self._environment = environment
        self._interrupt = interrupt
        self._expire_ms = round(1000 * expire_s)

    def begins_anew(self, tracked: FollowedDatabase, state: FollowState, taken: tuple[Position, int] | None) -> bool:
        """Whether the generation ends instead of getting a base. ``taken`` has the last base's N and its time (ms)."""
        stream = state.stream
        began_ms = next(
            row.began_ms for row in self._journal.generations(tracked.row_id) if row.generation == stream.generation
        )
        is_over = must_begin_anew(
            now_ms=self._environment.wall_ms(),
            epoch_began_ms=stream.began_ms,
            generation_began_ms=began_ms,
            base_ms=taken[1] if taken is not None and taken[0].generation == stream.generation else None,
            can_begin=state.start_epoch == stream.epoch,
            interval_ms=round(1000 * tracked.spec.snapshot_interval_s),
            expire_ms=self._expire_ms,
        )
        if is_over:
            self._interrupt(tracked, partial(self._leave, generation=stream.generation))
        return is_over

    def _leave(self, tracked: FollowedDatabase, *, generation: str) -> None:
        """End the generation, in the follower's thread, which begins the next one in the same round."""
        if tracked.state is None or tracked.state.stream.generation != generation:
            return
        position = str(tracked.state.stream.position)
        self._journal.end_generation(tracked.row_id, EXPIRING, self._environment.wall_ms())
        tracked.end_generation(replace(tracked.next_generation, reason=EXPIRING.reason))
        _log.info("generation_renewed", database=tracked.name, position=position, reason=EXPIRING.reason)
