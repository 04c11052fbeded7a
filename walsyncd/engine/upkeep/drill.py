"""One restore drill: restores a database from storage, compares it with the live database, and has SQLite check it.

==========  ===========================================================================================
restored    the head of the current generation, from its newest base; no damage is worked around
compared    page by page with the live file, as far as that proves anything (`walsyncd.engine.upkeep.live_comparison`)
checked     ``integrity_check``, where pages can be read (`walsyncd.adapters.files.integrity`)
==========  ===========================================================================================

If a replica fails the drill, its generation ends. If the restored file equals the live file and SQLite finds damage,
then the database itself is damaged. Another base would hold the same damage, so the generation continues.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from walsyncd.adapters.files.integrity import check_integrity
from walsyncd.adapters.files.source import OpenFile
from walsyncd.core.content.comparison import is_plain
from walsyncd.core.follow.follow_state import FollowState, Stream
from walsyncd.core.restore.plan import Head, Plan
from walsyncd.core.sqlite.arrays import np
from walsyncd.core.sqlite.dbheader import HEADER_SIZE
from walsyncd.core.stored.layout import format_key
from walsyncd.core.stored.position import Position
from walsyncd.engine.restore.planner import REPLANS_MAX, find_plan, manifest_of
from walsyncd.engine.restore.replica import Replica
from walsyncd.engine.restore.restorer import BuildPlan, restore
from walsyncd.engine.upkeep.live_comparison import (
    DIFFERENT_MAX,
    Differences,
    Numbers,
    after_last_bridge,
    differences,
    encrypted_again,
    meaningless,
    still_different,
    written_between,
)
from walsyncd.errors import (
    CorruptError,
    NothingToRestoreError,
    RefusedError,
    TargetError,
    TransientError,
    VanishedError,
)

T = TypeVar("T")

DAMAGED_THEMSELVES = "the database itself is damaged, and the replica holds what it is"


class StoppedError(Exception):
    """The daemon stops, and so does the drill, which has no result."""


class NoRoomError(RefusedError):
    """The disk has too little room for a drill."""


class DrillHost(Protocol):
    """What a drill needs of the daemon. Each method may raise TransientError, or StoppedError if the daemon stops."""

    def check(self) -> None:
        """Raise StoppedError if the daemon stops."""

    def is_stopped(self) -> bool:
        """Whether the daemon stops."""

    def look(self) -> FollowState | None:
        """Return the follower's state after a look that begins now, or None if the database is not being followed."""

    def gaps(self) -> int:
        """Return the number of gaps found so far."""

    def wait_stored(self) -> bool:
        """Wait until all frames found so far are stored. Returns False if that takes too long."""

    def room_bytes(self) -> int:
        """Return how many bytes of the disk a drill may take."""

    def read_shipped(self, page_size: int, read: Callable[[OpenFile], T]) -> tuple[FollowState, T]:
        """Read the live file, which has no WAL, at a moment when it has the content of the returned state."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """The result of a drill.

    ``problem`` is empty if the drill passed. ``is_replicas`` says that the fault is the replica's.
    """

    position: Position
    manifest_key: str
    detail: str
    problem: str = ""
    is_replicas: bool = True


class DamagedReplicaError(CorruptError):
    """The replica can't be restored correctly."""


