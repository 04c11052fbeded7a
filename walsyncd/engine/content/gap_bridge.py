"""Bridges one gap of one database in WAL mode. Meanwhile the follower ships nothing.

1. **Looking.** The follower follows the WAL's current incarnation from frame 1 on. It proves each restart as it does
   without a gap, but keeps page numbers instead of frames.
2. **Reading.** The scan thread reads the listed pages of the file (``core.content.bridge_passes``) meanwhile.
3. **Read.** A look that begins after the last byte was read shows whether another pass is needed.
4. **Finishing.** The scan thread takes the last versions from the WAL. Nothing is followed beyond N meanwhile, so that
   the next shipped frame is the frame after N.

The bridge and the follow state at N are written in one transaction of the journal. Until then the journal has the old
position with the gap noted, and a restart of the daemon begins the bridge again.

If it was only possible that something was missed, and the content shows that nothing was missed
(``core.content.cleared_doubt``), no bridge is made: following continues from the old position.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from enum import Enum, auto

import structlog

from walsyncd.adapters.files.source import OpenFile
from walsyncd.core.content.bridge_passes import BridgePasses, LastVersions, PassPages
from walsyncd.core.content.cleared_doubt import DOUBTS
from walsyncd.core.follow.follow_state import FollowState, Stream
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.follow.overwritten import Overwritten, copied_back
from walsyncd.core.sqlite.wal import Salts
from walsyncd.core.stored.bridge import BridgeSpan, SuspectSpan
from walsyncd.engine.content.bridge_body import BridgeImpossibleError
from walsyncd.engine.content.bridge_scan import (
    BridgeMade,
    BridgeScan,
    Cleared,
    FinishSteps,
    OpenBody,
    PassRead,
    PassSteps,
)
from walsyncd.engine.content.bridge_wait import BridgeWait
from walsyncd.engine.content.frame_numbers import FrameNumbers
from walsyncd.engine.content.scan_queue import ScanQueue, ScanSteps
from walsyncd.engine.follow.begin_generation import begin_step, is_in_rollback_mode
from walsyncd.engine.follow.environment import Environment
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.look import take_step
from walsyncd.engine.follow.schedule import Schedule
from walsyncd.engine.follow.step import Step, gap_step
from walsyncd.engine.threads.boundary import boundary
from walsyncd.errors import WalsyncdError

SHOWN = 10  # the log shows at most this many page numbers
OVERWRITTEN_REMEDY = (
    "the replica has them as they are in the file, as SQLite reads them; they are lost if the WAL has to be recovered, "
    "so close every application that has the database open before its file is written past SQLite"
)
RECHECK_S = 1.0  # pause between looks while the scan thread works; that thread wakes the follower when it is done

_log = structlog.get_logger()


class _Phase(Enum):
    LOOKING = auto()
    READING = auto()
    READ = auto()
    FINISHING = auto()


class GapBridge:
    """Bridges the gap after ``old``. Only the follower's thread calls the methods, unless a heading says otherwise."""

    is_for_wal = True

    def __init__(
        self,
        tracked: FollowedDatabase,
        environment: Environment,
        schedule: Schedule,
        queue: ScanQueue,
        open_body: OpenBody,
        *,
        old: FollowState,
        gap: Gap,
        page_size: int,
        proven_ms: int,
        is_stable: bool,
        suspect: SuspectSpan | None = None,
    ) -> None:
        self.old = old
        self.gap = gap
        self.is_impossible = False
        """Whether a base is needed, because the gap that ``step`` found last can't be bridged."""
        self.has_other_mode = False
        """Whether the database is no longer in WAL mode, so that another bridge has to take over."""
        self._tracked = tracked
        self._environment = environment
        self._schedule = schedule
        self._queue = queue
        self._page_size = page_size
        self._proven_ms = proven_ms
        self._suspect = suspect
        self._passes = BridgePasses(page_size)
        self._phase = _Phase.LOOKING
        self._scan = BridgeScan(
            tracked.path, open_body, boot_id=environment.boot_id, page_size=page_size, old=old, is_stable=is_stable
        )
        self._attempt = 0
        """The number of requests to the scan thread so far. Only the last request is valid."""
        self._answer: Future[object] = Future()
        self._read: PassRead | None = None
        self._salts: Salts | None = None
        self._wait = BridgeWait(tracked, schedule, environment.limits)
        self._is_doubt = gap.kind in DOUBTS

    def collector(self, stream: Stream) -> FrameNumbers:
        """Return the collector for the frames that are followed while the gap is bridged."""
        return FrameNumbers(self._passes, stream)

    def step(self) -> Step | None:
        """Take one step. Returns None if there is nothing to be done now."""
        tracked = self._tracked
        if (wait_s := self._wait.wait_s()) > 0:
            if is_in_rollback_mode(tracked) and not self._wait.is_for_event:  # and no condition is waited for
                return self._left_wal_mode()
            self._schedule.at(tracked, wait_s)
            return None
        if self._phase in {_Phase.READING, _Phase.FINISHING} and self._answer.done():
            error = self._answer.exception()
            if error is not None:
                return self._failed(error)
        if self._phase is _Phase.FINISHING:
            return self._finished()
        if tracked.state is None:
            return self._begin()
        if self._phase is _Phase.READING and self._answer.done():
            found = self._answer.result()
            assert isinstance(found, PassRead)
            self._read, self._phase = found, _Phase.READ
        return take_step(tracked, self._environment)

    def applied(self, step: Step) -> None:
        """Take in a step that the database has applied and that was not the bridge's last step."""
        state = self._tracked.state
        if state is None:
            return
        salts = state.cursor.salts if state.cursor is not None else None
        if salts != self._salts:
            self._passes.saw_restart()
            self._salts = salts
        if not step.caught_up:
            return
        if self._phase is _Phase.LOOKING:
            self._begin_pass(state)
        elif self._phase is _Phase.READ:
            self._end_pass(state)

    def gap_again(self, gap: Gap) -> None:
        """Read all pages again, because something was missed meanwhile."""
        self._passes.saw_gap()
        self._is_doubt = self._is_doubt and gap.kind in DOUBTS
        self._attempt += 1
        self._phase = _Phase.LOOKING
        self._tracked.follow_again()
        if wait_s := self._wait.rest_after_gap(self._passes.voided):
            _log.warning(
                "bridge_voided",
                database=self._tracked.name,
                reason=gap.reason,
                passes=self._passes.voided,
                next_try_in_s=wait_s,
                remedy="backpressure = true keeps the writers from overwriting what was not read",
            )

    def wait_for(self, is_so: Callable[[], bool], what: str) -> None:
        """See ``Bridging``."""
        self._wait.wait_for(is_so, what)

    def drop(self) -> None:
        """Give the bridge up, and remove the part of it that was written."""
        self._attempt += 1
        if self._queue.is_stopping:  # the scan thread has ended then
            self._scan.drop()
        else:
            self._queue.call(self._scan.drop)

    # -- the follower's thread --------------------------------------------------------------------------------------

    def _begin(self) -> Step:
        """Begin before frame 1 of the WAL's current incarnation."""
        tracked, old = self._tracked, self.old.stream
        step = begin_step(tracked, self._environment, old.generation)
        if step.state is None:
            return step
        state = step.state
        if state.mode != "wal":
            return self._left_wal_mode()
        header = state.cursor.header if state.cursor is not None else None
        if header is not None and header.page_size != self._page_size:
            self.is_impossible = True
            return gap_step(GapKind.CHANGED, "{reason}, and the page size changed", reason=self.gap.reason)
        stream = self._environment.empty_epoch(old)
        tracked.follow_from(replace(state, stream=stream, start_epoch=stream.epoch, start_frame=0))
        self._salts = state.cursor.salts if state.cursor is not None else None
        return Step(again_s=0)

    def _left_wal_mode(self) -> Step:
        self.is_impossible = self.has_other_mode = True
        return gap_step(GapKind.CHANGED, "{reason}, and the database left WAL mode", reason=self.gap.reason)

    def _failed(self, error: BaseException) -> Step | None:
        """Handle a request that the scan thread could not fulfil."""
        if isinstance(error, BridgeImpossibleError):
            self.is_impossible = True
            text = "{reason}, and it is not bridged: {why}"
            return gap_step(self.gap.kind, text, reason=self.gap.reason, why=error.message)
        if not isinstance(error, WalsyncdError):
            raise error
        wait_s = self._wait.rest_after_failure()
        _log.warning("bridge_failed", database=self._tracked.name, reason=error.message, next_try_in_s=wait_s)
        self.drop()
        self._passes = BridgePasses(self._page_size)
        self._phase = _Phase.LOOKING
        self._tracked.follow_again()
        return None

    def _begin_pass(self, state: FollowState) -> None:
        wal_pair, index = self._tracked.wal_pairs.current, None
        if wal_pair is not None:
            wal_pair.taken_from_file = wal_pair.index_rebuilds  # read before nBackfill, which a recovery sets to 0
            index = wal_pair.live_index()
        pages = self._passes.begin_pass(copied_back(index, state.cursor))
        self._attempt += 1
        self._answer, self._phase = Future(), _Phase.READING
        self._queue.add(self._read_steps(self._attempt, self._answer, pages, state), urgent=True)

    def _end_pass(self, state: FollowState) -> None:
        assert self._read is not None
        if self._read.changed and self._passes.saw_no_frames():
            text = "the database was written while it had no WAL"
            self.gap_again(Gap.of(GapKind.UNCERTAIN, text))
            return
        found = self._passes.end_pass(self._read.pages, state.cursor.frames if state.cursor is not None else 0)
        if found is None:
            self._begin_pass(state)
            return
        wal_pair = self._tracked.wal_pairs.current
        wal = wal_pair.wal.duplicate() if wal_pair is not None and len(found.frames) else None
        self._attempt += 1
        self._answer, self._phase = Future(), _Phase.FINISHING
        steps = self._finish_steps(self._attempt, self._answer, found, state, wal)
        self._queue.add(steps, urgent=True)

    def _finished(self) -> Step | None:
        if not self._answer.done():
            self._schedule.at(self._tracked, RECHECK_S)
            return None
        found, state = self._answer.result(), self._tracked.state
        assert state is not None
        if isinstance(found, Cleared):
            return self._cleared(found, state)
        assert isinstance(found, BridgeMade)
        _log.info(
            "gap_bridged",
            database=self._tracked.name,
            reason=self.gap.reason,
            position=str(found.stream.position),
            stored_bytes=found.new.size,
        )
        state = replace(state, stream=found.stream, overwritten=self._note_overwritten(found, state))
        return Step(state=state, objects=(found.new,), bridged=True, again_s=0)

    def _cleared(self, found: Cleared, state: FollowState) -> Step:
        """Continue from the old position. The replica holds everything up to N."""
        old = self.old
        _log.info(
            "doubt_cleared",
            database=self._tracked.name,
            reason=self.gap.reason,
            position=str(old.stream.position),
            pages=found.pages,
        )
        start = old.start if state.cursor is not None and state.cursor.frames else old.stream.position
        state = replace(state, stream=old.stream, start_epoch=start.epoch, start_frame=start.frame)
        return Step(state=state, bridged=True, again_s=0)

    def _note_overwritten(self, found: BridgeMade, state: FollowState) -> Overwritten | None:
        """Return the pages and frames that later looks have to watch, because somebody wrote over the file."""
        pages = found.overwritten
        if state.cursor is None or self._read is None:
            return None
        if not len(pages):
            return Overwritten(state.cursor.salts, 0) if found.is_longer else None
        _log.warning(
            "pages_overwritten",
            database=self._tracked.name,
            pages=len(pages),
            first=pages[:SHOWN].tolist(),
            remedy=OVERWRITTEN_REMEDY,
        )
        return Overwritten(state.cursor.salts, self._read.copied_upto)

    # -- the scan thread --------------------------------------------------------------------------------------------

    def _read_steps(self, attempt: int, answer: Future[object], pages: PassPages, state: FollowState) -> ScanSteps:
        yield from self._answered(answer, self._scan.read(pages, state, lambda: attempt != self._attempt))

    def _finish_steps(
        self, attempt: int, answer: Future[object], found: LastVersions, state: FollowState, wal: OpenFile | None
    ) -> ScanSteps:
        old, gap, environment = self.old.stream, self.gap, self._environment
        assert self._read is not None
        proven_ms = max(0, environment.not_ahead(self._proven_ms))
        seen_ms = max(environment.wall_ms(), environment.not_ahead(old.time_ms), proven_ms)
        steps = self._scan.finish(
            found,
            state,
            self._read,
            wal,
            span=BridgeSpan(old.epoch, old.frame, proven_ms, str(gap.kind), gap.reason, self._suspect),
            seen_ms=seen_ms,
            is_doubt=self._is_doubt,
            is_void=lambda: attempt != self._attempt,
        )
        try:
            yield from self._answered(answer, steps)
        finally:
            if wal is not None:
                wal.close()

    def _answered(self, answer: Future[object], steps: PassSteps | FinishSteps) -> ScanSteps:
        """Run ``steps``. Their result or their error becomes the answer."""
        try:
            with boundary("bridge a gap", database=self._tracked.name):
                found = yield from steps
        except WalsyncdError as error:
            answer.set_exception(error)
        else:
            if found is not None:
                answer.set_result(found)
        self._schedule.at(self._tracked, 0)
