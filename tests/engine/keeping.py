"""Follows by hand through everything: several generations, bases, and a daemon that dies and is started again.

It is built on `Following`. All that it stores is compared with the oracle's history as soon as it is in the journal.
"""

from __future__ import annotations

import copy
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.following import Following
from tests.engine.oracle import History, Place, Segment, Stored, committed
from walsyncd.adapters.files.inotify import Event, Kind
from walsyncd.adapters.files.source import FileIdentity, OpenFile, Role, hot_journal, open_file
from walsyncd.adapters.journal.journal import Journal, ObjectKind, ObjectRow
from walsyncd.core.follow.follow_state import FollowState, format_follow_state
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.limits import DEFAULT_LIMITS, Limits
from walsyncd.core.stored.segment import decode_body
from walsyncd.engine.follow.begin_generation import begin_step
from walsyncd.engine.follow.file_facts import file_facts
from walsyncd.engine.follow.look import take_step
from walsyncd.errors import MissingError

STEPS_MAX = 1000


@dataclass(slots=True)
class Copying:
    """A base under way, half of whose file was read."""

    generation: str
    start: Place
    file: OpenFile
    size: int
    identity: FileIdentity
    content: bytes


class Keeping(Following):
    """Follows a database through whatever happens to it."""

    def __init__(
        self, path: Path, folder: Path, history: History | None = None, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        super().__init__(path, folder, limits=limits)
        self.history = history or History()
        self.gaps: Counter[str] = Counter()
        self.alive = True
        self.stored: Stored | None = None
        self.bases = 0
        self.positions = 0
        self._generations = 0
        self._seen_id = 0
        self._base_wanted = False
        self._copying: Copying | None = None
        self._saved: tuple[Stored | None, bool] | None = None

    # -- what applications do ----------------------------------------------------------------------------------------

    def note(self, *, foreign: bool = False) -> None:
        """Note that the database may be in another state now. ``foreign`` means that it was not a commit."""
        self.history.note(committed(self.path), foreign=foreign)

    def watch_over(self, application: SqliteProcess, *statements: str) -> str:
        """Run each statement, and look after each. Return the first gap found, or ""."""
        for statement in statements:
            application.execute(statement)
            self.note()
            if gap := self.keep_up():
                return gap
        return ""

    # -- looking ----------------------------------------------------------------------------------------------------

    def keep_up(self) -> str:
        """Look, and do what the look asks for: a new generation, a base. Return the gap that it found, or ""."""
        if self.stored is None and not self._begin_generation():
            return ""
        gap = self._look_through()
        if gap:
            self._end_generation(gap)
            return gap
        if self.stored is not None and self._base_wanted:
            self.take_base()
        return ""

    def _look_through(self) -> str:
        for number in range(STEPS_MAX):
            try:
                step = self.step()
            except MissingError as error:
                return error.message
            if step.gap:
                return step.gap.reason
            self._take_in()
            self._base_wanted = self._base_wanted or bool(step.base_wanted)
            if step.caught_up and step.again_s != 0:
                self._assert_current()
                return ""
            if step.again_s:
                self.ahead_ms += int(1000 * step.again_s)
            elif step.again_s is None:
                self._wait(number)
        raise AssertionError(f"not caught up: {step}")

    def _wait(self, number: int) -> None:
        """Wait for what is under way, finally so long that it can't be under way any more."""
        time.sleep(0.001)
        if number > STEPS_MAX // 5:
            self.ahead_ms += 1000

    def _assert_current(self) -> None:
        """Assert that the head is the database once all is quiet."""
        if self.stored is not None and self.stored.head is not None and self.state.mode == "wal":
            assert self.stored.head == self.history.current, "a look has caught up, but the head is not the database"

    def _take_in(self) -> None:
        assert self.stored is not None
        for row in self.journal.pending(self.row_id):
            if row.id > self._seen_id:
                self._seen_id = row.id
                self.stored.add(self._segment(row))

    def _segment(self, row: ObjectRow) -> Segment:
        assert row.kind is ObjectKind.SEGMENT
        assert self.state.stream.stamp is not None
        content = b"".join(x for x in decode_body([self.journal.body(row)]) if isinstance(x, bytes))
        return Segment(row.epoch, row.first, row.last, self.state.stream.stamp.page_size, content)

    # -- generations ------------------------------------------------------------------------------------------------

    def _begin_generation(self) -> bool:
        self._generations += 1
        generation = f"20261122T105600Z-{self._generations:08x}"
        state = self._first_state(generation)
        if state is None:
            return False
        self.journal.begin_generation(self.row_id, generation, "test", format_follow_state(state), 0)
        self.tracked.begin(state, "", 0)
        self.stored = Stored(generation, self.history)
        self._base_wanted = True
        return True

    def _first_state(self, generation: str) -> FollowState | None:
        for _ in range(STEPS_MAX):
            try:
                step = begin_step(self.tracked, self.environment, generation)
            except MissingError:
                return None
            if step.state is not None:
                return step.state
            self.tracked.apply(step)
            time.sleep(0.001)
        raise AssertionError("no generation begins")

    def _end_generation(self, reason: str) -> None:
        self.gaps["".join("N" if letter.isdigit() else letter for letter in reason)] += 1
        self.journal.end_generation(self.row_id, Gap.of(GapKind.OTHER, "{reason}", reason=reason), 0)
        self.tracked.forget()
        self.tracked.wal_pairs.rest()
        self._drop_copy()
        self.positions += self.stored.positions if self.stored is not None else 0
        self.stored = None

    # -- bases ------------------------------------------------------------------------------------------------------

    def take_base(self) -> None:
        """Copy a base from start to end, with nothing happening meanwhile."""
        if self._copying is None:
            self.begin_base()
        self.finish_base()

    def begin_base(self) -> None:
        """Read the first half of a base, right after a look that had caught up."""
        file = open_file(self.path)
        if file is None or self.stored is None:
            return
        identity = file.identity()
        state = self.state
        ours = file_facts(identity, self.boot_id, None).is_file(state.file)
        is_hot = state.mode == "rollback" and hot_journal(self.path)
        if state.start_epoch != state.stream.epoch or not ours or is_hot:
            file.close()
            return
        self.tracked.note_base(under_way=True)
        start = (state.start_epoch, state.start_frame)
        half = file.pread(0, identity.size // 2)
        self._copying = Copying(state.stream.generation, start, file, identity.size, identity, half)

    def finish_base(self) -> None:
        """Read the rest, look for N, and have the base judged."""
        copying = self._copying
        if copying is None or self.stored is None:
            return
        rest = copying.file.pread(len(copying.content), copying.size - len(copying.content))
        image = (copying.content + rest).ljust(copying.size, b"\0")
        is_quiet = copying.file.identity() == copying.identity and not hot_journal(self.path)
        gap = self._look_through()
        if gap:
            self._end_generation(gap)
            return
        self._drop_copy()
        stream = self.state.stream
        place = (stream.epoch, stream.frame)
        if self.state.mode == "rollback" and not (is_quiet and place == copying.start):
            return
        self.stored.crown(image, copying.start, place)
        self._base_wanted = False
        self.bases += 1
        self._assert_current()

    def _drop_copy(self) -> None:
        if self._copying is not None:
            self._copying.file.close()
            self._copying = None
            self.tracked.note_base(under_way=False)

    # -- our own absence --------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End the daemon at once."""
        self._drop_copy()
        self.die()
        self.alive = False

    def start(self) -> None:
        """Start the daemon with nothing but the journal."""
        if self.stored is not None:
            self.restart()
        else:
            self._open()
        self.alive = True

    def lose_a_step(self) -> None:
        """Take a step whose transaction fails in the journal."""
        if self.stored is not None:
            take_step(self.tracked, self.environment)
            self.tracked.drop_pending()

    def lose_events(self) -> None:
        """Overflow the kernel's queue."""
        self.watcher.drain()
        self.tracked.wal_pairs.note(Event(self.path, Role.DATABASE, Kind.OVERFLOW))

    def save_journal(self) -> None:
        """Keep a copy of the state directory. The daemon must have ended."""
        self._saved = copy.deepcopy(self.stored, {id(self.history): self.history}), self._base_wanted
        self._swap_state("state", "saved")

    def put_journal_back(self) -> None:
        """Restore the state directory from the copy. The daemon must have ended."""
        if self._saved is None:
            return
        saved, self._base_wanted = self._saved
        self.stored = copy.deepcopy(saved, {id(self.history): self.history})
        self._swap_state("saved", "state")

    def _swap_state(self, source: str, target: str) -> None:
        self.journal.close()
        shutil.rmtree(self.folder / target, ignore_errors=True)
        shutil.copytree(self.folder / source, self.folder / target)
        self.journal = Journal.open(self.folder / "state")
        pending = self.journal.pending(self.row_id)
        self._seen_id = max((row.id for row in pending), default=0)
