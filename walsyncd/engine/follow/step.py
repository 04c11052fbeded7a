"""All that one step of a look found. The follower makes it durable, then the database applies it.

``Belief`` is what the daemon believes of the database. It is one value, which a step replaces as a whole.

``Bridging`` and ``PageScans`` take steps that ship pages of the file instead of frames of a WAL.

A step can combine several looks (``Batch``). A look that finds much to read is followed by the next look at once, and
both add to one segment and one transaction of the journal. Between the looks only the batch holds the state: if
anything fails, all looks of the batch are void, and their frames are read again.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from walsyncd.adapters.files.inotify import Event
from walsyncd.adapters.journal.journal import NewObject
from walsyncd.core.follow.evidence import Evidence
from walsyncd.core.follow.follow_state import FileFacts, FollowState, Stream
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.follow.other_path import OtherPath
from walsyncd.core.limits import DEFAULT_LIMITS
from walsyncd.core.sqlite.checksum import Buffer
from walsyncd.core.stored.position import Position
from walsyncd.engine.follow.segment_builder import FrameCollector, LongTransaction, SegmentBuilder

BATCH_BYTES_MAX = 32 << 20  # of frames; a few hundred milliseconds of one core
SEGMENT_BYTES_MAX = DEFAULT_LIMITS.memory_bytes_max // 2  # compressed; what one more look adds is still held in memory


@dataclass(frozen=True, slots=True)
class CommittedScan:
    """A scan of the database file. Its result is the committed state at ``moment_s`` (monotonic)."""

    events: int
    """How many events of the database there had been by then (``WriteTrail.file_events``)."""
    journal_events: int
    """How many events of the rollback journal there had been by then."""
    moment_s: float
    moment_ms: int
    """The same moment, since 1970."""
    counter: int | None = None
    """SQLite's change counter in the file, or None if page 1 can't be read."""
    facts: FileFacts | None = None
    """The file's size and times, even if it was written just before. None if they were not asked for."""


@dataclass(frozen=True, slots=True)
class Step:
    """The facts found, and what follows from them.

    ``caught_up``: everything that was committed when the step began is in ``state``. ``gap`` is why the generation
    can't continue. ``life_ended``: the current WAL is read to its end. If ``state`` or ``evidence`` is None, the
    database keeps the one that it has.
    """

    state: FollowState | None = None
    objects: tuple[NewObject, ...] = ()
    evidence: Evidence | None = None
    pending: LongTransaction | None = None
    """The transaction of which no commit was read yet."""
    other_path: OtherPath | None = None
    """The signs of an application that uses another path. If this is None, the database keeps the signs it has."""
    gap: Gap | None = None
    caught_up: bool = False
    life_ended: bool = False
    known_upto: int | None = None
    """The number of the last write to the database whose effect ``state`` holds (``WalPairs.database_writes``)."""
    begins: str = ""
    """A generation begins at ``state``, for this reason."""
    base_wanted: str = ""
    bridged: bool = False
    """``objects`` is the bridge over a gap, and ``state`` is the state after the gap."""
    again_s: float | None = None
    """Look again after this many seconds. If this is 0, look again at once."""
    moving: bool = False
    """There are frames after the last published one, so a commit may be under way."""
    rest_until_s: float | None = None
    """Do not look before then (monotonic), because this look was costly and found nothing."""
    scanned: CommittedScan | None = None
    """What a scan of the file found, where there is no WAL. ``objects`` and ``state`` are its result."""
    doubt: str = ""
    """Why the wal-index is not believed from now on."""
    recovered: int = 0
    """How many frames were taken from the old incarnation of a WAL that had restarted."""
    proven_by: str = ""
    """What proved that nothing was missed where the WAL restarted: the count of commits, or the WAL's remains.

    ``count`` is the count alone. ``count_tail`` is the count after a close of the wal-index, which proves nothing
    unless the old incarnation hides no commit.
    """

    @property
    def frames(self) -> int:
        """How many frames the step's objects hold."""
        return sum(new.last - new.first + 1 for new in self.objects)

    @property
    def decided_by(self) -> str:
        """Which rule decided how an incarnation of the WAL ended. Empty if no incarnation ended."""
        if self.bridged:
            return "bridge" if self.objects else "scan"
        return self.proven_by or ("close" if self.life_ended else "")

    def then(self, found: Step) -> Step:
        """Return this step combined with ``found``, the step of the batch's next look, which has no gap."""
        if self is NOTHING_YET:
            return found
        return replace(
            found,
            state=found.state or self.state,
            objects=(*self.objects, *found.objects),
            evidence=found.evidence or self.evidence,
            recovered=self.recovered + found.recovered,
            proven_by=found.proven_by or self.proven_by,
            doubt=found.doubt or self.doubt,
        )

    @property
    def is_shortly(self) -> bool:
        """Whether the look found only an intermediate state, so that it is repeated shortly."""
        return replace(self, evidence=None, pending=None, other_path=None) == SHORTLY


