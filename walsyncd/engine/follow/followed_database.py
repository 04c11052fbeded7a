"""One database, as the daemon holds it in memory. The journal holds what must outlive the process.

Which thread may write what:

====================================  ======================================================================
``mailbox``                           any thread, by its methods
``wal_pairs``, ``presence``           any thread, by their methods; used by the event pump and the follower
``pace``                              any thread, but only through the ``Schedule``, which has the lock
all others                            the follower's thread; before ``Schedule.admit``, the thread that adds the
                                      database; in ``release``, the thread that stops the daemon, after the others ended
====================================  ======================================================================

Other threads reach the follower's thread through ``Follower.request`` and ``Follower.interrupt``. Any thread may read
``spec``, ``belief``, ``base``, ``rewinds`` and ``report``: each is one frozen value.

What the daemon believes about a database (``belief``) changes in ``apply`` and nowhere else, except when a generation
begins (``begin``) or ends (``end_generation``), when the daemon starts (``resume``), when a bridge over a gap follows
the WAL again (``follow_again``, ``follow_from``), and when the journal takes the database's spool back (``go_back``).
What a look collected of an unfinished transaction can be given up at any time (``drop_pending``).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from walsyncd.adapters.files.source import (
    OpenFile,
    Role,
    hot_journal,
    open_file,
    side_path,
)
from walsyncd.config import DatabaseSpec
from walsyncd.core.follow.base_need import BaseNeed
from walsyncd.core.follow.database_state import DatabaseState, StateReport
from walsyncd.core.follow.evidence import Evidence
from walsyncd.core.follow.follow_state import FollowState
from walsyncd.core.follow.look_pace import LookPace
from walsyncd.core.follow.next_generation import NextGeneration
from walsyncd.core.follow.other_path import OtherPath
from walsyncd.core.send.pacing import BURST, Bucket
from walsyncd.core.stored.layout import ManifestKey, parse_key
from walsyncd.engine.follow.presence import Presence
from walsyncd.engine.follow.segment_builder import LongTransaction
from walsyncd.engine.follow.step import Belief, Bridging, PageScans, Step
from walsyncd.engine.follow.wal_pairs import WalPairs
from walsyncd.engine.read_ahead.deferred_look import DeferredLook
from walsyncd.engine.read_ahead.reading import Reading
from walsyncd.engine.threads.boundary import boundary
from walsyncd.engine.threads.examination import Examination
from walsyncd.engine.threads.mailbox import Mailbox
from walsyncd.errors import FaultError, RefusedError, TransientError, WalsyncdError

TOLD_FAILURES = 3
FAST_S = 10.0  # for so long after a look at a fast writer, no look is put off


@dataclass(slots=True)
class FollowedDatabase:
    """A database being followed; see the head of this file.

    ``belief`` is what looks have found. ``reading`` is what is read ahead of that; it is a cache, and looks begin, take
    and drop it. ``deferred`` is the next look while it is put off. ``was_deferred``: the last look was put off, and the
    writer was slow. ``rewinds`` counts how often the journal has taken the spool back; what was begun before such a
    rewind is void. ``gaps`` counts the gaps that were bridged; no base or scan is valid across a gap. ``bridge`` is the
    bridge under way. ``proven_ms`` (since 1970) is the last moment for which ``state`` was proven to be the newest, or
    0 if no look has shown that yet. ``scans`` ships changes while there is no WAL. Before a generation begins,
    ``examination`` finds out whether an existing generation is continued. ``report`` is the last state that was
    reported, and ``notes`` limits how many more may be reported now.
    """

    spec: DatabaseSpec
    row_id: int
    wal_pairs: WalPairs
    presence: Presence = field(init=False, compare=False)
    belief: Belief = field(default_factory=Belief)
    reading: Reading | None = None
    deferred: DeferredLook | None = None
    was_deferred: bool = False
    hastens_until_s: float = 0.0
    """Until this moment (monotonic) no look is put off, because the writer is fast."""
    base: BaseNeed = field(default_factory=BaseNeed)
    next_generation: NextGeneration = field(default_factory=NextGeneration)
    examination: Examination | None = None
    rewinds: int = 0
    gaps: int = 0
    bridge: Bridging | None = None
    scans: PageScans | None = None
    proven_ms: int = 0
    report: StateReport = field(default_factory=lambda: StateReport(DatabaseState.NEW))
    pace: LookPace = field(default_factory=LookPace)
    mailbox: Mailbox = field(default_factory=Mailbox)
    notes: Bucket = field(default_factory=lambda: Bucket(BURST, 0.0))

    def __post_init__(self) -> None:
        own_only = self.spec.is_match
        self.presence = Presence(self.spec.path, wanted=self.spec.presence, own_only=own_only)
        self.wal_pairs.own_only = own_only

    @property
    def path(self) -> Path:
        """The database file."""
        return self.spec.path

    def open(self, role: Role = Role.DATABASE) -> OpenFile | None:
        """Open the file that the path names now, as ``open_file`` does. Returns None if there is no file."""
        path = self.path if role is Role.DATABASE else side_path(self.path, role)
        return open_file(path, own_only=self.spec.is_match)

    def needs_bases(self) -> bool:
        """Whether only bases can store changes now: there is no WAL, and no page map to compare the file with."""
        is_rollback = self.state is not None and self.state.mode == "rollback"
        return is_rollback and (self.scans is None or not self.scans.has_map())

    def has_hot_journal(self) -> bool:
        """Whether a rollback journal waits to be played back."""
        return hot_journal(self.path, own_only=self.spec.is_match)

    @property
    def name(self) -> str:
        """The name of the replica's folder."""
        return self.spec.name

    @property
    def generation(self) -> str | None:
        """The current generation, or None between two generations."""
        state = self.bridge.old if self.bridge is not None else self.state
        return None if state is None else state.stream.generation

    def unbroken(self, generation: str) -> tuple[str, int, int]:
        """Return what stays equal as long as nothing is missed in ``generation``."""
        return generation, self.gaps, self.rewinds

    # -- what the daemon believes -----------------------------------------------------------------------------------

    @property
    def state(self) -> FollowState | None:
        """The follow state, or None between two generations."""
        return self.belief.state

    @property
    def evidence(self) -> Evidence:
        """What looks have found beyond the state."""
        return self.belief.evidence

    @property
    def pending(self) -> LongTransaction | None:
        """The transaction whose commit was not read yet."""
        return self.belief.pending

    @property
    def other_path(self) -> OtherPath:
        """The signs of an application that uses another path."""
        return self.belief.other_path

    def apply(self, step: Step) -> None:
        """Believe what ``step`` found, now that it is durable.

        A gap changes nothing but the pending transaction and the signs of another path. The follower then bridges it or
        ends the generation.
        """
        if step.bridged and step.gap is None:
            self.drop_bridge()
        self.belief = self.belief.after(step)
        if step.gap is not None:
            self.drop_pending()
            return
        if step.life_ended:
            self.wal_pairs.pop_finished()
        if step.known_upto is not None:
            self.wal_pairs.confirm_known(step.known_upto)
        if step.base_wanted:
            since_s = self.base.unbased_since_s
            unbased_since_s = time.monotonic() if since_s is None else since_s
            self.base = replace(self.base, wanted=step.base_wanted, unbased_since_s=unbased_since_s)
        if self.scans is not None:
            self.scans.applied(step)

    def begin(self, state: FollowState, reason: str, now_s: float) -> None:
        """Begin a generation at ``state``, which needs a base. Without a WAL, no base holds the file until then."""
        self.drop_pending()
        self.belief = self.belief.at(state, verified=True)
        self.base = BaseNeed(wanted=reason, unbased_since_s=now_s if state.mode == "rollback" else None)
        self.next_generation = self.next_generation.after_begin(now_s)

    def end_generation(self, following: NextGeneration, *, is_doubtful: bool = False) -> None:
        """Drop everything that belongs to the generation, and suspend its WAL pairs. ``following`` is the next one.

        ``is_doubtful``: see ``NextGeneration``. The next generation is also doubtful if it is known that somebody wrote
        over pages.
        """
        state = self.bridge.old if self.bridge is not None else self.state
        is_doubtful = is_doubtful or (state is not None and state.overwritten is not None)
        self.forget()
        self.wal_pairs.rest()
        self.next_generation = replace(following, is_doubtful=is_doubtful)

    def forget(self) -> None:
        """Drop everything that belongs to the generation."""
        self.drop_pending()
        self.drop_bridge()
        self.drop_scan()
        self.belief, self.base = self.belief.at(None), BaseNeed()

    def go_back(self, state: FollowState, rewinds: int) -> None:
        """Continue from the journal's current state, as after a start of the daemon. A base under way is void."""
        self.drop_pending()
        self.drop_bridge()
        self.drop_scan()
        self.belief, self.rewinds = self.belief.at(state), rewinds
        self.base = replace(self.base, under_way=False)

    def resume(self, state: FollowState) -> None:
        """Continue from the journal's state, at a start of the daemon. Nothing was verified yet."""
        self.belief = self.belief.at(state)

    def resume_base(self, base_key: str, stored_s: float, *, has_map: bool) -> None:
        """Want a base if the last one lacks something.

        ``stored_s`` is when the last base was stored (monotonic). If there is no base, ``base_key`` is empty.
        ``has_map``: the pages that changed since then are known, or will be found.
        """
        assert self.state is not None
        position, key, begun = self.state.stream.position, parse_key(base_key), self.state.begun
        if begun is not None:
            self.note_base(begun_epoch=begun.epoch, begun_bytes=begun.size)
        if not base_key.startswith(position.generation):
            self.base = self.base.wanting("the generation has no base yet")
        elif has_map:
            return
        elif self.state.mode == "rollback" and isinstance(key, ManifestKey) and key.epoch < position.epoch:
            self.note_base(wanted="the database changed", unbased_since_s=stored_s)

    def base_failed(self, failures: int, reason: str) -> None:
        """Note that a base was abandoned for the ``failures``th time in a row. A single failure is not reported."""
        problem = f"no base could be taken {failures} times: {reason}" if failures >= TOLD_FAILURES else ""
        self.note_base(under_way=False, problem=problem)

    def base_waits(self) -> None:
        """Note that a base is due, and waits for the WAL to restart."""
        if self.base.waits_since_s is None:
            self.note_base(waits_since_s=time.monotonic(), hindrance="")
        self.note_base(awaits_restart=True)

    def begin_bridge(self, bridge: Bridging) -> None:
        """Begin to bridge a gap that was found. Nothing that was begun before is valid across it."""
        self.drop_bridge()
        self.drop_scan()
        self.bridge = bridge
        self.gaps += 1
        self.follow_again()
        self.base = replace(self.base, under_way=False, awaits_restart=False)

    def follow_again(self) -> None:
        """Drop what is known of the WAL. The bridge that is under way begins to follow the WAL again."""
        self.drop_pending()
        self.belief = self.belief.at(None)
        self.wal_pairs.rest()

    def follow_from(self, state: FollowState) -> None:
        """Follow from ``state`` on, which is before the first frame of the WAL's current incarnation."""
        self.drop_pending()
        self.belief = self.belief.at(state, verified=True)

    def release(self) -> None:
        """Close every descriptor, because the daemon stops."""
        self.drop_reading()
        self.drop_bridge()
        self.drop_scan()
        self.wal_pairs.clear()

    def drop_bridge(self) -> None:
        """Give up the bridge that is under way."""
        if self.bridge is not None:
            self.bridge.drop()
        self.bridge = None

    def drop_scan(self) -> None:
        """Give up the scan that is under way."""
        if self.scans is not None:
            self.scans.drop()

    def note_base(self, **changes: Any) -> None:
        """Change what is known of the generation's bases (``BaseNeed``)."""
        self.base = replace(self.base, **changes)

    def drop_pending(self) -> None:
        """Give up what was collected of an unfinished transaction, and what was read ahead. It will be read again."""
        self.drop_reading()
        if self.pending is not None:
            self.pending.collector.drop()
            self.belief = replace(self.belief, pending=None)

    def drop_reading(self) -> None:
        """Give up what was read ahead."""
        reading, self.reading, self.deferred = self.reading, None, None
        if reading is not None:
            reading.drop()

    def end_deferral(self) -> None:
        """Stop reading for a look that was put off, because the look begins now."""
        deferred, self.deferred = self.deferred, None
        self.was_deferred = deferred is not None and not deferred.is_fast
        if deferred is not None:
            deferred.end()
            if deferred.is_fast:
                self.hastens_until_s = time.monotonic() + FAST_S

    # -- who waits --------------------------------------------------------------------------------------------------

    def do_interrupts(self) -> None:
        """Carry out the interrupts. If the journal prevents an interrupt, it stays; after a fault it is given up."""
        while (then := self.mailbox.next_interrupt()) is not None:
            try:
                with boundary("interrupt", database=self.name):
                    then(self)
            except FaultError:
                self.mailbox.interrupt_done()
                raise
            self.mailbox.interrupt_done()

    def other_path_error(self) -> RefusedError | None:
        """Return the error if the application uses another path, so that no commit arrives here. Otherwise None."""
        found = self.other_path
        return RefusedError(found.cause, hint=found.remedy) if found.is_certain else None

    def trouble(self, base_remedy: str) -> tuple[str, str]:
        """Return why the replica may lack something although the last look succeeded, and the remedy.

        Both texts are empty if the replica lacks nothing.
        """
        error = self.other_path_error()
        if error is not None:
            return error.message, error.hint
        if self.scans is not None and (trouble := self.scans.trouble()) is not None:
            return trouble
        return self.base.problem, base_remedy

    def answer(self, asked: int) -> None:
        """Answer the first ``asked`` requests. The state holds all that was committed before they came, and arrives."""
        if (error := self.other_path_error()) is not None:
            self.fail_requests(error)
        for request in self.mailbox.take(asked):
            if not request.done.set_running_or_notify_cancel():
                continue
            try:
                with boundary("answer_request", database=self.name):
                    answer = request.then(self)
            except WalsyncdError as error:  # it belongs to the caller who asked
                request.done.set_exception(error)
            else:
                request.done.set_result(answer)

    def awaits_examination(self) -> StateReport | None:
        """Return the state to report if no generation may begin yet. Only the follower's thread may call this."""
        if self.examination is None or not self.examination.must_wait():
            return None
        if self.examination.is_stopped:
            self.fail_requests(TransientError(f"{self.name} has no generation yet, and the daemon stops"))
        cause = self.examination.trouble()
        return StateReport(DatabaseState.DEGRADED, cause) if cause else self.report

    def fail_requests(self, error: WalsyncdError) -> None:
        """Fail all requests with the reason why there is nothing to wait for."""
        for request in self.mailbox.take():
            if request.done.set_running_or_notify_cancel():
                request.done.set_exception(error)
