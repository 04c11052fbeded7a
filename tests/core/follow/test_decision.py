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
    """Frames of which only number and sizes count."""
    column = np.array(sizes, np.uint32)
    chains = np.zeros((len(sizes), 2), np.uint32)
    return Frames(memoryview(b""), first, len(sizes), column, column, chains, FrameEnd.DATA, None, (0, 0), False)


def test_with_a_live_wal_index() -> None:
    """mxFrame says what is committed."""
    assert decide(CURSOR, live(index(5))) == Idle()
    assert decide(CURSOR, live(index(8))) == Copy(CURSOR, 8)
    assert Copy(CURSOR, 8).first == 6


def test_a_header_written_anew_before_the_first_commit() -> None:
    """The salts are those of the wal-index, the checkpoint sequence is each writer's own: the last header counts."""
    anew = replace(WAL, sequence=7, chain=(3, 4))
    assert decide(cursor_before(WAL), live(index(8), anew)) == Copy(cursor_before(anew), 8)
    assert decide(cursor_before(WAL), nobody(anew)) == Copy(cursor_before(anew), None)
    assert decide(CURSOR, live(index(8), anew)) == Copy(CURSOR, 8)


def test_a_wal_index_in_between() -> None:
    """Being set up, being written, or ahead of the WAL header that was read: look again."""
    assert isinstance(decide(CURSOR, replace(live(index(8)), holder=DmsHolder.SETTING_UP)), Again)
    assert isinstance(decide(CURSOR, live(None)), Again)
    assert isinstance(decide(CURSOR, replace(nobody(), holder=DmsHolder.LEAVING)), Again)
    assert isinstance(decide(CURSOR, live(index(8), NEXT_WAL)), Again)
    assert isinstance(decide(CURSOR, live(index(8), None)), Again)


def test_fewer_frames_in_our_salts_are_a_fork() -> None:
    """Commits that we shipped are gone."""
    decision = decide(CURSOR, live(index(3)))
    assert isinstance(decision, Gap)
    assert "2 frames that were shipped are gone" in decision.reason


def test_another_last_frame_is_a_fork() -> None:
    """As many frames as we have, but not ours."""
    assert isinstance(decide(CURSOR, live(index(5, chain=(7, 9)))), Gap)


def test_a_restart() -> None:
    """Published by the wal-index before a frame is written: the header of the new incarnation may not be there yet."""
    assert decide(CURSOR, live(index(0, salts=NEXT), WAL)) == Restarted(NEXT, None, 0)
    assert decide(CURSOR, live(index(0, salts=NEXT), None)) == Restarted(NEXT, None, 0)
    assert decide(CURSOR, live(index(2, salts=NEXT), NEXT_WAL)) == Restarted(NEXT, NEXT_WAL, 2)
    assert decide(CURSOR, nobody(NEXT_WAL)) == Restarted(NEXT, NEXT_WAL, None)


def test_an_incarnation_that_was_announced_gets_its_header() -> None:
    """With its first frame."""
    assert decide(ANNOUNCED, live(index(0), None)) == Idle()
    assert decide(ANNOUNCED, live(index(2))) == Copy(cursor_before(WAL), 2)


def test_with_nobody() -> None:
    """The chain decides; what is shorter than what we have is a fork, what was emptied is to be proven."""
    assert decide(CURSOR, nobody()) == Copy(CURSOR, None)
    assert isinstance(decide(CURSOR, nobody(wal_bytes=WAL.offset_of(6) - 1)), Gap)
    assert decide(CURSOR, nobody(wal_bytes=WAL.offset_of(6))) == Copy(CURSOR, None)
    assert decide(CURSOR, nobody(None, 0)) == Emptied()
    assert isinstance(decide(CURSOR, nobody(None, 32)), Again)
    assert decide(ANNOUNCED, nobody(None, 0)) == Emptied(), "its commits may have come and gone"
    assert isinstance(decide(ANNOUNCED, nobody(None, 32)), Again)


def test_what_was_read_is_good() -> None:
    """The same salts after the reading, all that was asked for, and a commit at the end."""
    read = frames(6, [0, 0, 9])
    assert settle(Copy(CURSOR, 8), read, live(index(8)), asked=8) is read
    assert settle(Copy(CURSOR, 8), read, nobody(), asked=8) is read
    part = frames(6, [0, 0])
    assert settle(Copy(CURSOR, 8), part, live(index(12)), asked=7) is part


def test_a_restart_under_the_reading() -> None:
    """Whatever was read, the look is repeated."""
    for after in (live(index(0, salts=NEXT)), live(index(1, salts=NEXT), NEXT_WAL), nobody(NEXT_WAL)):
        assert isinstance(settle(Copy(CURSOR, 8), frames(6, []), after, asked=8), Again)


def test_a_wal_that_is_emptied_under_the_reading() -> None:
    """The next look finds it empty. Nobody has written over it."""
    assert isinstance(settle(Copy(CURSOR, 8), frames(6, []), nobody(None, 0), asked=8), Again)