@dataclass(frozen=True, slots=True)
class Belief:
    """What steps that are durable have found.

    ``state`` is the follow state, or None between two generations. ``evidence`` is what looks have found besides.
    ``pending`` is a transaction whose commit was not read yet. ``other_path`` are the signs of an application that uses
    another path; they concern the file's folder, and outlive the generation.
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
        """Return what is believed at another state, about which nothing else is known.

        ``verified``: this run of the daemon has seen that the WAL holds what the state says. The caller has dropped the
        pending transaction.
        """
        return Belief(state, Evidence(verified=verified), None, self.other_path)


def gap_step(kind: GapKind, text: str, *, remedy: str = "", **facts: int | str) -> Step:
    """Return the step for a gap. ``text`` names each of the facts in braces."""
    return Step(gap=Gap(kind, text, facts, remedy))


NOTHING_YET = Step()
AT_ONCE = Step(again_s=0)
SHORTLY = Step(moving=True)


class Bridging(Protocol):
    """A gap that is being bridged. The bridge takes the database's steps, and ships nothing until it is complete.

    ``old`` is the state before the gap. ``is_impossible``: this bridge can't close the gap that ``step`` found last.
    ``has_other_mode``: the journal mode has changed, and a bridge for the current mode can close that gap.
    ``is_for_wal``: the bridge reads a WAL beside the file.
    """

    old: FollowState
    gap: Gap
    is_impossible: bool
    has_other_mode: bool
    is_for_wal: bool

    def collector(self, stream: Stream) -> FrameCollector:
        """Return what takes the frames that are followed during the bridge."""

    def step(self) -> Step | None:
        """Take one step. Returns None if there is nothing to be done now."""

    def applied(self, step: Step) -> None:
        """Take in a step that the database has applied. It was not the bridge's last step."""

    def gap_again(self, gap: Gap) -> None:
        """Begin again, because something was missed meanwhile."""

    def wait_for(self, is_so: Callable[[], bool], what: str) -> None:
        """Wait until ``is_so``, which ``what`` names."""

    def drop(self) -> None:
        """Give the bridge up."""


class BaseReading(Protocol):
    """The content that a base has taken of the database file, page by page, while it was copied."""

    def took(self, offset: int, content: Buffer) -> None:
        """Take in ``content``, which was copied at ``offset``. Raises AbandonedError if that was copied before."""

    def drop(self) -> None:
        """Forget the content, unless a scan has taken it over to close the base. This can be called twice."""


class MapReading(BaseReading, Protocol):
    """The content that a base has taken of a database in WAL mode that has no page map. ``took`` raises nothing."""

    def copied(self, file_bytes: int, end: Position) -> None:
        """Have a map made of the content, if it covers the whole file. ``end`` is the base's end N.

        Only the follower's thread may call this.
        """


class PageScans(Protocol):
    """Ships what differs from the page map while the database has no WAL.

    Only the follower's thread may call the methods, except those of bases and those that name another thread.
    """

    def has_map(self) -> bool:
        """Whether there is a map of the current generation, so that changes are shipped as pages."""

    def look(self, state: FollowState) -> Step | None:
        """Look at the file, and take one step towards shipping what changed.

        Returns None if the file's pages can't be compared. Then only whole copies can store the changes.
        """

    def note(self, event: Event) -> None:
        """Take in one event of the database's files, in queue order. The thread that drains the queue calls this."""

    def lose_events(self) -> None:
        """Take in that an event was lost. The thread that drains the queue calls this."""

    def in_transaction_until_s(self) -> float:
        """Return until when (monotonic) no event is worth a look, because a transaction is under way.

        The moment is in the past if no transaction is under way. Any thread may call this.
        """

    def applied(self, step: Step) -> None:
        """Take in a step that the database has applied."""

    def trouble(self) -> tuple[str, str] | None:
        """Return why changes can't be shipped just now, and the remedy. Returns None if they can be shipped."""

    def reads_whole(self) -> str:
        """Return why all of a large file is read at each change, or an empty text if it is not. Any thread may call."""

    def is_shipped(self, events: int, facts: FileFacts) -> bool:
        """Whether the file's content after ``events`` and with ``facts`` is what was shipped.

        ``events`` is the number of the file's events (``WriteTrail.file_events``). Any thread may call this.
        """

    def drop(self) -> None:
        """Give up the scan that is under way."""

    def begin_base(self, page_1: bytes) -> BaseReading | None:
        """Return what takes in the content of a base. Returns None if the page size can't be read."""

    def close_base(self, reading: BaseReading, start: Position, then: Callable[[Any], object]) -> Future[None]:
        """Have a scan ship what the base that begins at ``start`` lacks, then call ``then`` in the follower's thread.

        The future is done after that call. It is cancelled if the base has become worthless.
        """


class Batch:
    """The segment that one step's looks add to, and the segments that were finished because their epoch was closed."""

    def __init__(self) -> None:
        self._segment: SegmentBuilder | None = None
        self._objects: list[NewObject] = []
        self._bytes = 0
        self.is_void = False
        """Nothing of the batch may be used, because a segment was given up."""

    @property
    def has_room(self) -> bool:
        """Whether another look may add to it."""
        is_small = self._segment is None or self._segment.held_bytes < SEGMENT_BYTES_MAX
        return self._bytes < BATCH_BYTES_MAX and is_small

    @property
    def is_open(self) -> bool:
        """Whether a segment holds transactions of earlier looks."""
        return self._segment is not None

    def segment_after(self, stream: Stream) -> SegmentBuilder | None:
        """Return the open segment if it ends with ``stream``. Otherwise finish the segment and return None."""
        if self._segment is not None and self._segment.reached() != stream:
            self._finish()
        return self._segment

    def keep(self, segment: SegmentBuilder, size: int) -> Stream:
        """Keep ``segment`` open after ``size`` bytes were added. Returns the stream after these bytes."""
        self._segment = segment
        self._bytes += size
        return segment.reached()

    def finish(self, step: Step) -> Step:
        """Return ``step``, the outcome of all looks, with the segments."""
        assert not self.is_void
        self._finish()
        return replace(step, objects=(*self._objects, *step.objects)) if self._objects else step

    def drop(self) -> None:
        """Give up what was added."""
        self.is_void = True
        segment, self._segment = self._segment, None
        if segment is not None:
            segment.drop()

    def _finish(self) -> None:
        segment, self._segment = self._segment, None
        if segment is not None:
            new, _ = segment.finish()
            self._objects.append(new)
