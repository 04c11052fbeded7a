"""Tests of which pages remain to be read while transactions change a file."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from walsyncd.core.rollback.changed_pages import ChangedPages
from walsyncd.core.rollback.rolling_scan import RollingScan


def changed(numbers: list[int], size: int, before: int, after: int) -> ChangedPages:
    return ChangedPages(np.array(sorted(set(numbers)), np.uint32), size, after, before)


def test_first_pass_reads_all_and_the_next_what_changed_since() -> None:
    """A page that changed before a pass began is read by that pass."""
    scan = RollingScan(7, 4)
    assert scan.add(changed([2, 5], 5, 7, 8))
    assert scan.begin_pass().tolist() == [1, 2, 3, 4, 5]
    assert scan.left().tolist() == []
    assert scan.add(changed([1, 3], 5, 8, 9))
    assert scan.add(changed([1, 6], 6, 9, 10))
    assert scan.begin_pass().tolist() == [1, 3, 6]
    assert (scan.passes, scan.counter, scan.page_count) == (2, 10, 6)


def test_pages_that_were_cut_off_are_not_read() -> None:
    """The database is smaller now than it was at the first moment."""
    scan = RollingScan(7, 40)
    scan.begin_pass()
    assert scan.add(changed([1, 30], 40, 7, 8))
    assert scan.add(changed([1], 20, 8, 9))
    assert scan.left().tolist() == [1]


def test_a_step_that_is_missing_is_noticed() -> None:
    """A change between two other moments is refused."""
    scan = RollingScan(7, 4)
    assert not scan.add(changed([1], 4, 8, 9))
    assert scan.counter == 7


@given(st.integers(0, 2**32))
def test_what_was_read_last_is_the_state_of_the_last_moment(seed: int) -> None:
    """A model reads pages one by one, torn ones too, while transactions change, grow and cut the file."""
    rng = random.Random(seed)
    file = dict.fromkeys(range(1, rng.randint(2, 12)), 0)
    scan = RollingScan(0, len(file))
    read: dict[int, int] = {}
    counter = 0
    for _ in range(rng.randint(1, 4)):
        to_read = scan.begin_pass().tolist()
        rng.shuffle(to_read)
        while to_read:
            before, touched = len(file), set[int]()
            for _ in range(rng.randint(0, 3)):  # one transaction, with page reads between its writes
                number = rng.randint(1, len(file) + 1)
                file[number] = rng.randrange(2**30)
                touched.add(number)
                for number in to_read[: rng.randint(0, 2)]:
                    read[number] = file.get(number, -1)
                    to_read.remove(number)
            size = rng.choice([len(file), len(file), max(1, len(file) - 2)])
            file = {number: file[number] for number in range(1, size + 1)}
            numbers = [*touched, 1, *range(before + 1, size + 1)]
            assert scan.add(changed([each for each in numbers if each <= size], size, counter, counter + 1))
            counter += 1
            for number in to_read[: rng.randint(0, 3)]:
                read[number] = file.get(number, -1)
                to_read.remove(number)
    for number in scan.left().tolist():
        read[number] = file[number]
    assert {number: read[number] for number in file} == file
