"""Tests of walsyncd.core.follow.restart: what proves a restart between two incarnations."""

from __future__ import annotations

import re

import numpy as np
import pytest

from walsyncd.core.follow.decision import CounterMark, Cursor
from walsyncd.core.follow.gap import Gap
from walsyncd.core.follow.restart import (
    EMPTY_TALLY,
    CommitTally,
    Counter,
    RestartProof,
    prove_by_count,
    prove_by_remains,
    prove_emptied,
    tail_is_complete,
)
from walsyncd.core.sqlite.wal import FrameEnd, Frames, Salts, WalHeader
from walsyncd.core.sqlite.walindex import IndexHeader

OLD, NEW, LATER, OLDER = (10, 1), (11, 2), (12, 3), (9, 4)
CURSOR = Cursor(OLD, WalHeader(512, False, 0, *OLD, (0, 0)), 20, (5, 6))


def commits(*numbers: int, behind: tuple[int, int] | None = None, doubtful: bool = False) -> CommitTally:
    return CommitTally(numbers, behind, doubtful)


def by_count(
    delta: int,
    *,
    new: CommitTally = EMPTY_TALLY,
    new_last: int = 0,
    tail: CommitTally = EMPTY_TALLY,
    behind: tuple[int, int] | None = None,
    salts: tuple[int, int] = NEW,
) -> RestartProof | Gap:
    return prove_by_count(
        CURSOR, ichange_delta=delta % 2**32, new_salts=salts, new=new, new_last=new_last, tail=tail, behind=behind
    )


def by_remains(*, tail: CommitTally, new_last: int = 3, salts: tuple[int, int] = NEW) -> RestartProof | Gap:
    return prove_by_remains(CURSOR, new_salts=salts, new_last=new_last, tail=tail)


def says(proof: RestartProof | Gap, text: str) -> bool:
    return isinstance(proof, Gap) and re.search(text, proof.reason) is not None


def test_nothing_is_missing() -> None:
    """Nothing is missing if the new incarnation holds as many commits as were counted."""
    assert by_count(0) == RestartProof(20)
    assert by_count(3, new=commits(1, 2, 3), new_last=3) == RestartProof(20)
    assert by_count(3, new=commits(1, 2, 30), new_last=30, behind=OLDER) == RestartProof(20)


def test_a_spill_that_was_rolled_back_is_no_commit() -> None:
    """Old frames after the cursor hold nothing if the chain shows that none of them commits."""
    assert by_count(0, behind=OLD) == RestartProof(20)
    assert by_count(1, new=commits(1), new_last=20, behind=OLD) == RestartProof(20)


def test_nothing_is_missing_whatever_the_salts() -> None:
    """A truncation draws both salts again, and the count needs neither."""
    assert by_count(1, new=commits(1), new_last=1, salts=(777, 888)) == RestartProof(20)


def test_the_tail_is_there() -> None:
    """Exactly as many commits are after the cursor as are missing, so they are taken."""
    assert by_count(3, new=commits(1), new_last=1, tail=commits(22, 25)) == RestartProof(25)


def test_the_tail_was_overwritten() -> None:
    """A tail that was overwritten in part or as a whole is a gap that names the number of commits."""
    assert says(
        by_count(3, new=commits(1), new_last=1, tail=commits(22)), "^1 transactions after frame 20 .* overwritten"
    )
    assert says(by_count(3), "^3 transactions")


def test_the_new_frames_reached_the_tail_meanwhile() -> None:
    """What was read of the tail before can't be distinguished from what was overwritten."""
    assert says(by_count(2, new=commits(1), new_last=21, tail=commits(22)), "reached frame 21")


def test_a_tail_before_another_incarnation_than_the_next() -> None:
    """The missing commits may be those of an incarnation in between."""
    assert says(by_count(1, tail=commits(22), salts=LATER), "not the next one")
    assert by_count(1, tail=commits(22), salts=NEW) == RestartProof(22)


def test_salt_1_wraps() -> None:
    """Salt 1 is a number of 32 bits."""
    cursor = Cursor((2**32 - 1, 1), CURSOR.header, 20, (5, 6))
    proof = prove_by_count(
        cursor, ichange_delta=1, new_salts=(0, 5), new=EMPTY_TALLY, new_last=0, tail=commits(21), behind=None
    )
    assert proof == RestartProof(21)


