"""The follower: one thread for all databases. It looks, makes what it found durable, and continues.

A round takes one step for each database that is due. The daemon believes what the steps found once the journal has it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import structlog

from walsyncd.adapters.journal.journal import Journal, ObjectRow, StateNote
from walsyncd.adapters.journal.state_notes import StateNotes
from walsyncd.config import DatabaseSpec
from walsyncd.core.follow.database_state import DatabaseState, StateReport
from walsyncd.core.follow.follow_state import parse_follow_state
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.engine.follow.begin_generation import advance_by, begin_generation, has_other_salts
from walsyncd.engine.follow.environment import Environment
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.look import take_step
from walsyncd.engine.follow.schedule import SLOW_LOOK_S, Gathering, Schedule, Taken, UnfinishedRound
from walsyncd.engine.follow.step import AT_ONCE, Step
from walsyncd.engine.threads.boundary import boundary
from walsyncd.engine.threads.mailbox import Request
from walsyncd.engine.threads.stall_detector import StallDetector
from walsyncd.errors import STATE_ERRORS, FaultError, MissingError, RefusedError, TransientError, WalsyncdError

BASE_REMEDY = "a pause of some seconds in the writing, or WAL mode, where a base needs no pause"
SPOOL_DELAY_S = 0.1

T = TypeVar("T")
R = TypeVar("R")

_log = structlog.get_logger()


class Follower:
    """Follows every database in ``tracked`` (by journal row id).

    ``offer`` hands new objects to the uploader. ``leaves_at_once`` returns whether a database's next object would be
    uploaded without waiting. ``base_due`` notifies the snapshotter. All databases wait while ``is_spool_full``, and one
    database while it ``has_too_much``. After each round, ``looked`` gets the round's databases. ``begin_bridge`` begins
    to bridge a gap, and returns False if a base is needed.
    """

    def __init__(
        self,
        journal: Journal,
        environment: Environment,
        schedule: Schedule,
        *,
        offer: Callable[[list[ObjectRow]], None],
        leaves_at_once: Callable[[int], bool],
        base_due: Callable[[FollowedDatabase], None],
        is_spool_full: Callable[[], bool],
        has_too_much: Callable[[int], bool] = lambda _database_id: False,
        looked: Callable[[list[FollowedDatabase]], None] = lambda _databases: None,
        stall_detector: StallDetector | None = None,
        begin_bridge: Callable[[FollowedDatabase, Gap], bool] = lambda _tracked, _gap: False,
    ) -> None:
        self._journal, self._environment, self._schedule = journal, environment, schedule
        self._offer, self._leaves_at_once, self._base_due = offer, leaves_at_once, base_due
        self._is_spool_full, self._has_too_much, self._looked = is_spool_full, has_too_much, looked
        self._begin_bridge, self._stall_detector = begin_bridge, stall_detector or StallDetector()
        self._round_ms, self._unfinished, self.journal_problem = 0, UnfinishedRound(), ""
        self._gathering = Gathering(schedule, environment.limits.fast_frames)
        self._notes = StateNotes(journal)  # written at the end of a round, before anybody is answered
        environment.read_ahead.has_ended = schedule.hasten

    def run(self) -> None:
        """Run the thread until the schedule is stopped. First, end the round of an earlier thread that hangs."""
        self._schedule.wake(self._unfinished.left())
        self._believe([])
        while taken := self._schedule.take():
            with self._stall_detector.work():
                self.round(taken)
            self._looked(taken)

    def request(self, tracked: FollowedDatabase, then: Callable[[FollowedDatabase], object]) -> Future[Any]:
        """Run ``then`` in the follower's thread once a look that begins after this call has caught up."""
        request = Request(then)
        self._schedule.request(tracked, request)
        if tracked.mailbox.dismissed:
            tracked.fail_requests(_dismissed(tracked))
        return request.done

    def interrupt(self, tracked: FollowedDatabase, then: Callable[[FollowedDatabase], object]) -> None:
        """Run ``then`` in the follower's thread before anything else is done for the database."""
        self._schedule.interrupt(tracked, then)

    def retune(self, tracked: FollowedDatabase, spec: DatabaseSpec) -> None:
        """Follow the database with other settings, and look at it now. Its path and name stay the same."""

        def turn_over(tracked: FollowedDatabase) -> None:
            tracked.spec = spec

        self._schedule.interrupt(tracked, turn_over)

    def dismiss(self, tracked: FollowedDatabase) -> Future[None]:
        """Stop following the database. The future is done when no file of the database is held any more."""
        done: Future[None] = Future()

        def let_go(tracked: FollowedDatabase) -> None:
            tracked.mailbox.dismissed = True
            try:
                tracked.forget()
                tracked.wal_pairs.rest()
            finally:
                done.set_result(None)

        self._schedule.interrupt(tracked, let_go)
        return done

    def resume(self, tracked: FollowedDatabase) -> None:
        """Continue a database from its state in the journal."""
        row = self._journal.database_by_id(tracked.row_id)
        tracked.rewinds = row.rewinds
        if row.follow is None or row.generation is None:
            return
        try:
            state = parse_follow_state(row.follow)
        except ValueError as error:
            text = "the journal's follow state can't be read: {error}"
            self._end_generation(tracked, Gap.of(GapKind.OTHER, text, error=str(error)))
            return
        tracked.resume(state)
        tracked.next_generation = replace(tracked.next_generation, began_s=-math.inf)
        age_s = max(0, self._environment.wall_ms() - (row.base_ms or 0)) / 1000
        page_map = self._journal.page_map(tracked.row_id)
        tracked.resume_base(row.base_key or "", time.monotonic() - age_s, has_map=page_map is not None)
        if state.gap is not None:
            self.leave(tracked, state.gap)

    # -- a round ----------------------------------------------------------------------------------------------------

    def round(self, taken: list[FollowedDatabase]) -> None:
        """Take one step for each of these databases."""
        self._round_ms = self._environment.wall_ms()
        self._unfinished.taken = taken
        steps: list[Taken] = []
        for tracked in taken:
            self._update_presence(tracked)
        try:
            is_full = self._is_spool_full()
            for tracked in self._gathering.databases(taken, steps, self._update_presence):
                if is_full or self._has_too_much(tracked.row_id):
                    self._schedule.at(tracked, SPOOL_DELAY_S)
                    continue
                asked = tracked.mailbox.asked()
                step = self._step_or_aside(tracked)
                if step is not None:
                    steps.append((tracked, step, asked))
            steps = self._make_durable(steps)
        except TransientError as error:  # the journal: nothing was made durable, so nothing has happened
            self._postpone(taken, error)
            return
        if self.journal_problem and not is_full:
            self.journal_problem = ""
            _log.info("journal_writable_again")
        self._believe(steps)

    def _believe(self, steps: list[Taken]) -> None:
        """Believe the steps that are durable now, and answer the requests that came before the looks."""
        durable = self._unfinished.durable(steps)
        seen = [(tracked, asked) for tracked, step, asked in durable if self._within(tracked, self._carry_over, step)]
        try:
            self._notes.write()
        except TransientError as error:
            self._postpone(self._unfinished.taken, error)
            return
        for tracked, asked in seen:
            self._within(tracked, FollowedDatabase.answer, asked)
        self._unfinished.taken = []

    def _within(self, tracked: FollowedDatabase, do: Callable[[FollowedDatabase, T], R], what: T) -> R | None:
        """Call ``do`` after a step was made durable, and return its result. Returns None if ``do`` fails."""
        try:
            with boundary("carry_over", database=tracked.name):
                return do(tracked, what)
        except TransientError as error:  # the journal again; what was not noted is found again
            self._postpone([tracked], error)
        except FaultError as error:  # memory may hold only half of what is durable by now
            self._end_generation(tracked, Gap.of(GapKind.OTHER, "{fault}", fault=error.message))
        return None

    def _update_presence(self, tracked: FollowedDatabase) -> None:
        """Update the locks before the look, so that the look sees the new locks, and also if the look has to wait."""
        with suppress(FaultError), boundary("update_presence", database=tracked.name):
            due_s = tracked.presence.update()
            if due_s is not None:
                self._schedule.at(tracked, due_s)

    def _postpone(self, taken: list[FollowedDatabase], error: TransientError) -> None:
        if error.message != self.journal_problem:
            self.journal_problem = error.message
            _log.error("journal_not_writable", reason=error.message, remedy=error.hint)
        for tracked in taken:
            tracked.drop_pending()
            self._schedule.at(tracked, self._environment.limits.journal_retry_s)

    def _step_or_aside(self, tracked: FollowedDatabase) -> Step | None:
        try:
            tracked.do_interrupts()
            if tracked.mailbox.dismissed:
                tracked.fail_requests(_dismissed(tracked))
                return None
            with boundary("look", database=tracked.name):
                return self._step(tracked)
        except STATE_ERRORS:
            raise
        except WalsyncdError as error:
            self._suspend(tracked, error)
            return None

    def _step(self, tracked: FollowedDatabase) -> Step | None:
        tracked.wal_pairs.close_old()
        if tracked.bridge is not None:
            return tracked.bridge.step()
        if tracked.state is None and (report := tracked.awaits_examination()) is not None:
            self._schedule.at(tracked, self._environment.limits.begin_look_s)
            self._note(tracked, report, "")
            return None
        return self._begin(tracked) if tracked.state is None else take_step(tracked, self._environment)

    def _make_durable(self, steps: list[Taken]) -> list[Taken]:
        """Write what was found in one transaction. Returns the steps that are durable.

        After a fault in it, each database gets a transaction of its own, so that the fault affects only one of them.
        """
        try:
            with boundary("make_durable", databases=len(steps)):
                self._advance(steps)
                return steps
        except FaultError as error:
            if len(steps) == 1:
                self._suspend(steps[0][0], error)
                return []
        return [each for step in steps for each in self._make_durable([step])]

    def _advance(self, steps: list[Taken]) -> None:
        advances = [
            advance_by(tracked, step, now_ms=self._round_ms, at_once=self._leaves_at_once)
            for tracked, step, _ in steps
            if step.state is not None and not step.gap and (tracked.bridge is None or step.bridged)
        ]
        if advances and (rows := self._journal.advance(advances)):
            self._offer(rows)

    def _carry_over(self, tracked: FollowedDatabase, step: Step) -> bool:
        """Believe a step that is durable now. Returns whether everything committed before the look is in the state."""
        if step.begins and step.state is not None:
            tracked.begin(step.state, step.begins, time.monotonic())
            _log.info("generation_began", database=tracked.name, generation=tracked.generation, reason=step.begins)
            step = AT_ONCE
        tracked.apply(step)
        if step.gap is not None:
            self.leave(tracked, step.gap)
            return False
        if tracked.bridge is not None:
            tracked.bridge.applied(step)
            self._schedule.look_again(tracked, step, self._environment)
            return False
        if step.bridged:
            self._base_due(tracked)  # a base that the gap made worthless, or one that is due
        if step.decided_by:
            self._environment.proven(tracked.name, step.decided_by)
        if step.recovered:
            _log.info("wal_tail_recovered", database=tracked.name, frames=step.recovered)
        if step.doubt:
            _log.warning("wal_index_doubted", database=tracked.name, reason=step.doubt)
        self._well(tracked)
        if tracked.base.can_begin(tracked.state):
            self._base_due(tracked)
        if step.caught_up:
            self._schedule.seen(tracked)
            tracked.proven_ms = self._round_ms
        self._schedule.look_again(tracked, step, self._environment)
        return step.caught_up

    # -- generations ------------------------------------------------------------------------------------------------

    def _begin(self, tracked: FollowedDatabase) -> Step | None:
        """Begin a generation, if a generation may begin now."""
        wait_s = tracked.next_generation.wait_s(time.monotonic())
        wait_s = wait_s or (0.0 if tracked.next_generation.may_begin() else self._environment.limits.begin_look_s)
        if wait_s:
            tracked.fail_requests(TransientError(f"{tracked.name} waits for its next generation"))
            self._schedule.rest(tracked, time.monotonic() + wait_s)  # however busy its writers are meanwhile
            self._schedule.at(tracked, wait_s)
            return None
        step = begin_generation(tracked, self._environment)
        if step.state is not None:
            return step
        tracked.apply(step)  # there is nothing to make durable or to report yet
        self._schedule.at(tracked, step.again_s or 0)
        return None

    def give_way(self, tracked: FollowedDatabase, gap: Gap, *, until: Callable[[], bool]) -> None:
        """End the generation; begin another once ``until`` returns True. Only the follower's thread may call this."""
        self._end_generation(tracked, gap, once="storage is back", may_begin=until)

    def generation_lost(self, tracked: FollowedDatabase, gap: Gap) -> None:
        """End a generation that the journal has ended because of storage. Only the follower's thread may call this."""
        row = self._journal.database_by_id(tracked.row_id)
        if tracked.generation is not None and row.generation != tracked.generation:
            self._end_generation(tracked, gap)

    def rewound(self, tracked: FollowedDatabase, reason: str) -> None:
        """Go back to the journal's state: what was spooled last is gone. Only the follower's thread may call this."""
        row = self._journal.database_by_id(tracked.row_id)
        if tracked.generation is None or row.follow is None or row.generation != tracked.generation:
            return  # that history has ended anyway
        state, bridge = parse_follow_state(row.follow), tracked.bridge
        tracked.go_back(state, row.rewinds)
        if bridge is not None:
            self.leave(tracked, bridge.gap)
            return
        tracked.base, position = tracked.base.wanting("the spool was read again"), str(state.stream.position)
        _log.warning("spool_read_again", database=tracked.name, position=position, reason=reason)

    def leave(self, tracked: FollowedDatabase, gap: Gap) -> None:
        """Bridge a gap that a look has found, or end the generation. All such gaps are handled here."""
        if gap.blocked is not None:
            other_salts = partial(has_other_salts, tracked, gap.blocked)
            self._end_generation(tracked, gap, once="the WAL has restarted", may_begin=other_salts)
        elif self._begin_bridge(tracked, gap):
            remedy = f"{gap.remedy and gap.remedy + '; '}the pages that differ are shipped, and the generation goes on"
            self._note(tracked, StateReport(DatabaseState.DEGRADED, gap.reason), remedy)
        else:
            self._end_generation(tracked, gap)

    def _end_generation(
        self, tracked: FollowedDatabase, gap: Gap, *, once: str = "", may_begin: Callable[[], bool] = lambda: True
    ) -> None:
        """End the generation. The next begins after its delay, once ``may_begin`` allows it; ``once`` names that."""
        state, reason = tracked.bridge.old if tracked.bridge is not None else tracked.state, gap.reason
        position = str(state.stream.position) if state is not None else ""
        self._journal.end_generation(tracked.row_id, gap, self._environment.wall_ms())
        now_s = time.monotonic()
        first_s = self._environment.limits.generation_delay_s
        following = tracked.next_generation.after_end(reason, now_s, first_s=first_s, may_begin=may_begin)
        tracked.end_generation(following, is_doubtful=gap.kind is GapKind.DOUBT)
        wait_s = tracked.next_generation.wait_s(now_s)
        _log.warning(
            "generation_ended",
            database=tracked.name,
            position=position,
            kind=str(gap.kind),
            reason=reason,
            next_base_in_s=round(wait_s),
        )
        coming = f"a new base is taken in {wait_s:.0f} s" if wait_s else "a new base is taken"
        hints = (coming, once and f"once {once}", gap.remedy and f"to avoid such gaps: {gap.remedy}")
        remedy = "; ".join(filter(None, hints))
        self._note(tracked, StateReport(DatabaseState.DEGRADED, reason), remedy)
        tracked.fail_requests(TransientError(f"the generation of {tracked.name} ended: {reason}"))
        self._schedule.at(tracked, wait_s)

    def _suspend(self, tracked: FollowedDatabase, error: WalsyncdError) -> None:
        """Report a database that can't be looked at, and try it later. The others are not affected."""
        tracked.drop_pending()
        tracked.fail_requests(error)
        if isinstance(error, MissingError):
            gap = Gap.of(GapKind.REPLACED, "{problem}", problem=error.message)
            if tracked.generation and tracked.bridge is None and not self._begin_bridge(tracked, gap):
                self._end_generation(tracked, gap)  # else what comes in its place is compared with what was shipped
            self._note(tracked, StateReport(DatabaseState.MISSING, error.message), error.hint)
            self._schedule.at(tracked, SLOW_LOOK_S)
            return
        state = DatabaseState.REFUSED if isinstance(error, RefusedError) else DatabaseState.FAILING
        self._note(tracked, StateReport(state, error.message), error.hint)
        self._schedule.failed(tracked)

    def _well(self, tracked: FollowedDatabase) -> None:
        self._schedule.well(tracked)
        cause, remedy = tracked.trouble(BASE_REMEDY)
        well = DatabaseState.COPYING_BASE if tracked.base.wanted else DatabaseState.FOLLOWING
        self._note(tracked, StateReport(DatabaseState.DEGRADED if cause else well, cause), remedy if cause else "")

    def _note(self, tracked: FollowedDatabase, report: StateReport, remedy: str) -> None:
        if report == tracked.report or not self._schedule.may_note(tracked):
            return
        state, cause = report.state, report.cause
        self._notes.add(StateNote(tracked.row_id, state, cause, remedy, self._environment.wall_ms()))
        tracked.report = report
        if state.is_suspended:
            _log.warning("database_suspended", database=tracked.name, state=str(state), cause=cause, remedy=remedy)


def _dismissed(tracked: FollowedDatabase) -> TransientError:
    return TransientError(f"{tracked.name} is not in the configuration any more")
