"""Ends the base of a database without a WAL: a scan (``PageScans``) ships what changed during the copy."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Future

from walsyncd.core.follow.follow_state import FollowState
from walsyncd.engine.base.base_copy import AbandonedError, CopyWait, FinishedBase, Steps
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.step import BaseReading


def close_base(
    interrupt: Callable[[FollowedDatabase, Callable[[FollowedDatabase], object]], None],
    tracked: FollowedDatabase,
    base: FinishedBase,
    reading: BaseReading,
    finish: Callable[[FollowedDatabase], None],
) -> Steps[None]:
    """Wait until a scan has shipped what the base lacks, however busy the database is, and ``finish`` was called.

    ``interrupt`` hands a call to the follower. ``finish`` runs in the follower's thread.
    """
    asked: Future[Future[None]] = Future()

    def close(tracked: FollowedDatabase) -> None:
        if tracked.state is None or tracked.scans is None or tracked.bridge is not None:
            asked.set_exception(AbandonedError("the generation ended, or a gap is bridged"))
        else:
            asked.set_result(tracked.scans.close_base(reading, base.plan.start, finish))

    interrupt(tracked, close)
    yield CopyWait(asked, math.inf)
    closed = asked.result()
    yield CopyWait(closed, math.inf)
    if closed.cancelled():
        raise AbandonedError("the generation ended, a gap is bridged, or the spool is read again")
    closed.result()


def is_closed(base: FinishedBase, state: FollowState, reading: BaseReading | None) -> bool:
    """Whether applying its epoch's frames to a base of a database without a WAL gives the database at ``state``."""
    start, position = base.plan.start, state.stream.position
    return start == position if reading is None else start.epoch == position.epoch
