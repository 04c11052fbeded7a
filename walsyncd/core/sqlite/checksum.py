"""The checksum of SQLite's WAL and wal-index (sqlite.org/fileformat2.html, section 4.2).

The input is an even number of 32-bit words ``x[0..n-1]``, big- or little-endian. The state is two u32:

    for i in 0, 2, 4 … n-2:        (modulo 2^32)
        s0 += x[i]   + s1
        s1 += x[i+1] + s0

One step is linear: ``(s0, s1)`` is multiplied by ``M = [[1, 1], [1, 2]]`` and the words are added in. With
the Fibonacci numbers F(0) = 0, F(1) = 1, …:

    M^k = [[F(2k-1), F(2k)], [F(2k), F(2k+1)]]
    a word with r words after it adds  x * F(r)  to s0  and  x * F(r+1)  to s1

If the same words are chained from two starts, the results differ after k steps by M^k times the difference of the
starts. The sum of a row of n words is a product with 2 x n weights, and rows are chained by
``next = M^(n/2) * chain + sum``. M has determinant 1, so a chain can also be followed backwards.

A frame of the WAL is a 24-byte header and a page. Its checksum covers words 0 and 1 of the header (page number and
size) and the page. It starts from the checksum of the frame before, or for frame 1 from the checksum of the WAL header.
Words 2 to 5, the salts and the checksum itself, are left out: their weights are zero.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TypeAlias

from walsyncd.core.sqlite.arrays import NDArray, np

Chain: TypeAlias = tuple[int, int]
Buffer: TypeAlias = bytes | bytearray | memoryview
Words: TypeAlias = "NDArray[np.uint32]"

_UNCOVERED = slice(2, 6)
_LOOP_WORDS_MAX = 64  # below this the plain loop is faster than a numpy call (measured)
_ROW_WORDS = 1024
_BLOCK_BYTES = 256 * 1024  # rows that are being worked on stay in the second-level cache


def checksum(data: Buffer, start: Chain, *, big_endian: bool) -> Chain:
    """Return the checksum of ``data`` (a multiple of 8 bytes), continuing from ``start``."""
    assert len(data) % 8 == 0, f"checksum of {len(data)} bytes: not a multiple of 8"
    if len(data) <= _LOOP_WORDS_MAX * 4:
        return _loop(data, start, big_endian=big_endian)
    words = np.frombuffer(data, ">u4" if big_endian else "<u4")
    whole = len(words) // _ROW_WORDS * _ROW_WORDS
    chain = start
    for row, part in ((_ROW_WORDS, words[:whole]), (len(words) - whole, words[whole:])):
        if len(part):
            last = _row_chains(part.reshape(-1, row), _weights(row), row, chain)[-1]
            chain = (int(last[0]), int(last[1]))
    return chain


def frame_chains(frames: Buffer, frame_size: int, start: Chain, *, big_endian: bool) -> Words:
    """Return the checksum after each of the whole ``frames``, shape (count, 2), continuing from ``start``.

    The checksums are computed from the bytes. The checksums in the frames' headers are ignored.
    """
    words = frame_size // 4
    rows = np.frombuffer(frames, ">u4" if big_endian else "<u4").reshape(-1, words)
    return _row_chains(rows, _frame_weights(words), words - 4, start)


def chain_before(frame: Buffer, after: Chain, *, big_endian: bool) -> Chain:
    """Return the checksum before one whole frame, given the checksum ``after`` the frame. A step can be inverted."""
    (own,) = frame_chains(frame, len(frame), (0, 0), big_endian=big_endian)
    (low, middle), (_, high) = _powers(len(frame) // 4 - 4)[0]
    s0, s1 = (after[0] - int(own[0])) & 0xFFFFFFFF, (after[1] - int(own[1])) & 0xFFFFFFFF
    a, b, d = int(low), int(middle), int(high)  # M has determinant 1, and so have its powers
    return (d * s0 - b * s1) & 0xFFFFFFFF, (a * s1 - b * s0) & 0xFFFFFFFF


def moved_chains(chains: Words, frame_size: int, before: Chain, start: Chain) -> Words:
    """Return the chains that frames have if they continue from ``start``, given the ``chains`` from ``before`` on.

    All chains are of the same byte order. The frames themselves are not needed.
    """
    if not len(chains):
        return chains
    apart = np.array(start, np.uint32) - np.array(before, np.uint32)
    reach = 1 << (len(chains) - 1).bit_length()
    moved: Words = chains + _repeated(frame_size // 4 - 4, reach)[: len(chains)] @ apart
    return moved


def _loop(data: Buffer, start: Chain, *, big_endian: bool) -> Chain:
    """Compute a checksum by its definition, for a few words."""
    s0, s1 = start
    for x, y in struct.iter_unpack(">2I" if big_endian else "<2I", data):
        s0 = (s0 + x + s1) & 0xFFFFFFFF
        s1 = (s1 + y + s0) & 0xFFFFFFFF
    return s0, s1


def _row_chains(rows: NDArray[np.uint32], weights: Words, covered: int, start: Chain) -> Words:
    """Return the chain after each row; ``covered`` is the number of words of a row that the checksum covers."""
    chains = np.empty((len(rows), 2), np.uint32)
    before = np.array(start, np.uint32)
    step = max(1, _BLOCK_BYTES // (4 * rows.shape[1]))
    for at in range(0, len(rows), step):
        block = chains[at : at + step]
        # astype converts a foreign byte order to native words, block by block. It costs nothing for native words.
        words = rows[at : at + step].astype(np.uint32, copy=False)
        np.einsum("ij,kj->ik", words, weights, out=block)
        _accumulate(block, covered, before)
        before = block[-1]
    return chains


def _accumulate(sums: Words, covered: int, before: Words) -> None:
    """Turn the rows' own sums into running chains in place: a prefix scan that doubles its stride."""
    powers = _powers(covered)
    sums[0] += powers[0] @ before
    stride = 1
    while stride < len(sums):
        sums[stride:] += sums[:-stride] @ powers[stride.bit_length() - 1].T
        stride *= 2


