"""Tests of walsyncd.core.content.redo: what frames do to a page map, compared with a model that takes one frame at a
time.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from walsyncd.core.content import redo
from walsyncd.core.content.page_entry import ABSENT, entries_of_pages, lock_page
from walsyncd.core.content.page_frames import frames_of_pages
from walsyncd.core.content.redo import (
    Redo,
    RedoBuilder,
    apply,
    combined,
    format_entries,
    nothing_to_redo,
    parse_entries,
)
from walsyncd.core.sqlite.wal import WAL_HEADER_SIZE, Frames, format_wal_header, parse_wal_header, read_frames
from walsyncd.core.stored.epoch import begin_stamp

PAGE_SIZE = 512
PAGES = 12

# A transaction: the pages that it writes, in order, and the size that it commits with.
Transaction = tuple[list[int], int]
TRANSACTIONS = st.lists(
    st.tuples(st.lists(st.integers(1, PAGES), min_size=1, max_size=6), st.integers(1, PAGES)), min_size=1, max_size=6
)


@dataclass
class Model:
    """A page map as a dict, which takes one frame at a time."""

    entries: dict[int, int] = field(default_factory=dict)

    def take(self, transaction: Transaction, contents: list[bytes]) -> None:
        pages, size = transaction
        for page, content in zip(pages, contents, strict=True):
            self.entries[page] = int(entries_of_pages(content, PAGE_SIZE)[0]) | 1
        self.entries = {page: entry for page, entry in self.entries.items() if page <= size}

    def array(self) -> list[int]:
        return [self.entries.get(page, ABSENT) for page in range(1, PAGES + 1)]


def frames_of(transactions: list[Transaction], seed: int) -> tuple[Frames, list[list[bytes]]]:
    """Return the frames of these transactions, and their pages."""
    chance = random.Random(seed)
    header, stamp = begin_stamp(PAGE_SIZE, 1, (1, 2))
    data, contents = b"", []
    for pages, size in transactions:
        content = [chance.randbytes(PAGE_SIZE) for _ in pages]
        block, stamp = frames_of_pages(list(zip(pages, content, strict=True)), stamp, size=size)
        data += block
        contents.append(content)
    parsed = parse_wal_header(header)
    assert parsed is not None
    return read_frames(data, parsed, first=1, start=parsed.chain), contents


def built(frames: Frames, *cuts: int) -> Redo:
    """Return the row of frames that came in runs, cut at ``cuts``."""
    builder = RedoBuilder(PAGE_SIZE)
    for low, high in zip((0, *cuts), (*cuts, frames.count), strict=True):
        for piece in frames.pieces(max(1, frames.count)):
            size = len(frames.data) // frames.count
            builder.add(
                Frames(
                    data=piece.data[low * size : high * size],
                    first=low + 1,
                    count=high - low,
                    page_numbers=piece.page_numbers[low:high],
                    sizes=piece.sizes[low:high],
                    chains=piece.chains[low:high],
                    end=piece.end,
                    next_salts=None,
                    before=(0, 0),
                    big_endian=False,
                )
            )
    return builder.finish()


@given(before=TRANSACTIONS, transactions=TRANSACTIONS, seed=st.integers(0, 1000), data=st.data())
def test_a_row_does_what_its_frames_do(
    before: list[Transaction], transactions: list[Transaction], seed: int, data: st.DataObject
) -> None:
    """A row has the effect of its frames, however these are cut into runs. A page past a commit's size is forgotten."""
    model = Model()
    for frames_in in (before, transactions):
        frames, contents = frames_of(frames_in, seed)
        first = Model() if frames_in is before else model
        for transaction, content in zip(frames_in, contents, strict=True):
            first.take(transaction, content)
        if frames_in is before:
            model = first
            start = np.array(model.array(), np.uint64)
    cut = data.draw(st.integers(0, frames.count))
    row = built(frames, cut)
    assert apply(row, start, 1).tolist() == model.array()
    assert row.size == transactions[-1][1]