def test_somebody_came_while_the_wal_was_scanned() -> None:
    """What the scan found and the live wal-index does not show is not committed yet."""
    assert isinstance(settle(Copy(CURSOR, 8), frames(6, [0, 0, 9]), live(index(5)), asked=8), Again)


@pytest.mark.parametrize(("end", "next_salts"), [(FrameEnd.DATA, None), (FrameEnd.HOLE, (0, 0))])
def test_a_published_frame_that_is_not_there(end: FrameEnd, next_salts: Salts | None) -> None:
    """Something else was written over the -wal, so the file ends, or has a hole that ends where SQLite continued."""
    read = replace(frames(6, [0]), end=end, next_salts=next_salts)
    gap = settle(Copy(CURSOR, 8), read, live(index(8)), asked=8)
    assert isinstance(gap, Gap)
    assert "frame 7, which was committed, is gone" in gap.reason
    assert (gap.kind, gap.blocked) == (GapKind.REVERTED, None)


def test_a_published_frame_that_does_not_fit() -> None:
    """In the same salts: history was rewritten."""
    read = replace(frames(6, [0]), end=FrameEnd.CHAIN, next_salts=CURSOR.salts)
    short = settle(Copy(CURSOR, 8), read, live(index(8)), asked=8)
    assert isinstance(short, Gap)
    assert "frame 7 of 8 was published and does not continue the chain" in short.reason
    assert (short.remedy, short.blocked) == ("", None)
    open_end = settle(Copy(CURSOR, 8), frames(6, [0, 9, 0]), live(index(8)), asked=8)
    assert isinstance(open_end, Gap)
    assert "does not commit" in open_end.reason


def test_a_published_frame_without_salts() -> None:
    """No history was rewritten: SQLite published what it had not finished. The gap says what to do, and until when."""
    read = replace(frames(6, [0]), next_salts=(0, 0))
    gap = settle(Copy(CURSOR, 8), read, live(index(8)), asked=8)
    assert isinstance(gap, Gap)
    assert gap.reason.startswith("frame 7 of 8 was published without salts and checksum")
    assert "3.50.2" in gap.remedy
    assert gap.blocked == CURSOR.salts


def test_the_salts_of_now() -> None:
    """The live wal-index's, else the WAL's, else unknown."""
    assert salts_now(live(index(0, salts=NEXT))) == NEXT
    assert salts_now(live(None)) == OURS
    assert salts_now(nobody()) == OURS
    assert salts_now(nobody(None, 0)) is None


def test_the_cursor_advances() -> None:
    """In the same incarnation only."""
    assert CURSOR.advanced(9, (3, 4)) == Cursor(OURS, WAL, 9, (3, 4))
    assert cursor_before(WAL) == Cursor(OURS, WAL, 0, (1, 2))


MARK = CounterMark(ichange=100, seen_ms=0, shm_serial=1)


def holds(mark: CounterMark | None, ichange: int, evidence: ShmEvidence | None = None, *, serial: int = 1) -> bool:
    return mark_holds(mark, index(1, ichange=ichange), evidence or ShmEvidence(), shm_serial=serial)


def test_one_unbroken_counter() -> None:
    """The same descriptor, no event on it, and it did not go down; it may have wrapped."""
    assert holds(MARK, 100)
    assert holds(MARK, 150)
    assert not holds(None, 150)
    assert not holds(MARK, 99)
    assert not holds(MARK, 150, serial=2)
    assert not holds(MARK, 150, ShmEvidence(index_rebuilds=True))
    assert holds(replace(MARK, ichange=2**32 - 1), 3)


@pytest.mark.parametrize("ichange", [100, 10**9])
def test_a_close_between(ichange: int) -> None:
    """It may be a killed writer's, and the counter rebuilt, however far it had come."""
    mark = replace(MARK, ichange=ichange)
    assert not holds(mark, mark.ichange + 5, ShmEvidence(closed=True))


def test_a_close_between_with_the_whole_in_sight() -> None:
    """Then a rebuilt counter would ask for fewer commits than were made; one that went down shows it is one."""
    closed = ShmEvidence(closed=True)

    def in_sight(ichange: int, evidence: ShmEvidence) -> bool:
        index_now = index(1, ichange=ichange)
        return mark_holds(MARK, index_now, evidence, shm_serial=1, whole=True)

    assert in_sight(105, closed)
    assert not in_sight(99, closed)
    assert not in_sight(105, ShmEvidence(closed=True, index_rebuilds=True))


def test_a_mark_grows() -> None:
    """With the commits that were read since, modulo 2^32."""
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
    """Frames of the incarnation or without salts, those that were published meanwhile, and whatever another hides."""
    assert may_go_on(index(5), following, after) is expected
    assert may_go_on(replace(index(5), page_size=0), following, after), "where to look is not known"
