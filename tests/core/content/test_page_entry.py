"""Tests of walsyncd.core.content.page_entry: one number for each page."""

from __future__ import annotations

import random

import numpy as np
import pytest
import xxhash

from walsyncd.core.content.page_entry import (
    ABSENT,
    differs,
    entries_of_frames,
    entries_of_pages,
    is_from_frame,
    lock_page,
)


def test_a_page_has_one_content_wherever_it_was_read() -> None:
    """A page from a frame and the same page from the file do not differ; the entry says where it came from."""
    content = random.Random(1).randbytes(3 * 512)
    frames = b"".join(bytes(24) + content[at : at + 512] for at in range(0, len(content), 512))
    by_file = entries_of_pages(content, 512)
    by_frame = entries_of_frames(frames, 512, np.arange(3))
    assert not differs(by_file, by_frame).any()
    assert not is_from_frame(by_file).any()
    assert is_from_frame(by_frame).all()


@pytest.mark.parametrize("bit", [0, 1, 8 * 511, 8 * 512 - 1])
def test_one_bit_makes_another_page(bit: int) -> None:
    """Whichever bit is flipped, the entry is another one."""
    content = bytearray(512)
    before = entries_of_pages(content, 512)
    content[bit // 8] ^= 1 << bit % 8
    assert differs(before, entries_of_pages(content, 512)).all()


def test_no_entry_equals_nothing() -> None:
    """A page that the map does not know differs from every page, and from none."""
    known, absent = entries_of_pages(bytes(512), 512), np.array([ABSENT], np.uint64)
    assert differs(absent, known).all()
    assert differs(known, absent).all()
    assert differs(absent, absent).all()


def test_no_page_has_the_entry_that_means_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hash of 0 or 1 would mean that there is no entry, so no page has it."""
    for digest in (0, 1):
        monkeypatch.setattr(xxhash, "xxh3_64_intdigest", lambda _page, digest=digest: digest)
        assert (entries_of_pages(bytes(512), 512) != ABSENT).all()
        assert (entries_of_frames(bytes(24 + 512), 512, np.arange(1)) != ABSENT).all()


@pytest.mark.parametrize(("page_size", "number"), [(512, 2097153), (4096, 262145), (65536, 16385)])
def test_the_page_that_locks_lie_on(page_size: int, number: int) -> None:
    """The lock page is the one with the byte at 1 GiB (sqlite.org/fileformat2.html, 1.4)."""
    assert lock_page(page_size) == number