def test_the_count_lies() -> None:
    """A count is refused if it leaves old frames though none is missing, or if it is too low for the commits that the
    WAL holds.
    """
    assert says(by_count(1, tail=commits(21, 22)), "only 1 were counted")
    assert says(by_count(1, new=commits(30), new_last=30, behind=OLD), "though no commit is missing")
    assert says(by_count(0, tail=commits(21)), "though no commit is missing")
    assert says(by_count(1, new=commits(1, 2), new_last=2), "counts 1 commits fewer")


@pytest.mark.parametrize("where", ["new", "tail"])
def test_pad_frames_make_a_count_doubtful(where: str) -> None:
    """Equal commit frames in a row make the count doubtful, and across a restart that is a gap."""
    padded = commits(21, 22, doubtful=True)
    assert says(
        by_count(2, new=padded, new_last=2) if where == "new" else by_count(2, tail=padded), "equal commit frames"
    )


def test_the_end_of_the_old_incarnation_is_in_sight() -> None:
    """A third incarnation begins right after the old one's tail, so the old incarnation ended there."""
    assert by_remains(tail=commits(22, 25, behind=OLDER)) == RestartProof(25, "remains")
    assert by_remains(tail=commits(behind=OLDER)) == RestartProof(20, "remains")
    assert by_remains(tail=commits(behind=OLDER), new_last=20) == RestartProof(20, "remains")


@pytest.mark.parametrize("behind", [None, OLD, NEW, (0, 0)])
def test_the_end_is_not_in_sight(behind: tuple[int, int] | None) -> None:
    """The file's end, a broken chain of the old incarnation, new frames, or bytes never written do not show where the
    old incarnation ended.
    """
    assert says(by_remains(tail=commits(22, behind=behind)), "can't be seen")


def test_what_remains_was_passed() -> None:
    """The new frames went further than ours, so nothing remains of our incarnation."""
    assert says(by_remains(tail=commits(behind=OLDER), new_last=21), "passed frame 20")


def test_remains_of_more_than_one_restart() -> None:
    """Only the very next incarnation left the tail as it was."""
    assert says(by_remains(tail=commits(behind=OLDER), salts=LATER), "more than once")


def frames(first: int, *records: tuple[int, int, bytes], behind: tuple[int, int] | None = None) -> Frames:
    """Return frames of 8 content bytes each, given as page number, size and content."""
    data = b"".join(
        page.to_bytes(4, "big") + size.to_bytes(4, "big") + bytes(16) + content for page, size, content in records
    )
    return Frames(
        memoryview(data),
        first,
        len(records),
        np.array([page for page, _, _ in records], np.uint32),
        np.array([size for _, size, _ in records], np.uint32),
        np.zeros((len(records), 2), np.uint32),
        FrameEnd.SALTS,
        behind,
        (0, 0),
        False,
    )


def left(salts: Salts, ichange: int, max_frame: int = 0) -> IndexHeader:
    return IndexHeader(ichange, False, 512, max_frame, 9, (0, 0), salts, 0, (0, 0, 0, 0, 0))


def test_a_wal_that_was_emptied_right_behind_the_cursor() -> None:
    """The rest of the emptied WAL has no commit since the mark, and shows that this was the very next restart."""
    mark = CounterMark(ichange=7, seen_ms=0, shm_serial=1)
    assert prove_emptied(CURSOR, mark, left(NEW, 7))
    assert not prove_emptied(CURSOR, mark, left(NEW, 8)), "a commit came after the cursor"
    assert not prove_emptied(CURSOR, mark, left(LATER, 7)), "another restart lies between"
    assert not prove_emptied(CURSOR, mark, left(OLD, 7)), "whoever emptied the WAL did not say so"
    assert not prove_emptied(CURSOR, mark, left(NEW, 7, max_frame=1)), "there were frames"
    assert not prove_emptied(CURSOR, mark, None)
    assert not prove_emptied(CURSOR, None, left(NEW, 7))
    announced = Cursor(NEW, None, 0, (0, 0))
    assert prove_emptied(announced, mark, left(NEW, 7))
    assert not prove_emptied(announced, mark, left(NEW, 8)), "a commit came and went"
    assert prove_emptied(announced, mark, left(LATER, 7)), "and was emptied once more"


INDEX_BYTES = 32_768  # one block: 4062 frames


