"""Tests of rolling scans: their moments with made-up proofs and looks, and whole scans beside real SQLite."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.engine.rollback import rolling
from walsyncd.adapters.files.rollback_files import JournalSight, WriterLocks
from walsyncd.core.rollback.changed_pages import ChangedPages, NoProof, ScanReason
from walsyncd.engine.rollback.committed_moment import FileTimes, Hindrance, MomentStart, begin_moment
from walsyncd.engine.rollback.rolling_moments import RollingMoments, begin_rolling


def page_1(counter: int, pages: int, *, version: int = 1) -> bytes:
    head = bytearray(b"SQLite format 3\0".ljust(100, b"\0"))
    head[16:20] = bytes((16, 0, version, version))
    for at in (24, 92):
        head[at : at + 4] = counter.to_bytes(4, "big")
    head[28:32] = pages.to_bytes(4, "big")
    return bytes(head)


class Looks:
    """A file that nobody writes unless the test says so."""

    def __init__(self) -> None:
        self.counter, self.pages, self.version = 5, 10, 1
        self.writing = False
        self.named = True
        self.count = 0

    def events(self) -> int:
        return self.count

    def is_watched(self) -> bool:
        return True

    def page_1(self) -> bytes:
        return page_1(self.counter, self.pages, version=self.version)

    def locks(self) -> WriterLocks:
        return WriterLocks(reserved=self.writing, writing=self.writing)

    def journal(self) -> JournalSight:
        return JournalSight.COLD

    def times(self) -> FileTimes:
        return FileTimes(self.pages * 4096, 0, 0, settled=True)

    def is_named(self) -> bool:
        return self.named


class Proofs:
    """Journals that name these pages, or leave doubt."""

    def __init__(self, looks: Looks) -> None:
        self.looks = looks
        self.numbers = [1]
        self.doubt: NoProof | None = None
        self.is_passing = False
        self.complete = True
        self.lost = False
        self.while_proving: Callable[[], None] = lambda: None
        self.known = -1

    def prove(self, _page_1: bytes) -> ChangedPages | ScanReason:
        now = self.looks.counter
        self.while_proving()
        if self.doubt is not None:
            return self.doubt
        return ChangedPages(np.array(self.numbers, np.uint32), self.looks.pages, now, self.known)

    def is_lost(self) -> bool:
        return self.lost

    def are_complete(self) -> bool:
        return self.complete

    def take(self) -> object:
        self.known = self.looks.counter
        return self.known


class Scene:
    def __init__(self) -> None:
        self.looks = Looks()
        self.proofs = Proofs(self.looks)
        moments = begin_rolling(self.proofs, self.looks, self.start())
        assert moments is not None
        self.moments: RollingMoments = moments

    def start(self) -> MomentStart:
        start = begin_moment(self.looks)
        assert isinstance(start, MomentStart)
        return start

    def commits(self, *numbers: int) -> None:
        self.looks.counter += 1
        self.looks.count += 1
        self.proofs.numbers = [1, *numbers]

    def left(self) -> list[int]:
        return [int(each) for each in self.moments.left().numbers]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_what_changed_up_to_each_moment_is_left(scene: Scene) -> None:
    """A pass reads the pages that changed up to its moment. Later changes are left to the next pass."""
    assert scene.left() == []
    scene.commits(3, 7)
    assert scene.left() == []
    assert scene.moments.take() is not None
    scene.commits(4)
    assert scene.moments.take() is not None
    assert scene.left() == [1, 3, 4, 7]
    assert [int(each) for each in scene.moments.begin_pass().numbers] == [1, 3, 4, 7]
    assert scene.left() == []
    assert scene.moments.events == 2


def test_no_moment_while_a_writer_is_at_work(scene: Scene) -> None:
    """A later step tries again, and nothing is lost by that."""
    scene.commits(3)
    scene.looks.writing = True
    assert scene.moments.take() is None
    assert (scene.moments.hindrance, scene.moments.is_over) == (Hindrance.WRITER, False)
    scene.looks.writing = False
    assert scene.moments.take() is not None
    assert scene.left() == [1, 3]


@pytest.mark.parametrize("doubt", [None, NoProof.STEP_MISSING])
def test_a_commit_while_the_journals_are_read_voids_the_moment(scene: Scene, doubt: NoProof | None) -> None:
    """Whatever the journals seemed to prove is not believed."""
    scene.commits(3)
    scene.proofs.doubt = doubt
    scene.proofs.while_proving = lambda: scene.commits(4)
    assert scene.moments.take() is None
    assert not scene.moments.is_over
    assert scene.proofs.known == 5
    assert scene.moments.events == 0
    scene.proofs.while_proving, scene.proofs.doubt, scene.proofs.numbers = (lambda: None), None, [1, 3, 4]
    assert scene.moments.take() is not None
    assert scene.left() == [1, 3, 4]


def test_a_kept_journal_that_is_used_meanwhile_voids_the_moment(scene: Scene) -> None:
    """The journal's records may be those of the next transaction."""
    scene.commits(3)
    scene.proofs.complete = False
    assert scene.moments.take() is None
    scene.proofs.complete, scene.proofs.is_passing, scene.proofs.doubt = True, True, NoProof.STEP_MISSING
    assert scene.moments.take() is None
    assert not scene.moments.is_over
    assert scene.proofs.known == 5


