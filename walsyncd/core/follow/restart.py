"""A WAL restart: the proof that no commit was missed between two incarnations of a WAL.

Every commit adds exactly 1 to iChange, whatever the salts. So with

    need = iChange now - iChange at the cursor - commits of the new incarnation     (modulo 2^32)

exactly ``need`` commits were made after the cursor in the old incarnation. They may still be in the file after the new
incarnation's frames, since a restart does not shrink the file. There they have the old salts and continue the old
chain. ``prove_by_count`` is that proof. Where iChange can't be used (because the daemon was away, or there is no
wal-index), whatever follows the old incarnation's last frame in the file must show that the old incarnation ended there
(``prove_by_remains``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from walsyncd.core.follow.decision import CounterMark, Cursor
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.sqlite.wal import Frames, Salts
from walsyncd.core.sqlite.walindex import IndexHeader
from walsyncd.core.sqlite.walindex_hash import BLOCK_BYTES, blocks_for

_MODULUS = 2**32


@dataclass(frozen=True, slots=True)
class CommitTally:
    """Commits counted over a run of verified frames.

    ``commits`` are the numbers of the commit frames in order. ``next_salts`` are the salts of the frame after the
    chain, or None at the end of the file. ``doubtful``: two commit frames in a row were equal (pad frames), so the
    count may be wrong.
    """

    commits: tuple[int, ...]
    next_salts: Salts | None
    doubtful: bool


EMPTY_TALLY = CommitTally((), None, doubtful=False)


class Counter:
    """Counts the commits of a run of frames that is read in several pieces.

    ``number`` and ``frame`` (header and page) are those of the commit frame before the run, which may have been padded,
    too.
    """

    def __init__(self, number: int = 0, frame: bytes = b"") -> None:
        self._commits: list[int] = []
        self._last_commit: tuple[int, bytes] = (number, frame[:8] + frame[24:])
        self._doubtful = False
        self._next_salts: Salts | None = None

    def feed(self, frames: Frames) -> None:
        """Count one more piece, which follows the last one directly."""
        size = len(frames.data) // frames.count if frames.count else 0
        for commit in frames.commits:
            start = (commit - frames.first) * size
            content = bytes(frames.data[start : start + 8]) + bytes(frames.data[start + 24 : start + size])
            if self._last_commit == (commit - 1, content):
                self._doubtful = True
            self._last_commit = (commit, content)
            self._commits.append(commit)
        self._next_salts = frames.next_salts

    def tally(self) -> CommitTally:
        """Return what was counted so far."""
        return CommitTally(tuple(self._commits), self._next_salts, doubtful=self._doubtful)


@dataclass(frozen=True, slots=True)
class RestartProof:
    """The restart is proven: take the old incarnation up to commit frame ``last``, then continue.

    Nothing is taken if ``last`` is the cursor's own frame. ``is_provisional``: the count is believed only because no
    CLOSE_WRITE has come so far (``ProvisionalProof``).
    """

    last: int
    by: Literal["count", "count_tail", "remains"] = "count"
    is_provisional: bool = False


def prove_by_count(
    cursor: Cursor,
    *,
    ichange_delta: int,
    new_salts: Salts,
    new: CommitTally,
    new_last: int,
    tail: CommitTally,
    behind: Salts | None,
) -> RestartProof | Gap:
    """Prove the restart by iChange, which grew by ``ichange_delta`` since the cursor.

    ``new`` are the commits of the new incarnation. ``tail`` are the readable commits after the cursor in the old
    incarnation; it is empty if ``new_last`` passed the cursor. ``behind`` are the salts of the frame after ``new_last``
    or ``tail``, whichever reaches further. The caller saw after the reading that the new incarnation is current, and
    that it reached ``new_last``.
    """
    need = (ichange_delta - len(new.commits)) % _MODULUS
    if need >= _MODULUS // 2:
        text = "the wal-index counts {fewer} commits fewer than the WAL holds"
        return Gap.of(GapKind.UNCERTAIN, text, fewer=_MODULUS - need)
    if new.doubtful or tail.doubtful:
        text = "equal commit frames in a row make the commits uncountable across a restart of the WAL"
        return Gap.of(GapKind.UNCERTAIN, text)
    if need == 0:
        # After the cursor, the chain shows that the frames there never committed (a spill that was rolled back).
        # After frames of the new incarnation there is no chain that could show it.
        if tail.commits or (behind == cursor.salts and new_last > cursor.frames):
            text = "frames of the old incarnation follow frame {frame} though no commit is missing"
            return Gap.of(GapKind.UNCERTAIN, text, frame=cursor.frames)
        return RestartProof(cursor.frames)
    if len(tail.commits) > need:
        text = "{found} commits stand after frame {frame}, but only {counted} were counted"
        return Gap.of(GapKind.UNCERTAIN, text, found=len(tail.commits), frame=cursor.frames, counted=need)
    if len(tail.commits) < need:
        text = "{lost} transactions after frame {frame} of the WAL were overwritten before they were read"
        return Gap.of(GapKind.OVERWRITTEN, text, lost=need - len(tail.commits), frame=cursor.frames)
    if not succeeds(cursor.salts, new_salts):
        text = "{count} transactions after frame {frame} stand before a WAL that is not the next one"
        return Gap.of(GapKind.UNCERTAIN, text, count=need, frame=cursor.frames)
    if new_last > cursor.frames:
        text = "the WAL's new frames reached frame {reached} while the old ones after {frame} were read"
        return Gap.of(GapKind.OVERWRITTEN, text, reached=new_last, frame=cursor.frames)
    return RestartProof(tail.commits[-1])


def prove_by_remains(cursor: Cursor, *, new_salts: Salts, new_last: int, tail: CommitTally) -> RestartProof | Gap:
    """Prove the restart without iChange: the old incarnation's end can be seen, so nothing came after it.

    This holds only if the boot id is unchanged and ``new_last`` was read after the tail. Besides, the caller must check
    each page of the tail that the new incarnation lacks: the database file must hold the page's last version.
    """
    if not succeeds(cursor.salts, new_salts):
        text = "the WAL restarted more than once, or was made again, and its commits can't be counted"
        return Gap.of(GapKind.UNCERTAIN, text)
    if new_last > cursor.frames:
        text = "the WAL restarted, its commits can't be counted, and its new frames passed frame {frame}"
        return Gap.of(GapKind.UNCERTAIN, text, frame=cursor.frames)
    if tail.next_salts is None or tail.next_salts in (cursor.salts, new_salts, (0, 0)):
        text = "the WAL restarted, its commits can't be counted, and where the old one ended can't be seen"
        return Gap.of(GapKind.UNCERTAIN, text)
    return RestartProof(tail.commits[-1] if tail.commits else cursor.frames, "remains")


def tail_is_complete(
    cursor: Cursor,
    *,
    new_salts: Salts,
    tail: CommitTally,
    stands: bool,
    mark: CounterMark,
    index_bytes: int,
    last_index_reads: tuple[IndexHeader, ...],
) -> bool:
    """Whether the old incarnation held no commit after ``tail``, or can't have held as many as the count asks for.

    One of these shows it (``engine.follow.wal_restart`` gives the reasons):

    - One of the index reads in ``last_index_reads`` ends with ``tail``. Each of these reads shows all of its
      incarnation.
    - A frame of a third incarnation follows ``tail`` directly, and the cursor's frame was still there after that frame
      was read (``stands``).
    - The wal-index, which has ``index_bytes`` now, would have grown if as many commits as ``mark`` counts were hidden.
    """
    last = tail.commits[-1] if tail.commits else cursor.frames
    if any((index.salts, index.max_frame) == (cursor.salts, last) for index in last_index_reads):
        return True
    if not succeeds(cursor.salts, new_salts):
        return False
    if stands and tail.next_salts not in (None, cursor.salts, new_salts, (0, 0)):
        return True
    return blocks_for(last + mark.ichange) * BLOCK_BYTES > index_bytes


def prove_emptied(cursor: Cursor, mark: CounterMark | None, index: IndexHeader | None) -> bool:
    """Whether the wal-index that dead processes have left shows that the WAL was truncated right after the cursor.

    It does if it counts no commit since the mark, and if the truncation that it shows is the first restart after the
    cursor's incarnation. If the cursor's incarnation has no frame, it may also be the restart that began it. The caller
    knows that since the mark nobody wrote after the first death of a process that used the wal-index.
    """
    if mark is None or index is None or index.max_frame:
        return False
    is_this = not cursor.frames and index.salts == cursor.salts
    return index.ichange == mark.ichange and (is_this or succeeds(cursor.salts, index.salts))


def succeeds(old: Salts, new: Salts) -> bool:
    """Whether ``new`` comes from the very next restart after ``old``: SQLite adds 1 to salt-1 and draws salt-2."""
    return new[0] == (old[0] + 1) % _MODULUS
