"""Tests that the vectorised checksum is SQLite's, for any data, byte order, page size and starting point."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wal_files import PAGE_SIZES, reference_checksum
from walsyncd.core.sqlite.checksum import Chain, chain_before, checksum, frame_chains, moved_chains

U32 = st.integers(0, 0xFFFFFFFF)
CHAINS = st.tuples(U32, U32)


def ours(data: bytes, start: Chain, big_endian: bool) -> Chain:
    return checksum(data, start, big_endian=big_endian)


def reference(data: bytes, start: Chain, big_endian: bool) -> Chain:
    return reference_checksum(data, start, big_endian=big_endian)


def reference_chains(frames: bytes, frame_size: int, start: Chain, *, big_endian: bool) -> list[Chain]:
    chains = [start]
    for at in range(0, len(frames), frame_size):
        covered = frames[at : at + 8] + frames[at + 24 : at + frame_size]
        chains.append(reference(covered, chains[-1], big_endian))
    return chains[1:]


@given(data=st.binary(max_size=600), start=CHAINS, big_endian=st.booleans())
def test_equals_the_reference(data: bytes, start: Chain, big_endian: bool) -> None:
    """Any even number of words, below and above the limit of the plain loop, gives the reference's sums."""
    data = data[: len(data) // 8 * 8]
    assert ours(data, start, big_endian) == reference(data, start, big_endian)


@given(size=st.integers(0, 12_000), seed=U32, start=CHAINS, big_endian=st.booleans())
@settings(max_examples=60, deadline=None)
def test_long_data_equals_the_reference(size: int, seed: int, start: Chain, big_endian: bool) -> None:
    """Data of several rows and a rest, cut anywhere, gives the reference's sums."""
    data = random.Random(seed).randbytes(size * 8)
    assert ours(data, start, big_endian) == reference(data, start, big_endian)


@given(data=st.binary(max_size=2000), cut=st.integers(0, 250), start=CHAINS, big_endian=st.booleans())
def test_continues(data: bytes, cut: int, start: Chain, big_endian: bool) -> None:
    """The sum of the whole is the sum of the rest, started from the sum of the beginning."""
    data = data[: len(data) // 8 * 8]
    middle = ours(data[: cut * 8], start, big_endian)
    assert ours(data[cut * 8 :], middle, big_endian) == ours(data, start, big_endian)


@given(count=st.integers(0, 70), seed=U32, before=CHAINS, start=CHAINS, big_endian=st.booleans())
@settings(max_examples=60, deadline=None)
def test_chains_moved_to_another_start(count: int, seed: int, before: Chain, start: Chain, big_endian: bool) -> None:
    """The moved chains are those that the frames themselves give from the other start."""
    frames = random.Random(seed).randbytes(count * 536)
    chains = frame_chains(frames, 536, before, big_endian=big_endian)
    moved = moved_chains(chains, 536, before, start)
    assert moved.tolist() == frame_chains(frames, 536, start, big_endian=big_endian).tolist()


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_chains_moved_with_every_page_size(page_size: int) -> None:
    """The same four words are left out for every page size."""
    frames = random.Random(1).randbytes(3 * (24 + page_size))
    chains = frame_chains(frames, 24 + page_size, (1, 2), big_endian=False)
    moved = moved_chains(chains, 24 + page_size, (1, 2), (2**32 - 1, 7))
    assert moved.tolist() == frame_chains(frames, 24 + page_size, (2**32 - 1, 7), big_endian=False).tolist()


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("fill", [b"\x00", b"\xff", b"\x80"])
def test_extreme_words(fill: bytes, big_endian: bool) -> None:
    """Sums that overflow in every step wrap as in SQLite."""
    data = fill * 40_000
    start = (0xFFFFFFFF, 0xFFFFFFFF)
    assert ours(data, start, big_endian) == reference(data, start, big_endian)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_frames_of_every_page_size(page_size: int, big_endian: bool) -> None:
    """One chain a frame, over 8 bytes of its header and its page, across several blocks of frames."""
    frame_size = page_size + 24
    frames = random.Random(page_size).randbytes(frame_size * max(9, 600_000 // frame_size))
    chains = frame_chains(frames, frame_size, (7, 8), big_endian=big_endian)
    assert chains.dtype == np.uint32
    expected = reference_chains(frames, frame_size, (7, 8), big_endian=big_endian)
    assert [tuple(chain) for chain in chains.tolist()] == expected


@given(count=st.integers(0, 40), seed=U32, start=CHAINS, big_endian=st.booleans())
@settings(deadline=None)
def test_any_number_of_frames(count: int, seed: int, start: Chain, big_endian: bool) -> None:
    """Every number of frames, none included, gives the reference's chains."""
    frames = random.Random(seed).randbytes(536 * count)
    chains = frame_chains(frames, 536, start, big_endian=big_endian)
    assert chains.shape == (count, 2)
    expected = reference_chains(frames, 536, start, big_endian=big_endian)
    assert [tuple(chain) for chain in chains.tolist()] == expected


@pytest.mark.parametrize("skip", range(1, 9))
def test_data_at_any_address(skip: int) -> None:
    """A view into the middle of a buffer, aligned or not, gives the same sums as a copy of it."""
    data = random.Random(skip).randbytes(skip + 4120 * 70)
    view = memoryview(data)[skip:]
    assert checksum(view, (1, 2), big_endian=False) == checksum(bytes(view), (1, 2), big_endian=False)
    chains = frame_chains(view, 4120, (1, 2), big_endian=True)
    assert chains.tolist() == frame_chains(bytes(view), 4120, (1, 2), big_endian=True).tolist()


def test_odd_length_is_a_bug_of_the_caller() -> None:
    """Data that is not a multiple of 8 bytes has no checksum."""
    with pytest.raises(AssertionError, match="checksum of 12 bytes"):
        checksum(bytes(12), (0, 0), big_endian=False)


def test_threads_share_the_tables() -> None:
    """Threads that begin with different page sizes at once get the sums that each alone gets."""
    frames = {size: random.Random(size).randbytes((size + 24) * 5) for size in PAGE_SIZES}

    def last(size: int) -> list[int]:
        chains: list[int] = frame_chains(frames[size], size + 24, (1, 2), big_endian=False)[-1].tolist()
        return chains

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(last, PAGE_SIZES * 5))
    assert results == [last(size) for size in PAGE_SIZES] * 5


@given(page_size=st.sampled_from(PAGE_SIZES), seed=st.integers(0, 1 << 32), start=CHAINS, big_endian=st.booleans())
@settings(max_examples=30)
def test_chain_can_be_followed_backwards(page_size: int, seed: int, start: Chain, big_endian: bool) -> None:
    """From a frame and the checksum after it follows the checksum before it."""
    frame = random.Random(seed).randbytes(24 + page_size)
    ((s0, s1),) = frame_chains(frame, len(frame), start, big_endian=big_endian)
    assert chain_before(frame, (int(s0), int(s1)), big_endian=big_endian) == start
