"""Following one WAL: from what a look sees to what must be read, and whether the reading was good.

The rule (https://sqlite.org/fileformat2.html section 4, https://sqlite.org/walformat.html):

- A frame counts if its salts are those of the WAL header and its checksum continues the chain before it.
- If a process uses the wal-index, the frames up to its mxFrame are committed. If nobody uses it, the frames up to the
  last commit frame of the chain are committed, because that is what the next opener will recover.
- Committed frames never change while the salts stay the same. So with unchanged salts the chain alone proves that
  nothing was missed; if there are fewer frames, or the chain is another one, history forked. With new salts,
  ``core.follow.restart`` must prove that nothing was missed.
- A restart publishes its salts in the wal-index, then writes the WAL's header, then frames. So what was read is good
  if the salts are the same after the reading.

A look has three parts. ``decide`` decides on what is seen, the caller reads what the decision asks for, and ``settle``
compares the result with what is seen after the reading. Everything here is a value.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.sqlite.checksum import Chain
from walsyncd.core.sqlite.wal import FrameEnd, Frames, Salts, WalHeader
from walsyncd.core.sqlite.walindex import IndexHeader

WRITTEN_OVER_REMEDY = "restart the application: it may read pages that nobody wrote, and its commits build on them"


class DmsHolder(Enum):
    """Who uses the database, as the lock on the wal-index's DMS byte shows.

    LEAVING: nobody uses the database, and the -shm is deleted while the -wal is not. A last close looks like this for a
    moment; if the state lasts, there was no last close.
    """

    LIVE = "live"
    SETTING_UP = "setting up"
    NONE = "none"
    LEAVING = "leaving"


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position in the source's WAL: frames 1 to ``frames`` of the incarnation ``salts`` are ours.

    ``frames`` is 0 or a commit frame, and ``chain`` is the running checksum after it. ``header`` is None until SQLite
    writes it, which it does together with the incarnation's first frame.
    """

    salts: Salts
    header: WalHeader | None
    frames: int
    chain: Chain

    def advanced(self, frames: int, chain: Chain) -> Cursor:
        """Return the cursor after the commit frame ``frames`` of the same incarnation."""
        assert self.header is not None
        assert frames > self.frames
        return Cursor(self.salts, self.header, frames, chain)


def cursor_before(header: WalHeader) -> Cursor:
    """Return the cursor before the first frame of the incarnation of ``header``."""
    return Cursor(header.salts, header, 0, header.chain)


@dataclass(frozen=True, slots=True)
class Observation:
    """What a look sees: the holder (asked first), the wal-index header, and the WAL's header.

    A header is None if there is no valid one. ``wal_bytes`` is the size of the WAL. If a live wal-index must not be
    believed, the holder is ``DmsHolder.NONE``.
    """

    holder: DmsHolder
    index: IndexHeader | None
    wal: WalHeader | None
    wal_bytes: int


@dataclass(frozen=True, slots=True)
class Idle:
    """There is nothing new."""


@dataclass(frozen=True, slots=True)
class Again:
    """This look shows an intermediate state of SQLite, so look again shortly."""

    reason: str


@dataclass(frozen=True, slots=True)
class Copy:
    """Read frames ``first`` to ``last`` of the cursor's incarnation, or to the end of the chain if ``last`` is None."""

    cursor: Cursor
    last: int | None

    @property
    def first(self) -> int:
        """The first frame to read, counted from 1."""
        return self.cursor.frames + 1


@dataclass(frozen=True, slots=True)
class Restarted:
    """The WAL restarted with ``salts``: prove the restart before frames 1 to ``last`` are followed.

    ``header`` is None while the new incarnation has no frame. ``last`` is None if only the chain can show where the new
    incarnation ends.
    """

    salts: Salts
    header: WalHeader | None
    last: int | None


@dataclass(frozen=True, slots=True)
class Emptied:
    """The WAL is empty, and nobody uses it. This is a gap unless ``prove_emptied`` proves otherwise.

    This holds for a cursor before frame 1 too: an incarnation of which we have seen no frame may have come and gone.
    """


Decision = Idle | Again | Copy | Restarted | Emptied | Gap


def decide(cursor: Cursor, seen: Observation) -> Decision:
    """Return what a look that saw ``seen`` has to do."""
    if passing := passing_holder(seen.holder):
        return passing
    if seen.holder is DmsHolder.LIVE:
        if seen.index is None:
            return Again("the wal-index header is being written")
        return _decide_by_index(cursor, seen.index, seen.wal)
    return _decide_by_wal(cursor, seen.wal, seen.wal_bytes)


