"""All that a look has seen of a WAL restart, and what follows from that alone.

A look gathers this in up to three stages. Each stage is one value, and a function decides on that value. The function's
answer says whether the next stage is needed:

1. ``RestartRead`` is what both incarnations held. ``settle_restart`` says whether what was read belongs to these two
   incarnations and is complete.
2. ``RestartSeen`` adds what shows whether the counter may be used. ``prove_restart`` proves the restart, or says why it
   can't be proven, or which pages of the database would prove it (``PagesWanted``).
3. The pages that the database holds are read only if they are wanted. ``prove_copied_back`` judges them.

``engine.follow.wal_restart`` does all the reading. The order of reading is part of the proof; the reasons are there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from walsyncd.core.follow.decision import (
    Again,
    CounterMark,
    Cursor,
    Observation,
    Restarted,
    ShmEvidence,
    broken_chain,
    mark_holds,
    salts_now,
)
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.follow.restart import (
    EMPTY_TALLY,
    CommitTally,
    RestartProof,
    prove_by_count,
    prove_by_remains,
    tail_is_complete,
)
from walsyncd.core.sqlite.wal import FRAME_HEADER_SIZE, Frames, Salts
from walsyncd.core.sqlite.walindex import IndexHeader

RESTARTED_AGAIN = Again("the WAL restarted once more while its restart was looked at")


@dataclass(frozen=True, slots=True)
class OldTail:
    """What the WAL still held of the old incarnation after the cursor. Reading stops after ``bytes_max`` bytes."""

    frames: tuple[Frames, ...]
    tally: CommitTally
    bytes_max: int

    @property
    def is_too_long(self) -> bool:
        """Whether the tail is longer than what may be held in memory."""
        return sum(len(frames.data) for frames in self.frames) > self.bytes_max


@dataclass(frozen=True, slots=True)
class NewFrames:
    """What the WAL held of the new incarnation.

    The new incarnation was published up to frame ``last`` (0 if it had no frame), and could be read up to frame
    ``held``.
    """

    last: int = 0
    held: int = 0
    tally: CommitTally = EMPTY_TALLY


@dataclass(frozen=True, slots=True)
class RestartRead:
    """What a look has read of both incarnations. The fields are in the order in which they were read.

    The restart ``found`` showed in ``before``. ``after_tail`` was observed after the old incarnation was read, and
    ``after`` was observed last. ``behind`` are the salts of the frame that comes after both the cursor's frame and the
    last new frame; they may belong to any incarnation. If the old tail is too long, ``after_tail`` is None, and nothing
    is read of the new incarnation.
    """

    cursor: Cursor
    found: Restarted
    before: Observation
    old: OldTail
    after_tail: Observation | None
    new: NewFrames
    behind: Salts | None
    after: Observation

    @property
    def tail(self) -> CommitTally:
        """The commits after the cursor, or none if the new frames passed the cursor."""
        return EMPTY_TALLY if self.new.last > self.cursor.frames else self.old.tally


def settle_restart(read: RestartRead) -> Again | Gap | None:
    """Return why the reading shows nothing, or None if it belongs to these two incarnations and is complete."""
    salts, new = read.found.salts, read.new
    if salts_now(read.after) != salts:
        return RESTARTED_AGAIN
    if read.after_tail is None:
        text = "more than {mib} MiB of an old WAL were left when it restarted"
        return Gap.of(GapKind.OVERWRITTEN, text, mib=read.old.bytes_max >> 20)
    if new.held != new.last:
        return broken_chain(new.held + 1, new.last, new.tally.next_salts, salts)
    return RESTARTED_AGAIN if salts_now(read.after_tail) != salts else None


@dataclass(frozen=True, slots=True)
class CounterEvidence:
    """Whether iChange has counted on without a break since ``mark``, as far as the events until now show.

    ``events`` are those of the -shm since the mark, and ``shm_serial`` names the current -shm. ``mark`` is None if
    there is no mark.
    """

    mark: CounterMark | None
    is_watched: bool
    events: ShmEvidence
    shm_serial: int

    def holds(self, index: IndexHeader | None, *, whole: bool = False) -> bool:
        """Whether one unbroken counter gave iChange at the mark and in ``index``. ``whole``: see ``mark_holds``."""
        if self.mark is None or index is None or not self.is_watched:
            return False
        return mark_holds(self.mark, index, self.events, shm_serial=self.shm_serial, whole=whole)


@dataclass(frozen=True, slots=True)
class TailEvidence:
    """What shows whether the old incarnation held no more than what was read (``tail_is_complete``).

    ``stands``: the cursor's frame was still there after everything else was read. ``index_bytes`` is the size of the
    wal-index. ``index_reads`` are the last wal-index headers that show all of their incarnation.
    """

    stands: bool
    index_bytes: int
    index_reads: tuple[IndexHeader, ...]


@dataclass(frozen=True, slots=True)
class RestartSeen:
    """All that is known of a restart before the database's pages are read.

    ``searched`` is the new incarnation's last commit, which was searched for if the wal-index did not show it after the
    tail was read. It is 0 if no search was needed. ``tail`` is None if there is no wal-index or no mark.
    """

    read: RestartRead
    searched: int
    tail: TailEvidence | None
    counter: CounterEvidence
    is_same_boot: bool

    @property
    def reached(self) -> int:
        """The last frame that the new incarnation can have reached when the rest of the old one was read."""
        new_last, after_tail = self.read.new.last, self.read.after_tail
        if after_tail is not None and after_tail.index is not None:
            return max(new_last, after_tail.index.max_frame)
        return max(new_last, self.searched)

    @property
    def is_whole(self) -> bool:
        """Whether the old incarnation held no commit after its tail (``tail_is_complete``)."""
        read, tail, mark = self.read, self.tail, self.counter.mark
        return (
            tail is not None
            and mark is not None
            and tail_is_complete(
                read.cursor,
                new_salts=read.found.salts,
                tail=read.tail,
                stands=tail.stands,
                mark=mark,
                index_bytes=tail.index_bytes,
                last_index_reads=tail.index_reads,
            )
        )


@dataclass(frozen=True, slots=True)
class PagesWanted:
    """The restart is proven by what remains, if the database holds these pages.

    These are the tail's pages, except those that the new incarnation has, too. The whole WAL is copied back before it
    restarts, so a page version that is not in the database belongs to a commit that failed. ``digests`` are the SHA-256
    digests by page number.
    """

    proof: RestartProof
    page_size: int = 0
    digests: Mapping[int, bytes] = field(default_factory=dict)

    def without(self, pages: Collection[int]) -> PagesWanted:
        """Return this request without ``pages``, which are those of the new incarnation."""
        return replace(self, digests={page: digest for page, digest in self.digests.items() if page not in pages})


def prove_restart(seen: RestartSeen) -> RestartProof | PagesWanted | Gap:
    """Prove the restart by iChange if the counter may be used, else by what remains of the old incarnation.

    The proof by what remains is possible only in the same boot.
    """
    read, mark = seen.read, seen.counter.mark
    cursor, index, whole = read.cursor, read.before.index, seen.is_whole
    if index is not None and mark is not None and seen.counter.holds(index, whole=whole):
        proof = prove_by_count(
            cursor,
            ichange_delta=(index.ichange - mark.ichange) % 2**32,
            new_salts=read.found.salts,
            new=read.new.tally,
            new_last=seen.reached,
            tail=read.tail,
            behind=read.behind,
        )
        if isinstance(proof, Gap):
            return proof
        if not whole:
            return replace(proof, is_provisional=True)
        return replace(proof, by="count_tail") if seen.counter.events.closed else proof
    if not seen.is_same_boot:
        return Gap.of(GapKind.UNCERTAIN, "the WAL restarted across a reboot")
    remains = prove_by_remains(cursor, new_salts=read.found.salts, new_last=seen.reached, tail=read.tail)
    return remains if isinstance(remains, Gap) else _pages_wanted(remains, read.old.frames)


def _pages_wanted(proof: RestartProof, tail: tuple[Frames, ...]) -> PagesWanted:
    """Return each page's last version up to the proof's last frame, without pages that the last commit cuts off."""
    versions: dict[int, bytes] = {}
    page_size, page_count = 0, 0
    for frames in tail:
        size = len(frames.data) // frames.count if frames.count else 0
        for row in range(min(frames.count, proof.last - frames.first + 1)):
            page_size = size - FRAME_HEADER_SIZE
            content = frames.data[row * size + FRAME_HEADER_SIZE : (row + 1) * size]
            versions[int(frames.page_numbers[row])] = hashlib.sha256(content).digest()
            page_count = int(frames.sizes[row]) or page_count
    return PagesWanted(proof, page_size, {page: digest for page, digest in versions.items() if page <= page_count})


def prove_copied_back(wanted: PagesWanted, held: Mapping[int, bytes] | None) -> RestartProof | Gap:
    """Prove the restart by the digests of the pages that the database holds. ``held`` is None if there is no file."""
    if held is None:
        return Gap.of(GapKind.REPLACED, "the database file is gone")
    for page, digest in wanted.digests.items():
        if held.get(page) != digest:
            text = "page {page} of the old WAL's last transactions is not in the database: a commit failed"
            return Gap.of(GapKind.UNCERTAIN, text, page=page)
    return wanted.proof
