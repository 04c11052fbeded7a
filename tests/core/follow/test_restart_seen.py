"""Tests of walsyncd.core.follow.restart_seen: what a look has seen of a restart, and what follows from it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace

import numpy as np
import pytest

from walsyncd.core.follow.decision import (
    Again,
    CounterMark,
    Cursor,
    DmsHolder,
    Observation,
    Restarted,
    ShmEvidence,
)
from walsyncd.core.follow.gap import Gap
from walsyncd.core.follow.restart import EMPTY_TALLY, CommitTally, RestartProof
from walsyncd.core.follow.restart_seen import (
    CounterEvidence,
    NewFrames,
    OldTail,
    PagesWanted,
    RestartRead,
    RestartSeen,
    TailEvidence,
    prove_copied_back,
    prove_restart,
    settle_restart,
)
from walsyncd.core.sqlite.wal import FrameEnd, Frames, Salts, WalHeader
from walsyncd.core.sqlite.walindex import IndexHeader

OLD, NEW, LATER, OLDER = (10, 1), (11, 2), (12, 3), (9, 4)
CURSOR = Cursor(OLD, WalHeader(512, False, 0, *OLD, (0, 0)), 20, (5, 6))
HEADER = WalHeader(512, False, 1, *NEW, (0, 0))
MARK = CounterMark(ichange=100, seen_ms=0, shm_serial=1)
CLOSED = ShmEvidence(closed=True)
INDEX_BYTES = 32_768  # one block: 4062 frames


def index(salts: Salts = NEW, *, ichange: int = 103, max_frame: int = 3) -> IndexHeader:
    return IndexHeader(ichange, False, 512, max_frame, 9, (0, 0), salts, 0, (0, 0, 0, 0, 0))


def observed(salts: Salts = NEW, *, max_frame: int = 3, ichange: int = 103) -> Observation:
    """Return an observation of a live wal-index."""
    return Observation(DmsHolder.LIVE, index(salts, ichange=ichange, max_frame=max_frame), HEADER, 9999)


def unused() -> Observation:
    """Return an observation of a WAL that nobody uses."""
    return Observation(DmsHolder.NONE, None, HEADER, 9999)


def tail_frames(*records: tuple[int, int, bytes]) -> Frames:
    """Return the frames after the cursor: page number, size, content of 8 bytes."""
    data = b"".join(bytes(24) + content for _, _, content in records)
    pages, sizes = [page for page, _, _ in records], [size for _, size, _ in records]
    rows = np.array(pages, np.uint32), np.array(sizes, np.uint32), np.zeros((len(records), 2), np.uint32)
    return Frames(memoryview(data), 21, len(records), *rows, FrameEnd.SALTS, OLDER, (0, 0), False)


READ = RestartRead(
    cursor=CURSOR,
    found=Restarted(NEW, HEADER, 3),
    before=observed(),
    old=OldTail((), CommitTally((), None, doubtful=False), 1000),
    after_tail=observed(),
    new=NewFrames(3, 3, CommitTally((1, 2, 3), None, doubtful=False)),
    behind=OLD,
    after=observed(),
)
SEEN = RestartSeen(
    read=READ,
    searched=0,
    tail=TailEvidence(stands=True, index_bytes=INDEX_BYTES, index_reads=()),
    counter=CounterEvidence(MARK, is_watched=True, events=ShmEvidence(), shm_serial=1),
    is_same_boot=True,
)


def tail(*commits: int, behind: Salts | None = None) -> OldTail:
    """Return an old tail with these commits, and ``behind`` as the salts of the frame after it."""
    return OldTail((), CommitTally(commits, behind, doubtful=False), 1000)


def says(found: object, text: str) -> bool:
    return isinstance(found, Gap) and re.search(text, found.reason) is not None


def test_what_was_read_of_both_is_good() -> None:
    """A reading is good if the incarnation was the same after the tail and after everything, and if all frames of the
    new incarnation could be read.
    """
    assert settle_restart(READ) is None
    assert settle_restart(replace(READ, after_tail=unused(), after=unused())) is None
    assert settle_restart(replace(READ, found=Restarted(NEW, None, 0), new=NewFrames())) is None


@pytest.mark.parametrize(
    "read",
    [
        replace(READ, after=observed(LATER)),
        replace(READ, after=replace(unused(), wal=None)),
        replace(READ, after_tail=observed(OLD)),
        replace(READ, new=NewFrames(3, 2), after=observed(LATER)),
        replace(READ, after_tail=None, after=observed(LATER)),
    ],
)
def test_a_restart_during_the_look(read: RestartRead) -> None:
    """If the WAL restarts during a look, whatever the look has read proves nothing."""
    assert isinstance(settle_restart(read), Again)


def test_an_old_tail_that_is_too_long() -> None:
    """A tail that is too long is a gap, which names the limit. A tail of exactly the limit is not too long."""
    kept = tail_frames((3, 0, b"a" * 8), (4, 9, b"b" * 8))
    old = OldTail((kept,), EMPTY_TALLY, len(kept.data))
    assert not old.is_too_long
    assert replace(old, bytes_max=len(kept.data) - 1).is_too_long
    assert says(settle_restart(replace(READ, old=replace(old, bytes_max=5 << 20), after_tail=None)), "than 5 MiB")


def test_new_frames_that_can_not_be_read() -> None:
    """A published frame of the new incarnation that does not continue its chain is a gap, by its own salts."""
    tally = CommitTally((1,), OLD, doubtful=False)
    assert says(settle_restart(replace(READ, new=NewFrames(3, 2, tally))), "frame 3 of 3 was published and does")
    without_salts = replace(tally, next_salts=(0, 0))
    assert says(settle_restart(replace(READ, new=NewFrames(3, 2, without_salts))), "published without salts")


def test_how_far_the_new_frames_came() -> None:
    """The wal-index that was read after the old tail, or else a search, shows how far the new frames came.

    The number of new frames is never less than what was counted.
    """
    assert SEEN.reached == 3
    assert replace(SEEN, read=replace(READ, after_tail=observed(max_frame=21))).reached == 21
    assert replace(SEEN, read=replace(READ, after_tail=observed(max_frame=1))).reached == 3
    assert replace(SEEN, read=replace(READ, after_tail=unused()), searched=30).reached == 30
    assert replace(SEEN, read=replace(READ, after_tail=unused())).reached == 3


def test_the_count_proves_it() -> None:
    """The new incarnation and the tail have as many commits as were counted. The count is believed provisionally."""
    assert prove_restart(SEEN) == RestartProof(20, is_provisional=True)
    two_more = replace(READ, old=tail(22, 25), before=observed(ichange=105))
    assert prove_restart(replace(SEEN, read=two_more)) == RestartProof(25, is_provisional=True)
    assert says(
        prove_restart(replace(SEEN, read=replace(two_more, old=tail(22)))),
        "1 transactions after frame 20 .* overwritten",
    )


def test_the_new_frames_passed_the_cursor() -> None:
    """What was read of the old tail after that does not count, because the frames may have been new ones."""
    new = NewFrames(30, 30, CommitTally((1, 2, 30), None, doubtful=False))
    passed = replace(READ, old=tail(22), new=new, before=observed(ichange=104), behind=OLDER)
    assert passed.tail == EMPTY_TALLY
    assert replace(passed, new=replace(new, last=21)).tail == EMPTY_TALLY
    assert replace(passed, new=replace(new, last=20)).tail == passed.old.tally
    assert says(prove_restart(replace(SEEN, read=passed)), "1 transactions after frame 20")
    shown = TailEvidence(stands=False, index_bytes=INDEX_BYTES, index_reads=(index(OLD, max_frame=22),))
    assert not replace(SEEN, read=passed, tail=shown).is_whole


def test_new_frames_that_came_while_the_tail_was_read() -> None:
    """Such new frames are not counted, but they may have overwritten the tail."""
    read = replace(READ, old=tail(22), before=observed(ichange=104), after_tail=observed(max_frame=21))
    assert says(prove_restart(replace(SEEN, read=read)), "new frames reached frame 21")
    no_counter = replace(SEEN, read=read, counter=replace(SEEN.counter, mark=None), tail=None)
    assert says(prove_restart(no_counter), "can't be counted, and its new frames passed frame 20")


def test_old_frames_behind_the_new_ones_that_nothing_counts() -> None:
    """The new frames passed the cursor, so no chain shows whether the old frames behind them were committed."""
    new = NewFrames(30, 30, CommitTally((1, 2, 30), None, doubtful=False))
    passed = replace(READ, new=new, behind=OLD)
    assert says(prove_restart(replace(SEEN, read=passed)), "frames of the old incarnation follow frame 20")
    assert prove_restart(replace(SEEN, read=replace(passed, behind=OLDER))) == RestartProof(20, is_provisional=True)


@pytest.mark.parametrize("events", [ShmEvidence(), CLOSED])
def test_a_tail_that_is_complete(events: ShmEvidence) -> None:
    """With a complete tail the count is believed for good, even if the wal-index was closed.

    Only such a close is noted.
    """
    shown = TailEvidence(stands=False, index_bytes=INDEX_BYTES, index_reads=(index(OLD, max_frame=20),))
    seen = replace(SEEN, tail=shown, counter=replace(SEEN.counter, events=events))
    assert prove_restart(seen) == RestartProof(20, "count_tail" if events.closed else "count")


def test_a_third_incarnation_right_behind_the_tail() -> None:
    """A third incarnation there shows that nothing of the old one is hidden, if our frame still exists."""
    read = replace(READ, old=tail(22, behind=OLDER), before=observed(ichange=104))
    closed = replace(SEEN, read=read, counter=replace(SEEN.counter, events=CLOSED))
    assert prove_restart(closed) == RestartProof(22, "count_tail")
    gone = replace(closed, tail=TailEvidence(stands=False, index_bytes=INDEX_BYTES, index_reads=()))
    assert isinstance(prove_restart(gone), PagesWanted)


@pytest.mark.parametrize(
    "seen",
    [
        replace(SEEN, counter=replace(SEEN.counter, mark=None), tail=None),
        replace(SEEN, counter=replace(SEEN.counter, is_watched=False)),
        replace(SEEN, counter=replace(SEEN.counter, shm_serial=2)),
        replace(SEEN, counter=replace(SEEN.counter, events=ShmEvidence(index_rebuilds=True))),
        replace(SEEN, counter=replace(SEEN.counter, events=CLOSED), tail=None),
        replace(SEEN, read=replace(READ, before=observed(ichange=99))),
        replace(SEEN, read=replace(READ, before=unused())),
    ],
)
def test_where_the_counter_can_not_be_used(seen: RestartSeen) -> None:
    """Without a counter, what remains has to prove the restart. That needs the same boot, and pages of the database."""
    assert says(prove_restart(replace(seen, is_same_boot=False)), "across a reboot")
    assert says(prove_restart(seen), "where the old one ended can't be seen")
    in_sight = replace(seen, read=replace(seen.read, old=tail(behind=OLDER)))
    in_sight = replace(in_sight, tail=seen.tail and replace(seen.tail, stands=False))
    assert prove_restart(in_sight) == PagesWanted(RestartProof(20, "remains"))


NO_COUNTER = replace(SEEN, counter=replace(SEEN.counter, mark=None), tail=None)
A, B, C, D = (letter * 8 for letter in (b"a", b"b", b"c", b"d"))


def digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def test_the_pages_that_would_prove_it() -> None:
    """The pages that prove a restart are the last versions up to the last commit, without pages that it has cut off."""
    kept = tail_frames((3, 0, A), (4, 0, A), (5, 7, B), (3, 4, C), (4, 0, D))
    old = OldTail((kept,), CommitTally((23, 24), OLDER, doubtful=False), 1000)
    wanted = prove_restart(replace(NO_COUNTER, read=replace(READ, old=old)))
    assert wanted == PagesWanted(RestartProof(24, "remains"), 8, {3: digest(C), 4: digest(A)})


def test_pages_that_the_database_holds() -> None:
    """All pages of the tail, except those that the new incarnation has, prove the restart if the database holds them.

    A page that is missing belongs to a failed commit.
    """
    wanted = PagesWanted(RestartProof(23, "remains"), 8, {3: digest(A), 4: digest(B)})
    assert prove_copied_back(wanted, {3: digest(A), 4: digest(B)}) == RestartProof(23, "remains")
    assert says(prove_copied_back(wanted, {3: digest(A), 4: digest(C)}), "page 4 of the old")
    assert says(prove_copied_back(wanted, {3: digest(A)}), "page 4 of the old")
    assert prove_copied_back(wanted.without({4, 9}), {3: digest(A)}) == RestartProof(23, "remains")
    assert says(prove_copied_back(wanted, None), "the database file is gone")


def test_a_restart_that_was_only_announced() -> None:
    """The new incarnation has no frame, so all commits that were counted are in the tail."""
    announced = replace(READ, found=Restarted(NEW, None, 0), new=NewFrames(), before=observed(ichange=101, max_frame=0))
    seen = replace(SEEN, read=replace(announced, old=tail(22), after_tail=observed(max_frame=0)))
    assert prove_restart(seen) == RestartProof(22, is_provisional=True)
