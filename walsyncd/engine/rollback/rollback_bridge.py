"""Bridges a gap of a database that is in rollback mode now: one scan at a committed moment ships what differs.

A database that leaves WAL mode is followed further in this way. The bridge's transaction is the first of an epoch and
says what was missed, as the transaction of every bridge does. If the database goes back into WAL mode before the scan
has a result, the bridge for WAL mode (``GapBridge``) takes over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import structlog

from walsyncd.core.follow.follow_state import FollowState, Stream
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.stored.bridge import BridgeSpan, SuspectSpan
from walsyncd.engine.content.bridge_body import BridgeImpossibleError
from walsyncd.engine.content.bridge_wait import BridgeWait
from walsyncd.engine.follow.begin_generation import begin_step
from walsyncd.engine.follow.segment_builder import FrameCollector
from walsyncd.engine.follow.step import Step, gap_step
from walsyncd.engine.rollback.committed_moment import Hindrance
from walsyncd.engine.rollback.pages_to_read import AllPages
from walsyncd.engine.rollback.scanning import Scanning, after_scan, gap_of
from walsyncd.errors import WalsyncdError

RECHECK_S = 1.0  # pause between looks while the scan thread works; that thread wakes the follower when it is done

_log = structlog.get_logger()


class RollbackBridge:
    """Bridges the gap after ``old`` (``Bridging``). Only the follower's thread may use this."""

    is_for_wal = False

    def __init__(
        self,
        scanning: Scanning,
        *,
        old: FollowState,
        gap: Gap,
        page_size: int,
        proven_ms: int,
        suspect: SuspectSpan | None = None,
    ) -> None:
        self.old = old
        self.gap = gap
        self.is_impossible = False
        """Whether a base is needed, because the gap that ``step`` found last can't be bridged."""
        self.has_other_mode = False
        """Whether the database is in WAL mode, so that another bridge has to take over."""
        self._scanning = scanning
        self._tracked = scanning.tracked
        self._page_size = page_size
        self._proven_ms = proven_ms
        self._suspect = suspect
        self._wait = BridgeWait(self._tracked, scanning.tools.schedule, scanning.tools.environment.limits)

    def collector(self, _stream: Stream) -> FrameCollector:
        """Raise AssertionError, because a database in rollback mode has no frames."""
        raise AssertionError("frames are followed in rollback mode")

    def step(self) -> Step | None:
        """See ``Bridging``."""
        tracked, scanning = self._tracked, self._scanning
        if (wait_s := self._wait.wait_s()) > 0:
            scanning.tools.schedule.at(tracked, wait_s)
            return None
        if scanning.is_under_way and not scanning.is_done:
            scanning.tools.schedule.at(tracked, RECHECK_S)
            return None
        if scanning.is_under_way:
            return self._taken()
        if (wait_s := scanning.wait_s()) > 0:
            scanning.tools.schedule.at(tracked, wait_s)
            return None
        step = begin_step(tracked, scanning.tools.environment, self.old.stream.generation)
        if step.state is None:
            return step
        if step.state.mode != "rollback":
            return self._other_mode("the database changed to WAL mode")
        old = self.old.stream
        stream = scanning.tools.environment.empty_epoch(old)
        tracked.follow_from(replace(step.state, stream=stream, start_epoch=stream.epoch, start_frame=0))
        scanning.begin(stream, self._page_size, AllPages(), span=self._span)
        scanning.tools.schedule.at(tracked, RECHECK_S)
        return None

    def applied(self, _step: Step) -> None:
        """Do nothing, because only the bridge's last step has anything to apply."""

    def gap_again(self, _gap: Gap) -> None:
        """Begin the bridge again, because something was missed meanwhile."""
        self._scanning.drop()
        self._tracked.follow_again()
        self._scanning.tools.schedule.at(self._tracked, 0)

    def wait_for(self, is_so: Callable[[], bool], what: str) -> None:
        """See ``Bridging``."""
        self._wait.wait_for(is_so, what)

    def drop(self) -> None:
        """See ``Bridging``."""
        self._scanning.drop()

    def _other_mode(self, text: str) -> Step:
        self.is_impossible = self.has_other_mode = True
        return gap_step(GapKind.CHANGED, text)

    def _taken(self) -> Step | None:
        tracked, scanning, state = self._tracked, self._scanning, self._tracked.state
        try:
            found = scanning.take()
        except BridgeImpossibleError as error:
            self.is_impossible = True
            text = "{reason}, and it is not bridged: {why}"
            return gap_step(self.gap.kind, text, reason=self.gap.reason, why=error.message)
        except WalsyncdError as error:
            wait_s = self._wait.rest_after_failure()
            _log.warning("bridge_failed", database=tracked.name, reason=error.message, next_try_in_s=wait_s)
            return None
        if (gap := gap_of(found.hindrance)) is not None:
            return (
                self._other_mode(gap.reason) if found.hindrance is Hindrance.WAL else self._other_database(gap.reason)
            )
        if found.hindrance is not None or state is None or found.new is None:
            scanning.tools.schedule.at(tracked, scanning.wait_s())
            return None
        if tracked.wal_pairs.queue:
            return self._other_mode("the database changed to WAL mode")
        _log.info(
            "gap_bridged",
            database=tracked.name,
            reason=self.gap.reason,
            position=str(found.stream.position) if found.stream is not None else "",
            stored_bytes=found.new.size,
        )
        return Step(
            state=after_scan(state, found), objects=(found.new,), bridged=True, scanned=found.committed, again_s=0
        )

    def _other_database(self, what: str) -> Step:
        self.is_impossible = True
        return gap_step(GapKind.CHANGED, "{reason}, and {what}", reason=self.gap.reason, what=what)

    def _span(self) -> BridgeSpan:
        old, gap = self.old.stream, self.gap
        return BridgeSpan(old.epoch, old.frame, max(self._proven_ms, 0), str(gap.kind), gap.reason, self._suspect)
