"""Which databases to look at, and when: at once if an event woke them, else at their scheduled time."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TypeAlias

from walsyncd.core.limits import DEFAULT_LIMITS, Limits
from walsyncd.core.send.pacing import due_ms, take
from walsyncd.engine.follow.environment import Environment
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.step import Step
from walsyncd.engine.read_ahead.deferred_look import DeferredLook
from walsyncd.engine.threads.boundary import boundary
from walsyncd.engine.threads.due_queue import DueQueue
from walsyncd.engine.threads.mailbox import Request
from walsyncd.errors import WalsyncdError

SLOW_LOOK_S = 300.0
SLOW_LOOK_GRID_S = 10.0  # slow looks are aligned to this grid, so that thousands of databases seldom wake us
UNWATCHED_LOOK_S = 1.0
DEFER_S_MIN = 0.02  # a look that is due sooner is not deferred
ROUND_MAX = 100  # databases in one round, and so in one transaction of the journal

GATHER_S = 0.01  # what was found waits no longer than this; fdatasync of a good disk takes 1 to 5 ms
OFTEN, OFTEN_S = 8, 0.1  # so many looks found something within that time: another one is likely within GATHER_S

# A database, its step, and how many requests had come before the look.
Taken: TypeAlias = tuple[FollowedDatabase, Step, int]


class Schedule:
    """Thread-safe. One thread takes, and any may wake. A database is due at most once, at its earliest time."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._note_interval_ms = limits.note_interval_ms
        self._condition = threading.Condition()
        self._due: DueQueue[int] = DueQueue()
        self._unseen: dict[int, float] = {}
        """By database, when the first look after the last complete look was due. Absent if nothing is unseen."""
        self._tracked: dict[int, FollowedDatabase] = {}
        self._written: set[int] = set()
        """The databases that are due only because their WALs were written since the last look."""
        self._stopping = False

    def wake(self, databases: Iterable[FollowedDatabase]) -> None:
        """Look at these as soon as their pace allows it. Their pauses between repeated looks start at the shortest."""
        now = time.monotonic()
        with self._condition:
            for tracked in databases:
                self._wake(tracked, now)

    def written(self, databases: Iterable[FollowedDatabase]) -> None:
        """Look at these as ``wake`` does. Nothing but writes to their WALs has happened, so the look may be put off."""
        now = time.monotonic()
        with self._condition:
            for tracked in databases:
                is_due = tracked.row_id in self._due and tracked.row_id not in self._written
                self._wake(tracked, now)
                if not is_due:
                    self._written.add(tracked.row_id)

    def admit(self, tracked: FollowedDatabase) -> None:
        """Look now at a database that has been added, and carry out the requests that came before."""
        with self._condition:
            tracked.mailbox.held_back = False
            self._schedule(tracked, time.monotonic())

    def at(self, tracked: FollowedDatabase, delay_s: float) -> None:
        """Look at the database in ``delay_s`` seconds, unless it is due before."""
        with self._condition:
            self._schedule(tracked, time.monotonic() + delay_s)

    def hasten(self, row_id: int) -> None:
        """Look at a database now if it is due at some time, even if it rests. Its reading ahead is over."""
        with self._condition:
            if (tracked := self._tracked.get(row_id)) is not None:
                self._schedule(tracked, time.monotonic())

    def rest(self, tracked: FollowedDatabase, until_s: float) -> None:
        """Keep events from waking the database before ``until_s`` (monotonic)."""
        with self._condition:
            tracked.pace = tracked.pace.resting(until_s)

    def found(self, tracked: FollowedDatabase, frames: int) -> None:
        """Set the pace after a look that found ``frames`` new frames, or that caught up and found no frame (0)."""
        with self._condition:
            tracked.pace = tracked.pace.found(frames, time.monotonic())

    def relook(self, tracked: FollowedDatabase) -> bool:
        """Look again because something is written and not published. Returns False after enough such looks."""
        with self._condition:
            now_s = time.monotonic()
            delay_s = tracked.pace.relook_s(now_s)
            if delay_s is None:
                return False
            tracked.pace = tracked.pace.relooked()
            self._schedule(tracked, now_s + delay_s)
            return True

    def failed(self, tracked: FollowedDatabase) -> None:
        """Schedule the next attempt after a failed look, later each time."""
        with self._condition:
            self._schedule(tracked, time.monotonic() + tracked.pace.failure_delay_s())
            tracked.pace = tracked.pace.failed()

    def well(self, tracked: FollowedDatabase) -> None:
        """Note that a look succeeded."""
        with self._condition:
            tracked.pace = tracked.pace.well()

    def may_note(self, tracked: FollowedDatabase) -> bool:
        """Whether a state of the database may be written to the journal now.

        If the state changes too often, the next look comes when a state may be written again, and that look finds the
        state to write.
        """
        now_ms = time.monotonic() * 1000
        taken = take(tracked.notes, now_ms=now_ms, interval_ms=self._note_interval_ms)
        if taken is None:
            self.at(tracked, (due_ms(tracked.notes, interval_ms=self._note_interval_ms) - now_ms) / 1000)
            return False
        tracked.notes = taken
        return True

    def request(self, tracked: FollowedDatabase, request: Request) -> None:
        """Look at the database now, for a caller that waits."""
        tracked.mailbox.ask(request)
        with self._condition:
            self._schedule(tracked, time.monotonic())

    def interrupt(self, tracked: FollowedDatabase, then: Callable[[FollowedDatabase], object]) -> None:
        """Look at the database now. Before that, run ``then`` in the thread that calls ``take``."""
        tracked.mailbox.interrupt(then)
        with self._condition:
            self._schedule(tracked, time.monotonic())

    def put_off(self, tracked: FollowedDatabase, until_s: float) -> None:
        """Look at the database at ``until_s`` (monotonic), unless it is due before. Until then something is unseen."""
        with self._condition:
            self._unseen.setdefault(tracked.row_id, time.monotonic())
            self._schedule(tracked, until_s)

    def look_again(self, tracked: FollowedDatabase, step: Step, environment: Environment) -> None:
        """Look at the database again when ``step``, which the database has applied, asks for that."""
        if step.rest_until_s is not None:
            self.rest(tracked, step.rest_until_s)
        if step.frames or step.caught_up:
            self.found(tracked, step.frames)
        provisional = tracked.evidence.provisional
        if rest_s := _rest_s(tracked, step):
            self.rest(tracked, time.monotonic() + rest_s)
            self.at(tracked, rest_s)
        elif step.again_s is not None:
            self.at(tracked, step.again_s)
        elif self._defer(tracked, deferred_look(tracked, step, environment)) or (step.moving and self.relook(tracked)):
            pass
        elif provisional is not None:
            self.at(tracked, (provisional.until_ms - environment.monotonic_ms()) / 1000)
        elif tracked.wal_pairs.watched:
            due = time.monotonic() + SLOW_LOOK_S
            grid = math.ceil(due / SLOW_LOOK_GRID_S) * SLOW_LOOK_GRID_S
            self.at(tracked, grid - time.monotonic())
        else:
            self.at(tracked, UNWATCHED_LOOK_S)

    def _defer(self, tracked: FollowedDatabase, look: DeferredLook | None) -> bool:
        """Put the next look off. Returns whether something was committed meanwhile, so that the look is now scheduled.

        What was written during the last look is read here, so these writes need no other look. If nothing can be read,
        because nobody uses the wal-index, the look is not put off, and no look is caused by that.
        """
        if look is None:
            return False
        tracked.deferred, tracked.reading = look, look.reading
        with suppress(WalsyncdError), boundary("read_ahead", database=tracked.name):
            look.read()
            if not look.pause_s and (look.reading.size or not look.reading.is_over):
                with self._condition:
                    if tracked.row_id in self._written and not look.is_due:
                        self._written.discard(tracked.row_id)
                        self._due.discard(tracked.row_id)
                if look.is_due or look.reading.size:
                    self.put_off(tracked, time.monotonic() if look.is_due else look.until_s)
                return bool(look.is_due or look.reading.size)
        tracked.drop_reading()
        return False

    def take(self) -> list[FollowedDatabase]:
        """Wait for databases that are due and return them. Returns an empty list if the schedule was stopped."""
        with self._condition:
            while not self._stopping:
                now = time.monotonic()
                taken = self._take_due(now)
                if taken:
                    return taken
                first = self._due.first()
                self._condition.wait(None if first is None else first - now)
            return []

    def take_more(self, held: Collection[int], until_s: float) -> list[FollowedDatabase]:
        """Wait until ``until_s`` (monotonic) for other databases that are due, and return them.

        Returns an empty list if no other is due, or if one of ``held`` (row ids) is due again or the schedule stops.
        """
        with self._condition:
            while not self._stopping and (now := time.monotonic()) < until_s:
                if any((due := self._due.get(row_id)) is not None and due <= now for row_id in held):
                    return []
                taken = self._take_due(now)
                if taken:
                    return taken
                self._condition.wait(min(until_s, self._due.first() or until_s) - now)
            return []

    def overdue_s(self) -> float:
        """Return for how long the earliest database has been due without being taken, or 0 if none is due."""
        with self._condition:
            first = self._due.first()
        return 0.0 if first is None else max(0.0, time.monotonic() - first)

    def seen(self, tracked: FollowedDatabase, moment_s: float | None = None) -> None:
        """Note that a look has seen everything that was committed when it began.

        With ``moment_s`` (monotonic), what was committed after that moment may still be unseen.
        """
        with self._condition:
            self._unseen.pop(tracked.row_id, None)
            if moment_s is not None:
                self._unseen[tracked.row_id] = moment_s

    def unseen_since(self, tracked: FollowedDatabase, moment_s: float) -> None:
        """Note that no look has seen something that was committed at ``moment_s`` (monotonic)."""
        with self._condition:
            self._unseen[tracked.row_id] = min(moment_s, self._unseen.get(tracked.row_id, moment_s))

    def unseen_s(self) -> dict[int, float]:
        """Return, by database, for how long a commit may have been unseen. Databases without one are absent."""
        now = time.monotonic()
        with self._condition:
            since = {row_id: due for row_id, due in self._due.items() if due < now}
            for row_id, due in self._unseen.items():
                since[row_id] = min(due, since.get(row_id, due))
        return {row_id: now - due for row_id, due in since.items()}

    def stop(self) -> None:
        """End the waiting in ``take``."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()

    def forget(self, tracked: FollowedDatabase) -> None:
        """Drop a database that is not followed any more."""
        with self._condition:
            self._due.discard(tracked.row_id)
            self._written.discard(tracked.row_id)
            self._unseen.pop(tracked.row_id, None)
            self._tracked.pop(tracked.row_id, None)

    def _wake(self, tracked: FollowedDatabase, now: float) -> None:
        tracked.pace = tracked.pace.woken()
        self._schedule(tracked, max(now, tracked.pace.rest_until_s))

    def _schedule(self, tracked: FollowedDatabase, due: float) -> None:
        self._written.discard(tracked.row_id)
        if tracked.mailbox.held_back or tracked.mailbox.dismissed:
            return
        self._tracked[tracked.row_id] = tracked
        if self._due.hasten(tracked.row_id, due):  # otherwise the waiting thread wakes early enough
            self._condition.notify()

    def _take_due(self, now: float) -> list[FollowedDatabase]:
        taken: list[FollowedDatabase] = []
        while len(taken) < ROUND_MAX and (due := self._due.first()) is not None:
            row_id = self._due.pop(now)
            if row_id is None:
                break
            self._written.discard(row_id)
            self._unseen.setdefault(row_id, due)
            taken.append(self._tracked.pop(row_id))
        return taken


def deferred_look(tracked: FollowedDatabase, step: Step, environment: Environment) -> DeferredLook | None:
    """Return the next look, put off until the database may upload again, if it follows a WAL and has caught up.

    A look that must be prompt is not put off: with a base, a bridge, backpressure, or a count that is not settled.
    """
    state, evidence, wal_pair = tracked.state, tracked.evidence, tracked.wal_pairs.current
    now_s, limits = time.monotonic(), environment.limits
    if step.frames >= limits.fast_frames and not tracked.was_deferred:  # its WAL is to be read ahead, or will soon be
        return None
    if not step.caught_up or tracked.reading is not None or now_s < tracked.hastens_until_s:
        return None
    if tracked.bridge is not None or tracked.base.wanted or tracked.base.under_way or tracked.spec.backpressure:
        return None
    if not evidence.is_settled or state is None or state.cursor is None or not state.cursor.frames:
        return None
    if wal_pair is None or wal_pair.shm is None or wal_pair.ended or len(tracked.wal_pairs.queue) > 1:
        return None
    delay_s = min(limits.defer_s_max, environment.leaves_in_s(tracked.row_id))
    if delay_s < DEFER_S_MIN or not tracked.wal_pairs.watched:
        return None
    return environment.read_ahead.defer(wal_pair, state.cursor, environment.monotonic_ms, now_s + delay_s, limits)


def _rest_s(tracked: FollowedDatabase, step: Step) -> float:
    """Return for how long no look is needed, because what is committed is read ahead. Returns 0 if a look is needed.

    After that time, one look with one segment and one transaction of the journal replaces several. A look that must be
    prompt is not delayed, as in ``deferred_look``.
    """
    reading, base = tracked.reading, tracked.base
    if reading is None or not step.frames or step.gap or tracked.bridge is not None or tracked.mailbox.asked():
        return 0.0
    is_prompt = base.wanted or base.under_way or tracked.spec.backpressure
    return 0.0 if is_prompt else reading.rest_s


class Gathering:
    """If many databases commit often, a round waits some milliseconds for the commits of other databases.

    One transaction of the journal then holds all of them. This delays no reading: each database is looked at as soon as
    it is due. Only what was found waits, as it does in a round of many databases. If a database commits alone, or much,
    or somebody waits for it, its step is made durable at once. After a look that found ``fast_frames`` or more frames,
    nothing may wait. Only one thread may use this.
    """

    def __init__(self, schedule: Schedule, fast_frames: int) -> None:
        self._schedule, self._fast_frames = schedule, fast_frames
        self._found_s: deque[float] = deque(maxlen=OFTEN)

    def databases(
        self, taken: list[FollowedDatabase], steps: Sequence[Taken], before: Callable[[FollowedDatabase], None]
    ) -> Iterator[FollowedDatabase]:
        """Yield the databases of a round: those ``taken``, then others that are due soon, which are added to ``taken``.

        The caller adds each database's step to ``steps`` before it asks for the next database. ``before`` is called
        with each database that is added.
        """
        yield from taken[:]
        until_s, counted = time.monotonic() + GATHER_S, 0
        while len(taken) < ROUND_MAX and self._may_wait(steps, counted):
            counted = len(steps)
            more = self._schedule.take_more({each.row_id for each in taken}, until_s)
            if not more:
                return
            taken += more
            for tracked in more:
                before(tracked)
            yield from more

    def _may_wait(self, steps: Sequence[Taken], counted: int) -> bool:
        now_s = time.monotonic()
        self._found_s.extend(now_s for _, step, _ in steps[counted:] if step.objects)
        is_often = len(self._found_s) == OFTEN and now_s - self._found_s[0] < OFTEN_S
        return is_often and any(step.objects for _, step, _ in steps) and all(map(self._is_patient, steps))

    def _is_patient(self, taken: Taken) -> bool:
        tracked, step, asked = taken
        is_small = step.caught_up and step.frames < self._fast_frames
        is_usual = not (step.gap or step.begins or step.bridged or tracked.bridge or tracked.spec.backpressure)
        return is_small and is_usual and not asked


class UnfinishedRound:
    """What a round has not ended yet: if its thread hangs in one database's file, another thread ends it.

    Until the steps of a round are durable, nothing has happened, and the looks at the databases that were ``taken`` are
    repeated. After that the daemon must believe each step, because memory would lag behind the journal otherwise.
    """

    def __init__(self) -> None:
        self.taken: list[FollowedDatabase] = []
        self._durable: deque[Taken] = deque()

    def durable(self, steps: Iterable[Taken]) -> Iterator[Taken]:
        """Yield what is left of earlier steps, and each of ``steps``, which are durable now."""
        self._durable.extend(steps)
        while self._durable:
            yield self._durable.popleft()

    def left(self) -> list[FollowedDatabase]:
        """Return the databases to look at again. What was collected for them is dropped, and collected again."""
        for tracked in self.taken:
            tracked.drop_pending()
        return self.taken