def passing_holder(holder: DmsHolder) -> Again | None:
    """Return the reason to look again if the holder shows an intermediate state, whatever else was seen."""
    match holder:
        case DmsHolder.SETTING_UP:
            return Again("the wal-index is being set up")
        case DmsHolder.LEAVING:
            return Again("the wal-index is deleted and the WAL is not")
        case _:
            return None


def _decide_by_wal(cursor: Cursor, wal: WalHeader | None, wal_bytes: int) -> Decision:
    if wal is None:
        return Again("the WAL's header is being written") if wal_bytes else Emptied()
    if wal.salts != cursor.salts:
        return Restarted(wal.salts, wal, None)
    if wal_bytes < wal.offset_of(cursor.frames + 1):
        return _fork(cursor, (wal_bytes - wal.offset_of(1)) // wal.frame_size)
    return Copy(_with_header(cursor, wal), None)


def _decide_by_index(cursor: Cursor, index: IndexHeader, wal: WalHeader | None) -> Decision:
    if index.max_frame > 0 and (wal is None or wal.salts != index.salts):
        return Again("the WAL's header is not the one of the wal-index")
    if index.salts != cursor.salts:
        return Restarted(index.salts, wal if index.max_frame else None, index.max_frame)
    if index.max_frame < cursor.frames:
        return _fork(cursor, index.max_frame)
    if index.max_frame > cursor.frames:
        assert wal is not None
        return Copy(_with_header(cursor, wal), index.max_frame)
    if cursor.frames and index.frame_chain != cursor.chain:
        text = "the WAL holds another frame {frame} than the one that was shipped: history forked"
        return Gap.of(GapKind.REVERTED, text, frame=cursor.frames)
    return Idle()


def _fork(cursor: Cursor, held: int) -> Gap:
    text = "{lost} frames that were shipped are gone from the WAL (frame {frame}): history forked"
    return Gap.of(GapKind.REVERTED, text, lost=cursor.frames - held, frame=cursor.frames)


def _with_header(cursor: Cursor, wal: WalHeader) -> Cursor:
    """Return the cursor with the header that SQLite wrote in the meantime.

    Until a frame is committed, each writer that tries writes the header again, with a checkpoint sequence of its own.
    """
    return cursor if cursor.frames else cursor_before(wal)


def settle(copy: Copy, read: Frames, after: Observation, *, asked: int) -> Frames | Again | Gap:
    """Return what was read if it may be used, else why not. ``copy.last`` must not be None.

    The reader was asked for the frames from ``read.first`` to ``asked``; ``read`` holds those that were verified.
    ``after`` was seen after the reading. A published frame that does not continue the chain means that the WAL
    restarted during the reading, or that history was rewritten.
    """
    assert copy.last is not None
    salts = salts_now(after)
    if salts is None:
        return Again("the WAL was emptied while it was read")
    if salts != copy.cursor.salts:
        return Again("the WAL restarted while it was read")
    if after.holder is DmsHolder.LIVE and after.index is not None and after.index.max_frame < copy.last:
        return Again("somebody opened the database while its WAL was scanned, and has published less of it")
    held = read.first + read.count - 1
    if held < asked and _is_cut_off(read):
        return written_over(held + 1)
    if held < asked:
        return broken_chain(held + 1, copy.last, read.next_salts, copy.cursor.salts)
    if held == copy.last and not read.sizes[-1]:
        text = "the last published frame, {frame}, does not commit: history was rewritten"
        return Gap.of(GapKind.REVERTED, text, frame=held)
    return read


def _is_cut_off(read: Frames) -> bool:
    """Whether nothing is there where the next frame was published: the file ends, or there is a hole."""
    return read.end is FrameEnd.HOLE or (read.end is FrameEnd.DATA and read.next_salts is None)


def written_over(frame: int) -> Gap:
    """Return the gap at a committed frame that is not in the WAL any more, although the incarnation is the same.

    A -wal that was copied over is shorter than the WAL, or ends with another incarnation. SQLite continues to write
    after the last frame that it knows, so the chain of the new frames is good, and a hole may lie before them.
    """
    text = "somebody has written over the -wal of a database in use: frame {frame}, which was committed, is gone"
    return Gap(GapKind.REVERTED, text, {"frame": frame}, remedy=WRITTEN_OVER_REMEDY)


def broken_chain(frame: int, last: int, found: Salts | None, salts: Salts) -> Gap:
    """Return the gap at a published frame that does not continue the chain of ``salts``; ``found`` are its own salts.

    A frame with zero salts is SQLite's own doing. Since 3.11.0, SQLite computes the checksums of overwritten frames
    only at the commit. Before 3.50.2 (measured: 3.50.1 does, 3.50.2 does not) it forgot some of them after ROLLBACK TO
    in a spilled transaction.
    """
    if found != (0, 0):
        text = "frame {frame} of {last} was published and does not continue the chain: history was rewritten"
        return Gap.of(GapKind.REVERTED, text, frame=frame, last=last)
    return Gap(
        GapKind.UNCERTAIN,
        "frame {frame} of {last} was published without salts and checksum, as older SQLite does after ROLLBACK TO in a"
        " transaction that outgrew its cache; a crash would lose it",
        {"frame": frame, "last": last},
        remedy="have the application use SQLite 3.50.2 or later, or raise its PRAGMA cache_size",
        blocked=salts,
    )


def salts_now(seen: Observation) -> Salts | None:
    """Return the current incarnation's salts, from a live wal-index, else from the WAL's header. None if unknown."""
    if seen.holder is DmsHolder.LIVE and seen.index is not None:
        return seen.index.salts
    return seen.wal.salts if seen.wal is not None else None


def may_go_on(index: IndexHeader, following: Salts | None, after: IndexHeader | None) -> bool:
    """Whether frames of the same incarnation, or without salts, may come after the last frame that ``index`` shows.

    ``following`` are the salts of the frame after that one, or None if there is no such frame. ``after`` is the
    wal-index, read after ``following``: if it shows another incarnation, such frames may be overwritten already.
    """
    if not index.page_size or after is None or after.salts != index.salts:
        return True
    return after.max_frame > index.max_frame or following in {index.salts, (0, 0)}


@dataclass(frozen=True, slots=True)
class CounterMark:
    """The value of iChange at the cursor's position.

    ``seen_ms`` is a moment of the monotonic clock before iChange was read. ``shm_serial`` names the descriptor of the
    -shm through which iChange was read. ``index_rebuilds`` and ``closed`` count the events of that -shm until then.
    """

    ichange: int
    seen_ms: int
    shm_serial: int
    index_rebuilds: int = 0
    closed: int = 0

    def grown(self, commits: int) -> CounterMark:
        """Return the mark for a cursor that is ``commits`` commits further."""
        return replace(self, ichange=(self.ichange + commits) % 2**32)


@dataclass(frozen=True, slots=True)
class ShmEvidence:
    """The events of the -shm since the mark, from an event queue that was drained after the header was read.

    ``index_rebuilds``: there was a MODIFY, CREATE or MOVED, or events may be lost. ``closed``: there was a CLOSE_WRITE.
    The DELETE of the very file that we hold counts as neither: the processes that still had that file open still count
    in it, and nobody can join them.
    """

    index_rebuilds: bool = False
    closed: bool = False


@dataclass(frozen=True, slots=True)
class ProvisionalProof:
    """A count that was believed because of the events alone, and events may be late.

    ``shm_serial`` names the -shm, and ``closed`` is the number of its CLOSE_WRITE events by then. A further CLOSE_WRITE
    before ``until_ms`` (monotonic) may come from a writer that was killed before the count was believed.
    """

    shm_serial: int
    closed: int
    until_ms: int


CLOSE_LATE_MS = 10_000  # a killed process may close its files this long after it lost its locks; 25 ms measured


def mark_holds(
    mark: CounterMark | None,
    index: IndexHeader,
    evidence: ShmEvidence,
    *,
    shm_serial: int,
    whole: bool = False,
) -> bool:
    """Whether iChange at the mark and iChange in ``index`` may be compared.

    They may if they are values of one unbroken counter, or if a break would show. ``whole`` is what
    ``tail_is_complete`` returned for the mark's incarnation. A counter that was rebuilt in between lacks the commits
    before the mark, so it asks for fewer commits than were made.
    """
    if mark is None or evidence.index_rebuilds or mark.shm_serial != shm_serial:
        return False
    if (index.ichange - mark.ichange) % 2**32 >= 2**31:
        return False
    return whole or not evidence.closed