def rehearse(
    replica: Replica, generation: str, open_live: Callable[[], OpenFile | None], scratch: Path, setting: DrillHost
) -> Rehearsal:
    """Restore to ``scratch`` and check the restored file, which stays. ``open_live`` opens the live database.

    Raises DamagedReplicaError if nothing could be restored. NoRoomError, RefusedError, TransientError and StoppedError
    mean that the drill has no result.
    """
    plan = _restore(replica, generation, scratch, setting)
    setting.check()
    compared = _Comparison(replica, plan, open_live, scratch, setting)
    try:
        compared.run()
    except VanishedError as error:  # an object was compacted or pruned meanwhile
        compared.skipped = error.message
    except CorruptError as error:
        compared.problem = error.message
    found = check_integrity(scratch, is_stopped=setting.is_stopped)
    setting.check()
    checked = found.unchecked or ("; ".join(found.problems) if found.problems else "ok")
    detail = f"{compared.detail}; integrity_check: {checked}"
    problem, is_replicas = compared.problem, True
    if not problem and found.problems:
        is_replicas = bool(compared.skipped)
        problem = f"integrity_check: {found.problems[0]}"
        problem += "" if is_replicas else f": {DAMAGED_THEMSELVES}"
    return Rehearsal(plan.reached.position, format_key(plan.base), detail, problem, is_replicas)


def _restore(replica: Replica, generation: str, scratch: Path, setting: DrillHost) -> Plan:
    """Restore, with a new plan if objects vanish meanwhile. Raises DamagedReplicaError."""
    for attempt in range(1, REPLANS_MAX + 1):
        try:
            plan = find_plan(replica, Head(), generation=generation)
            restore(replica, plan, scratch, force=True, progress=_Bounds(setting))
        except (CorruptError, TargetError, NothingToRestoreError) as error:
            if isinstance(error, VanishedError) and attempt < REPLANS_MAX:
                continue
            raise DamagedReplicaError(error.message) from error
        else:
            return plan
    raise AssertionError("the last attempt returns or raises")


class _Bounds:
    """Lets a restore begin only if there is room, and ends the restore when the daemon stops."""

    def __init__(self, setting: DrillHost) -> None:
        self._setting = setting

    def begin(self, draft: BuildPlan) -> None:
        room = self._setting.room_bytes()
        if draft.space_bytes > room:
            raise NoRoomError(
                f"it takes {draft.space_bytes} bytes in the state directory, {room} can be spared",
                hint='a larger disk for the state directory, or verify_interval = "off" for this database',
            )

    def advance(self, _raw_bytes: int) -> None:
        self._setting.check()