@lru_cache(maxsize=1)
def _fibonacci() -> Words:
    """Return F(0), F(1) … modulo 2^32, as many as the largest page needs."""
    numbers = [0, 1]
    while len(numbers) < 65536 // 4 + 4:
        numbers.append((numbers[-2] + numbers[-1]) & 0xFFFFFFFF)
    return np.array(numbers, np.uint32)


@lru_cache(maxsize=32)
def _weights(words: int) -> Words:
    """Return what each word of a row adds to s0 and s1: shape (2, words)."""
    numbers = _fibonacci()
    return _frozen(np.stack([numbers[:words][::-1], numbers[1 : words + 1][::-1]]))


@lru_cache(maxsize=16)
def _frame_weights(words: int) -> Words:
    """Return the weights of a frame's words: a row's weights, with zeros for the words that the checksum leaves out."""
    return _frozen(np.insert(_weights(words - 4), [_UNCOVERED.start] * 4, np.uint32(0), axis=1))


@lru_cache(maxsize=1024)
def _powers(words: int) -> tuple[Words, ...]:
    """Return the matrices (2 x 2) by which 1, 2, 4, 8 … rows of ``words`` covered words change a chain."""
    low, middle, high = _fibonacci()[words - 1 : words + 2]
    powers = [np.array([[low, middle], [middle, high]], np.uint32)]
    while len(powers) < _BLOCK_BYTES.bit_length():
        powers.append(powers[-1] @ powers[-1])
    return tuple(_frozen(power) for power in powers)


@lru_cache(maxsize=64)
def _repeated(words: int, count: int) -> Words:
    """Return the matrices by which 1, 2, 3 … ``count`` (a power of two) rows change a chain: shape (count, 2, 2)."""
    low, middle, high = _fibonacci()[words - 1 : words + 2]
    powers = np.array([[[low, middle], [middle, high]]], np.uint32)
    while len(powers) < count:
        powers = np.concatenate([powers, powers @ powers[-1]])
    return _frozen(powers)


def _frozen(values: Words) -> Words:
    """Return the values as a contiguous, read-only array, since the caches are shared between threads."""
    values = np.ascontiguousarray(values)
    values.flags.writeable = False
    return values