def whole(
    tail: CommitTally = EMPTY_TALLY,
    *,
    salts: Salts = NEW,
    stands: bool = True,
    ichange: int = 5,
    index_bytes: int = INDEX_BYTES,
    index_read: IndexHeader | None = None,
) -> bool:
    return tail_is_complete(
        CURSOR,
        new_salts=salts,
        tail=tail,
        stands=stands,
        mark=CounterMark(ichange, 0, 1),
        index_bytes=index_bytes,
        last_index_reads=() if index_read is None else (index_read,),
    )


def test_the_old_incarnation_is_whole_if_nothing_was_copied_back_after_its_tail() -> None:
    """The old incarnation is whole whatever came later, but not if it had come further, or less far, or was another
    one.
    """
    assert whole(index_read=left(OLD, 5, 20))
    assert whole(index_read=left(OLD, 5, 20), stands=False, salts=LATER)
    assert whole(commits(21, 23), index_read=left(OLD, 5, 23))
    assert not whole(commits(21, 23), index_read=left(OLD, 5, 20))
    assert not whole(commits(21, 23), index_read=left(OLD, 5, 24))
    assert not whole(index_read=left(NEW, 5, 20))
    assert not whole()


def test_the_old_incarnation_is_whole_if_a_third_one_is_right_behind_it() -> None:
    """The proof also requires that our frame was not overwritten and that nothing came between."""
    assert whole(commits(21, behind=OLDER))
    assert not whole(commits(21, behind=OLDER), stands=False)
    assert not whole(commits(21, behind=OLDER), salts=LATER)


@pytest.mark.parametrize("behind", [None, OLD, NEW, (0, 0)])
def test_what_shows_no_third_incarnation(behind: Salts | None) -> None:
    """The end of a file that may have been cut there, and frames that may be of these two incarnations, show no third
    one.
    """
    assert not whole(commits(21, behind=behind))


def test_more_commits_than_the_wal_index_has_room_for_are_not_hidden() -> None:
    """As many commits as were counted at the mark would be after the tail.

    This is certain only of the very next incarnation.
    """
    assert not whole(ichange=4062 - 20)
    assert whole(ichange=4063 - 20, stands=False)
    assert not whole(ichange=4063 - 20, salts=LATER)
    assert not whole(commits(21), ichange=4062 - 21)
    assert whole(commits(21), ichange=4063 - 21)
    assert not whole(ichange=4063 - 20, index_bytes=2 * INDEX_BYTES)
    assert whole(ichange=4063 + 4096 - 20, index_bytes=2 * INDEX_BYTES)


A, B = b"a" * 8, b"b" * 8


def test_counting_in_pieces() -> None:
    """The commits of all pieces are counted, and the salts after the last piece are returned."""
    counter = Counter()
    counter.feed(frames(1, (3, 0, A), (3, 9, A)))
    counter.feed(frames(3, (3, 9, B), behind=OLDER))
    assert counter.tally() == CommitTally((2, 3), OLDER, doubtful=False)
    counter.feed(frames(4, behind=None))
    assert counter.tally() == CommitTally((2, 3), None, doubtful=False)


@pytest.mark.parametrize("cut", [False, True])
def test_a_commit_and_its_pad(*, cut: bool) -> None:
    """A pad repeats page, size and content of the commit frame before it, also across two pieces."""
    counter = Counter()
    if cut:
        counter.feed(frames(1, (3, 9, A)))
        counter.feed(frames(2, (3, 9, A)))
    else:
        counter.feed(frames(1, (3, 9, A), (3, 9, A)))
    assert counter.tally().doubtful


def test_no_pad() -> None:
    """A frame with another page, size or content is no pad, and neither is one after another frame."""
    for second in ((4, 9, A), (3, 8, A), (3, 9, B)):
        counter = Counter()
        counter.feed(frames(1, (3, 9, A), second))
        assert not counter.tally().doubtful
    counter = Counter()
    counter.feed(frames(1, (3, 9, A), (5, 0, A), (3, 9, A)))
    assert not counter.tally().doubtful


def test_the_commit_before_the_run_can_be_padded() -> None:
    """The first frame that is counted may be the pad of the commit before the run."""
    before = frames(20, (3, 9, A))
    counter = Counter(20, bytes(before.data))
    counter.feed(frames(21, (3, 9, A)))
    assert counter.tally().doubtful
