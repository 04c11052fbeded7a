"""Tests of walsyncd.core.follow.decision: sightings in, decisions out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from walsyncd.core.follow.decision import (
    Again,
    Copy,
    CounterMark,
    Cursor,
    DmsHolder,
    Emptied,
    Idle,
    Observation,
    Restarted,
    ShmEvidence,
    cursor_before,
    decide,
    mark_holds,
    may_go_on,
    salts_now,
    settle,
)
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.sqlite.wal import FrameEnd, Frames, Salts, WalHeader
from walsyncd.core.sqlite.walindex import IndexHeader

OURS, NEXT = (10, 20), (11, 99)
WAL = WalHeader(4096, False, 0, *OURS, (1, 2))
NEXT_WAL = replace(WAL, salt1=NEXT[0], salt2=NEXT[1])
CURSOR = Cursor(OURS, WAL, 5, (7, 8))
ANNOUNCED = Cursor(OURS, None, 0, (0, 0))


def index(
    last: int, *, salts: tuple[int, int] = OURS, ichange: int = 0, chain: tuple[int, int] = (7, 8)
) -> IndexHeader:
    return IndexHeader(ichange, False, 4096, last, 9, chain, salts, 0, (0, 0, 0, 0, 0))


def live(header: IndexHeader | None, wal: WalHeader | None = WAL) -> Observation:
    return Observation(DmsHolder.LIVE, header, wal, 10**6)


def nobody(wal: WalHeader | None = WAL, wal_bytes: int = 10**6) -> Observation:
    return Observation(DmsHolder.NONE, None, wal, wal_bytes)


def frames(first: int, sizes: list[int]) -> Frames:
    """Return frames of which only the number and the sizes count."""
    column = np.array(sizes, np.uint32)
    chains = np.zeros((len(sizes), 2), np.uint32)
    return Frames(memoryview(b""), first, len(sizes), column, column, chains, FrameEnd.DATA, None, (0, 0), False)


def test_with_a_live_wal_index() -> None:
    """mxFrame of the wal-index says what is committed."""
    assert decide(CURSOR, live(index(5))) == Idle()
    assert decide(CURSOR, live(index(8))) == Copy(CURSOR, 8)
    assert Copy(CURSOR, 8).first == 6


def test_a_header_written_anew_before_the_first_commit() -> None:
    """The wal-index has the salts, but each writer has a checkpoint sequence of its own, so the last header counts."""
    anew = replace(WAL, sequence=7, chain=(3, 4))
    assert decide(cursor_before(WAL), live(index(8), anew)) == Copy(cursor_before(anew), 8)
    assert decide(cursor_before(WAL), nobody(anew)) == Copy(cursor_before(anew), None)
    assert decide(CURSOR, live(index(8), anew)) == Copy(CURSOR, 8)


def test_a_wal_index_in_between() -> None:
    """If the wal-index is being set up or written, or is ahead of the WAL header that was read, the follower looks
    again.
    """
    assert isinstance(decide(CURSOR, replace(live(index(8)), holder=DmsHolder.SETTING_UP)), Again)
    assert isinstance(decide(CURSOR, live(None)), Again)
    assert isinstance(decide(CURSOR, replace(nobody(), holder=DmsHolder.LEAVING)), Again)
    assert isinstance(decide(CURSOR, live(index(8), NEXT_WAL)), Again)
    assert isinstance(decide(CURSOR, live(index(8), None)), Again)


def test_fewer_frames_in_our_salts_are_a_fork() -> None:
    """Fewer frames under the same salts mean that commits that were shipped are gone."""
    decision = decide(CURSOR, live(index(3)))
    assert isinstance(decision, Gap)
    assert "2 frames that were shipped are gone" in decision.reason


def test_another_last_frame_is_a_fork() -> None:
    """The WAL has as many frames as we have, and the last one is not ours."""
    assert isinstance(decide(CURSOR, live(index(5, chain=(7, 9)))), Gap)


def test_a_restart() -> None:
    """The wal-index publishes a restart before a frame is written, so the header of the new incarnation may not exist
    yet.
    """
    assert decide(CURSOR, live(index(0, salts=NEXT), WAL)) == Restarted(NEXT, None, 0)
    assert decide(CURSOR, live(index(0, salts=NEXT), None)) == Restarted(NEXT, None, 0)
    assert decide(CURSOR, live(index(2, salts=NEXT), NEXT_WAL)) == Restarted(NEXT, NEXT_WAL, 2)
    assert decide(CURSOR, nobody(NEXT_WAL)) == Restarted(NEXT, NEXT_WAL, None)


def test_an_incarnation_that_was_announced_gets_its_header() -> None:
    """The header of an announced incarnation comes with its first frame."""
    assert decide(ANNOUNCED, live(index(0), None)) == Idle()
    assert decide(ANNOUNCED, live(index(2))) == Copy(cursor_before(WAL), 2)


def test_with_nobody() -> None:
    """Without a live wal-index the chain decides.

    A WAL shorter than ours is a fork, and an emptied one must be proven.
    """
    assert decide(CURSOR, nobody()) == Copy(CURSOR, None)
    assert isinstance(decide(CURSOR, nobody(wal_bytes=WAL.offset_of(6) - 1)), Gap)
    assert decide(CURSOR, nobody(wal_bytes=WAL.offset_of(6))) == Copy(CURSOR, None)
    assert decide(CURSOR, nobody(None, 0)) == Emptied()
    assert isinstance(decide(CURSOR, nobody(None, 32)), Again)
    assert decide(ANNOUNCED, nobody(None, 0)) == Emptied(), "its commits may have come and gone"
    assert isinstance(decide(ANNOUNCED, nobody(None, 32)), Again)


def test_what_was_read_is_good() -> None:
    """A reading is good if the salts are the same afterwards, all that was asked for was read, and it ends with a
    commit.
    """
    read = frames(6, [0, 0, 9])
    assert settle(Copy(CURSOR, 8), read, live(index(8)), asked=8) is read
    assert settle(Copy(CURSOR, 8), read, nobody(), asked=8) is read
    part = frames(6, [0, 0])
    assert settle(Copy(CURSOR, 8), part, live(index(12)), asked=7) is part


def test_a_restart_under_the_reading() -> None:
    """If the WAL restarts during the reading, the look is repeated whatever was read."""
    for after in (live(index(0, salts=NEXT)), live(index(1, salts=NEXT), NEXT_WAL), nobody(NEXT_WAL)):
        assert isinstance(settle(Copy(CURSOR, 8), frames(6, []), after, asked=8), Again)


def test_a_wal_that_is_emptied_under_the_reading() -> None:
    """The next look finds the emptied WAL. Nobody has written over what was read."""
    assert isinstance(settle(Copy(CURSOR, 8), frames(6, []), nobody(None, 0), asked=8), Again)


def test_somebody_came_while_the_wal_was_scanned() -> None:
    """Frames that the scan found and the new live wal-index does not show are not committed yet."""
    assert isinstance(settle(Copy(CURSOR, 8), frames(6, [0, 0, 9]), live(index(5)), asked=8), Again)


@pytest.mark.parametrize(("end", "next_salts"), [(FrameEnd.DATA, None), (FrameEnd.HOLE, (0, 0))])
def test_a_published_frame_that_is_not_there(end: FrameEnd, next_salts: Salts | None) -> None:
    """Something else wrote over the -wal, so the file ends early, or has a hole up to where SQLite continued."""
    read = replace(frames(6, [0]), end=end, next_salts=next_salts)
    gap = settle(Copy(CURSOR, 8), read, live(index(8)), asked=8)
    assert isinstance(gap, Gap)
    assert "frame 7, which was committed, is gone" in gap.reason
    assert (gap.kind, gap.blocked) == (GapKind.REVERTED, None)


def test_a_published_frame_that_does_not_fit() -> None:
    """A published frame that does not fit under the same salts means that history was rewritten."""
    read = replace(frames(6, [0]), end=FrameEnd.CHAIN, next_salts=CURSOR.salts)
    short = settle(Copy(CURSOR, 8), read, live(index(8)), asked=8)
    assert isinstance(short, Gap)
    assert "frame 7 of 8 was published and does not continue the chain" in short.reason
    assert (short.remedy, short.blocked) == ("", None)
    open_end = settle(Copy(CURSOR, 8), frames(6, [0, 9, 0]), live(index(8)), asked=8)
    assert isinstance(open_end, Gap)
    assert "does not commit" in open_end.reason


def test_a_published_frame_without_salts() -> None:
    """SQLite published what it had not finished, so no history was rewritten.

    The gap's text says what to do, and until when.
    """
    read = replace(frames(6, [0]), next_salts=(0, 0))
    gap = settle(Copy(CURSOR, 8), read, live(index(8)), asked=8)
    assert isinstance(gap, Gap)
    assert gap.reason.startswith("frame 7 of 8 was published without salts and checksum")
    assert "3.50.2" in gap.remedy
    assert gap.blocked == CURSOR.salts


def test_the_salts_of_now() -> None:
    """The current salts are those of the live wal-index, else of the WAL, else unknown."""
    assert salts_now(live(index(0, salts=NEXT))) == NEXT
    assert salts_now(live(None)) == OURS
    assert salts_now(nobody()) == OURS
    assert salts_now(nobody(None, 0)) is None


def test_the_cursor_advances() -> None:
    """The cursor advances only in the same incarnation."""
    assert CURSOR.advanced(9, (3, 4)) == Cursor(OURS, WAL, 9, (3, 4))
    assert cursor_before(WAL) == Cursor(OURS, WAL, 0, (1, 2))


MARK = CounterMark(ichange=100, seen_ms=0, shm_serial=1)


def holds(mark: CounterMark | None, ichange: int, evidence: ShmEvidence | None = None, *, serial: int = 1) -> bool:
    return mark_holds(mark, index(1, ichange=ichange), evidence or ShmEvidence(), shm_serial=serial)


def test_one_unbroken_counter() -> None:
    """A counter is unbroken if the descriptor is the same, had no event, and the number did not go down.

    It may have wrapped.
    """
    assert holds(MARK, 100)
    assert holds(MARK, 150)
    assert not holds(None, 150)
    assert not holds(MARK, 99)
    assert not holds(MARK, 150, serial=2)
    assert not holds(MARK, 150, ShmEvidence(index_rebuilds=True))
    assert holds(replace(MARK, ichange=2**32 - 1), 3)


@pytest.mark.parametrize("ichange", [100, 10**9])
def test_a_close_between(ichange: int) -> None:
    """The close may be that of a killed writer, and the counter may have been rebuilt, however far it had come."""
    mark = replace(MARK, ichange=ichange)
    assert not holds(mark, mark.ichange + 5, ShmEvidence(closed=True))


def test_a_close_between_with_the_whole_in_sight() -> None:
    """With the whole WAL in sight a rebuilt counter would ask for fewer commits than were made.

    A counter that went down is a rebuilt one.
    """
    closed = ShmEvidence(closed=True)

    def in_sight(ichange: int, evidence: ShmEvidence) -> bool:
        index_now = index(1, ichange=ichange)
        return mark_holds(MARK, index_now, evidence, shm_serial=1, whole=True)

    assert in_sight(105, closed)
    assert not in_sight(99, closed)
    assert not in_sight(105, ShmEvidence(closed=True, index_rebuilds=True))


def test_a_mark_grows() -> None:
    """A mark grows with the commits that were read since, modulo 2^32."""
    assert MARK.grown(5) == replace(MARK, ichange=105)
    assert replace(MARK, ichange=2**32 - 1).grown(1).ichange == 0


@pytest.mark.parametrize(
    ("following", "after", "expected"),
    [
        (None, index(5), False),
        (NEXT, index(5), False),
        (OURS, index(5), True),
        ((0, 0), index(5), True),
        (NEXT, index(6), True),
        (NEXT, index(5, salts=NEXT), True),
        (None, None, True),
    ],
)
def test_what_may_come_after_the_last_frame(
    following: tuple[int, int] | None, after: IndexHeader | None, expected: bool
) -> None:
    """Frames of the incarnation, frames without salts, frames published meanwhile, and whatever another frame hides may
    come after the last frame.
    """
    assert may_go_on(index(5), following, after) is expected
    assert may_go_on(replace(index(5), page_size=0), following, after), "where to look is not known"
