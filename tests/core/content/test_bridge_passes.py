"""Tests of walsyncd.core.content.bridge_passes, compared with a database that is written and checkpointed at random."""

from __future__ import annotations

import random

import numpy as np
import pytest

from walsyncd.core.content.bridge_passes import (
    BridgePasses,
    LastVersions,
    PageList,
    last_versions,
    size_without_frames,
)
from walsyncd.core.content.page_entry import lock_page


def pages(*numbers: int) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    return np.array(numbers, np.uint32)


def listed(found: PageList, size: int) -> set[int]:
    return set(found.numbers.tolist()) | set(range(found.beyond + 1, size + 1))


def test_one_pass_within_one_incarnation() -> None:
    """The pass has each page in its last version, in the order of the frames, up to the size at the last commit."""
    passes = BridgePasses(4096)
    passes.saw_frames(1, pages(1, 2, 7))
    passes.saw_commit(7)
    assert passes.begin_pass().skipped.tolist() == [1, 2, 7]
    passes.saw_frames(4, pages(2, 3))
    passes.saw_commit(5)
    found = passes.end_pass(7, 5)
    assert found is not None
    assert found.frames.tolist() == [1, 4, 5]
    assert found.size == 5


def test_frames_that_are_told_again() -> None:
    """What was read but not made durable is read again, and counts only once."""
    passes = BridgePasses(4096)
    passes.saw_frames(1, pages(1, 2))
    passes.begin_pass()
    passes.saw_frames(3, pages(5))
    passes.saw_frames(3, pages(6, 6))
    passes.saw_commit(9)
    passes.saw_frames(5, pages(1))
    found = passes.end_pass(9, 4)
    assert found is not None
    assert found.frames.tolist() == [1, 2, 4]


def test_a_restart_over_frames_makes_another_pass() -> None:
    """The new pass reads the pages that frames held since the pass began, and the pages past those that it has read."""
    passes = BridgePasses(4096)
    passes.begin_pass()
    passes.saw_frames(1, pages(4, 2))
    passes.saw_commit(9)
    passes.saw_restart()
    passes.saw_frames(1, pages(3))
    passes.saw_commit(9)
    assert passes.end_pass(8, 1) is None
    assert listed(passes.pages, 9) == {2, 3, 4, 9}
    assert passes.begin_pass().skipped.tolist() == [3]
    found = passes.end_pass(9, 1)
    assert isinstance(found, LastVersions)
    assert found.frames.tolist() == [1]


def test_a_restart_over_nothing_is_none() -> None:
    """A WAL that restarted without a frame has changed nothing in the file, so no pass is added."""
    passes = BridgePasses(4096)
    passes.begin_pass()
    assert passes.saw_no_frames()
    passes.saw_restart()
    found = passes.end_pass(8, 0)
    assert found is not None
    assert (found.frames.tolist(), found.size) == ([], None)


def test_after_a_gap_all_is_read_again() -> None:
    """Nobody knows which pages the missed frames held."""
    passes = BridgePasses(4096)
    passes.begin_pass()
    passes.saw_frames(1, pages(4))
    passes.saw_commit(9)
    passes.saw_restart()
    assert passes.end_pass(8, 1) is None
    passes.saw_gap()
    assert passes.voided == 1
    assert listed(passes.pages, 9) == set(range(1, 10))
    assert passes.begin_pass().skipped.tolist() == []


def test_the_lock_page_is_not_carried() -> None:
    """The lock page is not carried, because no stored frame may hold it."""
    passes = BridgePasses(65536)
    number = lock_page(65536)
    passes.saw_frames(1, pages(number, number + 1))
    passes.saw_commit(number + 1)
    passes.begin_pass()
    found = passes.end_pass(number + 1, 2)
    assert found is not None
    assert found.frames.tolist() == [2]


def test_pages_that_were_copied_back_are_read_and_not_taken() -> None:
    """Pages that were copied back are skipped, as all pages in F are. A pass over some pages reads them as well."""
    passes = BridgePasses(4096)
    passes.saw_frames(1, pages(4, 2, 7, 4))
    passes.saw_commit(9)
    first = passes.begin_pass(2)
    assert (first.skipped.tolist(), first.copied.tolist(), first.copied_upto) == ([2, 4, 7], [2, 4], 2)
    assert listed(first.to_read(), 9) == set(range(1, 10))
    passes.saw_restart()
    passes.saw_frames(1, pages(5))
    passes.saw_commit(9)
    assert passes.end_pass(6, 1) is None
    second = passes.begin_pass(1)
    assert (second.skipped.tolist(), second.copied.tolist()) == ([5], [5])
    assert listed(second.to_read(), 9) == {2, 4, 5, 7, 8, 9}