@given(runs=st.lists(TRANSACTIONS, min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_rows_add_up(runs: list[list[Transaction]], seed: int) -> None:
    """One row that is the sum of all rows has the effect of the rows one after the other, in blocks of any size."""
    rows = [built(frames_of(run, seed + number)[0]) for number, run in enumerate(runs)]
    entries = entries_of_pages(random.Random(seed).randbytes(PAGES * PAGE_SIZE), PAGE_SIZE)
    one_by_one = entries
    for row in rows:
        one_by_one = apply(row, one_by_one, 1)
    whole = combined(rows)
    assert apply(whole, entries, 1).tolist() == one_by_one.tolist()
    for at in range(0, PAGES, 5):
        assert apply(whole, entries[at : at + 5], at + 1).tolist() == one_by_one[at : at + 5].tolist()
    assert combined([combined(rows[:1]), combined(rows[1:])]) == whole


@given(transactions=TRANSACTIONS, seed=st.integers(0, 1000))
def test_a_row_survives_the_journal(transactions: list[Transaction], seed: int) -> None:
    """Format and parse are inverse."""
    row = built(frames_of(transactions, seed)[0])
    assert parse_entries(format_entries(row), size_min=row.size_min, size=row.size) == row


@pytest.mark.parametrize("text", [b"x", bytes(12), bytes(24), (5).to_bytes(4, "little") * 2 + bytes(16)])
def test_a_text_that_is_no_row(text: bytes) -> None:
    """A text is no row if it is too short, names page 0, or has pages that do not ascend."""
    with pytest.raises(ValueError, match=r"pages|page numbers"):
        parse_entries(text, size_min=1, size=1)


def test_a_database_that_shrinks_and_grows_forgets() -> None:
    """A page that comes back is not the one that was cut off, though no frame of the row names it."""
    row = built(frames_of([([1], 5), ([1], 12)], seed=1)[0])
    after = apply(row, np.full(12, 8, np.uint64), 1)
    assert after[1:5].tolist() == [8] * 4
    assert after[5:].tolist() == [ABSENT] * 7


def test_the_lock_page_has_no_entry() -> None:
    """The lock page gets no entry, because SQLite would apply a stored frame of it."""
    header = format_wal_header(page_size=65536, big_endian=False, sequence=1, salt1=1, salt2=2)
    _, stamp = begin_stamp(65536, 1, (1, 2))
    number = lock_page(65536)
    block, _ = frames_of_pages([(number, bytes(65536)), (number + 1, bytes(65536))], stamp, size=number + 1)
    parsed = parse_wal_header(header)
    assert parsed is not None
    builder = RedoBuilder(65536)
    builder.add(read_frames(block, parsed, first=1, start=parsed.chain))
    assert builder.finish().pages.tolist() == [number + 1]
    assert len(header) == WAL_HEADER_SIZE


def test_nothing_changes_nothing() -> None:
    """The row of no frames changes nothing."""
    entries = np.arange(4, 12, dtype=np.uint64)
    assert apply(nothing_to_redo(), entries, 1).tolist() == entries.tolist()
    assert combined([]) == nothing_to_redo()


@pytest.mark.parametrize("count", [redo._LOOP_PAGES_MAX, redo._LOOP_PAGES_MAX + 1, 1000])
def test_the_last_content_of_each_page_of_few_frames_and_of_many(count: int) -> None:
    """The two ways to find each page's last content, for few and for many frames, give the same result."""
    pages = np.array([random.Random(count).randint(1, count // 3) for _ in range(count)], np.uint32)
    different, last = redo._last_of_each(pages)
    expected = {int(page): at for at, page in enumerate(pages)}
    assert dict(zip(different.tolist(), last.tolist(), strict=True)) == expected
    assert different.tolist() == sorted(expected)
    assert different.dtype == np.uint32