def test_doubt_at_a_moment_ends_the_scan(scene: Scene) -> None:
    """Only a scan from the start can find what the file is."""
    scene.commits(3)
    scene.proofs.doubt = NoProof.STEP_MISSING
    assert scene.moments.take() is None
    assert (scene.moments.hindrance, scene.moments.is_over) == (Hindrance.UNPROVEN, True)


def test_a_scan_that_is_over_stays_over(scene: Scene) -> None:
    """The scan's pass ended early, so some pages that the pass took off the list were not read."""
    scene.commits(3)
    scene.moments.take()
    scene.moments.begin_pass()
    scene.commits(4)
    scene.proofs.doubt = NoProof.NO_HEADER
    assert scene.moments.take() is None
    scene.proofs.doubt = None
    assert scene.moments.take() is None
    assert (scene.moments.hindrance, scene.moments.is_over) == (Hindrance.UNPROVEN, True)


def test_a_missed_journal_ends_the_scan_at_once(scene: Scene) -> None:
    """A writer that never pauses leaves no moment in which the journals could be looked at."""
    scene.commits(3)
    scene.looks.writing = scene.proofs.lost = True
    assert scene.moments.take() is None
    assert (scene.moments.hindrance, scene.moments.is_over) == (Hindrance.UNPROVEN, True)


def test_a_proof_from_another_state_ends_the_scan(scene: Scene) -> None:
    """The proof says nothing about what happened between that state and the scan's own."""
    scene.commits(3)
    scene.proofs.known = 4
    assert scene.moments.take() is None
    assert scene.moments.is_over


@pytest.mark.parametrize("what", ["another file", "WAL mode"])
def test_another_database_ends_the_scan(scene: Scene, what: str) -> None:
    """The first database does not come back."""
    if what == "WAL mode":
        scene.looks.version = 2
    else:
        scene.looks.named = False
    assert scene.moments.take() is None
    assert scene.moments.is_over


def test_a_scan_rolls_from_a_moment_only(scene: Scene) -> None:
    """The journals count from their place in the order of events, so nothing may have happened since page 1
    was read.
    """
    start = scene.start()
    scene.commits(3)
    assert begin_rolling(scene.proofs, scene.looks, start) is None
    assert scene.proofs.known == 5


def test_a_header_that_is_not_plain_has_no_counter_to_begin_at(scene: Scene) -> None:
    """An old version of SQLite has written such a header."""
    scene.looks.pages = 0
    assert begin_rolling(scene.proofs, scene.looks, scene.start()) is None


@pytest.mark.parametrize("mode", ["delete", "persist"])
def test_scans_beside_transactions_find_committed_states(mode: str) -> None:
    """There are spills, rollbacks, savepoints, kills, and missed journals. Each result is the file at a moment."""
    total = rolling.Outcome()
    for seed in range(20):
        total.add(rolling.run(seed, scans=3, modes=(mode,)))
        if seed >= 2 and total.rolled >= 2:
            break
    assert total.wrong == []
    assert total.rolled >= 2