class _Comparison:
    """The comparison of a restored file with the live one. ``skipped`` says why, if they could not be compared."""

    def __init__(
        self,
        replica: Replica,
        plan: Plan,
        open_live: Callable[[], OpenFile | None],
        restored: Path,
        setting: DrillHost,
    ) -> None:
        self._replica = replica
        self._reached = plan.reached.position
        self._base = plan.base.base
        self._objects = plan.objects
        self._first = Position(plan.generation, plan.epochs[0].epoch, plan.epochs[0].first - 1) if plan.epochs else None
        self._page_size = manifest_of(replica, plan).page_size
        self._open_live = open_live
        self._restored = restored
        self._setting = setting
        self._pages = 0
        self._changed = 0
        self.encrypted = 0
        self.skipped = ""
        self.problem = ""

    @property
    def detail(self) -> str:
        """Return what was compared, or why nothing was compared."""
        if self.skipped:
            return f"not compared with the live file: {self.skipped}"
        changed = f", {self._changed} more were written meanwhile" if self._changed else ""
        if self.encrypted:
            changed += f", {self.encrypted} that a cipher encrypts again at each checkpoint can't be"
        return f"{self._pages} pages compared with the live file{changed}"

    def run(self) -> None:
        """Compare the files. Raises the errors of reading frames and files."""
        gaps = self._setting.gaps()
        before = self._look()
        if before is None:
            return
        file = self._open_live()
        if file is None:
            self.skipped = "it is not there"
            return
        with file:
            found = differences(file, self._restored, self._page_size, self._setting.check)
        after = self._look()
        if after is None:
            return
        self._pages = found.pages - len(found.numbers)
        if not len(found.numbers):
            return
        if self._setting.gaps() != gaps:
            self.skipped = "commits were missed meanwhile, and what they wrote is not known"
        elif before.mode != after.mode:
            self.skipped = "the journal mode changed meanwhile"
        elif len(found.numbers) > DIFFERENT_MAX:
            self.skipped = f"{len(found.numbers)} pages may have changed meanwhile"
        elif after.mode == "rollback":
            self._compare_at_moment(found, gaps)
        elif not self._setting.wait_stored():
            self.skipped = "what was written meanwhile is not stored yet"
        else:
            self._explain(found, min(before.start, self._reached), after.stream)

    def _compare_at_moment(self, found: Differences, gaps: int) -> None:
        """Compare the pages that differed again, at a moment when the content of a file without a WAL is known."""

        def read(file: OpenFile) -> Numbers:
            return still_different(file, self._restored, found.numbers, self._page_size)

        try:
            state, numbers = self._setting.read_shipped(self._page_size, read)
        except TransientError as error:
            self.skipped = error.message
            return
        if self._setting.gaps() != gaps or state.stream.generation != self._reached.generation:
            self.skipped = "commits were missed meanwhile, and what they wrote is not known"
            return
        if not self._setting.wait_stored():
            self.skipped = "what was written meanwhile is not stored yet"
            return
        position, previous = state.stream.position, state.stream.previous
        written = written_between(self._replica, self._page_size, self._reached, position, previous)
        if written is None:
            self.skipped = "what was written meanwhile is not listed"
            return
        left = numbers[~written.explains(numbers)]
        left = left[~np.isin(left, list(meaningless(self._restored, self._page_size, found)))]
        self._changed = len(found.numbers) - len(left)
        self.problem = _told(left.tolist(), self._reached)

    def _explain(self, found: Differences, start: Position, stream: Stream) -> None:
        """Look up each page that differs in the frames since ``start``, or find why the difference means nothing."""
        left = found.numbers
        base = self._base
        size_min = 0
        for since in (start, min(start, Position(base.generation, base.epoch, base.frame))):
            written = written_between(self._replica, self._page_size, since, stream.position, stream.previous)
            if written is None:
                self.skipped = "what was written meanwhile is not listed"
                return
            size_min = written.size_min
            explained = written.explains(left) if since is start else left > size_min
            left = left[~explained]
            left = left[~np.isin(left, list(meaningless(self._restored, self._page_size, found)))]
            if not len(left):
                break
        self._changed = len(found.numbers) - len(left)
        if len(left) and self._is_encrypted_again(found, left, start, stream, size_min):
            self.encrypted = len(left)
            return
        self.problem = _told(left.tolist(), self._reached)

    def _is_encrypted_again(
        self, found: Differences, left: Numbers, start: Position, stream: Stream, size_min: int
    ) -> bool:
        """Whether ``left`` are all the pages that frames hold, encrypted again by the checkpoint that copied them.

        Pages past the smallest size ``size_min`` have already been left out of ``left``.
        """
        with self._restored.open("rb") as file:
            if self._first is None or is_plain(file.read(HEADER_SIZE)):
                return False
        bridged = after_last_bridge(self._replica, self._objects, self._page_size)
        previous = stream.previous
        applied = written_between(self._replica, self._page_size, self._first, self._reached, previous)
        copied = written_between(self._replica, self._page_size, bridged or self._first, self._reached, previous)
        since = written_between(self._replica, self._page_size, start, stream.position, previous)
        if applied is None or copied is None or since is None:
            return False
        both = [
            numbers[~since.explains(numbers) & (numbers <= size_min)] for numbers in (applied.numbers, copied.numbers)
        ]
        return encrypted_again(found, left, *both)

    def _look(self) -> FollowState | None:
        state = self._setting.look()
        if state is not None and state.stream.generation == self._reached.generation:
            return state
        self.skipped = "its history ended meanwhile"
        return None


def _told(numbers: list[int], reached: Position) -> str:
    if not numbers:
        return ""
    first = ", ".join(map(str, numbers[:5])) + (" …" if len(numbers) > 5 else "")
    pages = "page differs" if len(numbers) == 1 else "pages differ"
    return f"{len(numbers)} {pages} from the live database at {reached}: {first}"