class Database:
    """A database file and its WAL as page → version; writers and checkpoints at random."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.version = 0
        self.file = dict.fromkeys(range(1, 9), 0)
        self.size = 8
        self.frames: list[tuple[int, int]] = []
        self.backfilled = 0

    def current(self) -> dict[int, int]:
        return {page: version for page, version in {**self.file, **dict(self.frames)}.items() if page <= self.size}

    def write(self) -> list[int]:
        old, self.size = self.size, self.chance.choice([self.size, self.size, self.chance.randint(4, 14)])
        wanted = {self.chance.randint(1, self.size) for _ in range(3)} | set(range(old + 1, self.size + 1)) | {1}
        for page in sorted(wanted):
            self.version += 1
            self.frames.append((page, self.version))
        return sorted(wanted)

    def checkpoint(self) -> None:
        """Copy some of the frames, or all, and then cut the file."""
        upto = self.chance.choice([len(self.frames), self.chance.randint(self.backfilled, len(self.frames))])
        last = dict(self.frames[:upto])
        self.file.update({page: version for page, version in last.items() if page <= self.size})
        self.backfilled = upto
        if upto == len(self.frames):
            self.file = {page: version for page, version in self.file.items() if page <= self.size}

    def restart(self) -> bool:
        if self.backfilled < len(self.frames) or not self.frames:
            return False
        self.frames, self.backfilled = [], 0
        return True


@pytest.mark.parametrize("seed", range(300))
def test_what_a_bridge_makes_is_the_database(seed: int) -> None:
    """Applying the bridge gives the database, whatever writers, checkpoints, restarts and gaps do while the bridge's
    pages are read one by one.
    """
    chance = random.Random(seed)
    database, passes = Database(chance), BridgePasses(4096)
    replica = dict(database.file)
    known, taken = dict(replica), dict[int, int]()
    for _ in range(chance.randint(0, 6)):
        database.write()
        database.checkpoint()
        database.restart()
    told = 0

    def tell() -> None:
        nonlocal told
        if told < len(database.frames):
            passes.saw_frames(told + 1, pages(*(page for page, _ in database.frames[told:])))
            passes.saw_commit(database.size)
            told = len(database.frames)

    def work(gaps: bool) -> bool:
        """Let one thing happen at random. Return False if it made a gap."""
        nonlocal told
        for _ in range(chance.randint(0, 2)):
            match chance.choice(["write", "write", "checkpoint", "restart"]):
                case "write":
                    database.write()
                case "checkpoint":
                    database.checkpoint()
                case "restart":
                    missed = told < len(database.frames)
                    if missed and not (gaps and chance.random() < 0.3):
                        tell()
                        missed = False
                    if database.restart():
                        told = 0
                        if missed:
                            return False
                        passes.saw_restart()
        return True

    tell()
    for round_ in range(60):
        busy = round_ < 50
        skipped = set(passes.begin_pass().skipped.tolist())
        whole, read = True, 0
        for page in range(1, 30):
            if busy and not work(gaps=round_ < 20):
                whole = False
                break
            if page not in database.file:
                break
            read = page
            wanted = page in listed(passes.pages, 30) and page not in skipped
            if wanted and taken.get(page, known.get(page)) != database.file[page]:
                taken[page] = database.file[page]
        if not whole:
            passes.saw_gap()
            told = 0
            tell()
            continue
        tell()
        found = passes.end_pass(read, told)
        if found is None:
            continue
        size = found.size or max(database.file)
        for frame in found.frames.tolist():
            page, version = database.frames[frame - 1]
            taken[page] = version
        restored = {page: version for page, version in {**replica, **taken}.items() if page <= size}
        assert restored == database.current()
        return
    pytest.fail("no pass ended")


def test_the_size_of_a_database_without_a_wal() -> None:
    """Page 1 states the size if its two counters agree and are not 0. Otherwise the length of the file counts."""

    def header(counter: int, size: int, valid_for: int) -> bytes:
        head = bytearray(100)
        head[:24] = b"SQLite format 3\x00" + (4096).to_bytes(2, "big") + bytes([2, 2, 0, 64, 32, 32])
        for at, value in ((24, counter), (28, size), (92, valid_for)):
            head[at : at + 4] = value.to_bytes(4, "big")
        return bytes(head)

    assert size_without_frames(header(7, 4, 7), 256 * 4096, 4096) == 4
    assert size_without_frames(header(7, 4, 6), 256 * 4096, 4096) == 256
    assert size_without_frames(header(7, 0, 7), 256 * 4096, 4096) == 256
    assert size_without_frames(bytes(100), 256 * 4096, 4096) == 256
    assert size_without_frames(b"", 0, 4096) == 0


def test_the_frames_with_the_last_versions() -> None:
    """Of several frames in a row, the last one of each page is returned."""
    assert last_versions(pages(1, 2, 7, 2, 3, 1)).tolist() == [3, 4, 5, 6]
    assert last_versions(pages()).tolist() == []
