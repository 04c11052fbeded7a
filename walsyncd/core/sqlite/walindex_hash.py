"""The hash tables of SQLite's wal-index: which frame holds which page (sqlite.org/walformat.html, section 2.2).

The wal-index consists of blocks of 32,768 bytes. Block 0 begins with the 136 bytes of ``walindex``:

===========  =======================  ============================================
             block 0                  any other
===========  =======================  ============================================
frames       1 … 4062                 4096 each
aPgno        u32[4062] at 136         u32[4096] at 0: page number of each frame
aHash        u16[8192] at 16384       u16[8192] at 16384
===========  =======================  ============================================

``aHash`` finds a page. Its entry is in slot ``(page * 383) % 8192``, or in the next slot that was free. A slot holds
the frame's index in the block, from 1, or 0 if it is free. Entries after mxFrame are not valid: a reader ignores them,
and a writer removes them before it adds its own. Numbers are in the byte order of the machine.
"""

from __future__ import annotations

from collections.abc import Iterator

from walsyncd.core.sqlite.arrays import np
from walsyncd.core.sqlite.walindex import WALINDEX_READ_SIZE

BLOCK_BYTES = 32_768
_HASH_OFFSET = 16_384
_SLOTS = 8192
_PRIME = 383
_FIRST_FRAMES = (_HASH_OFFSET - WALINDEX_READ_SIZE) // 4
_FRAMES = _HASH_OFFSET // 4


def blocks_for(frame: int) -> int:
    """Return how many blocks an index up to ``frame`` has. There is at least one."""
    return 1 + max(0, -(-(frame - _FIRST_FRAMES) // _FRAMES))


def add_to_block(content: memoryview, block: int, start: int, page_numbers: list[int]) -> None:
    """Enter frames into one block, the first of them at place ``start`` (from 1). ``content`` is the whole block.

    A page number is written before the slot that leads to it, since other processes read meanwhile.
    """
    numbers = content[WALINDEX_READ_SIZE if block == 0 else 0 : _HASH_OFFSET].cast("I")
    slots = content[_HASH_OFFSET:BLOCK_BYTES].cast("H")
    _forget_from(numbers, slots, start)
    for place, page in enumerate(page_numbers, start):
        numbers[place - 1] = page
        slot = page * _PRIME % _SLOTS
        while slots[slot]:
            slot = (slot + 1) % _SLOTS
        slots[slot] = place


def pieces_of(first: int, count: int) -> Iterator[tuple[int, int, int]]:
    """Yield where ``count`` frames from ``first`` on are entered: block, place of the first frame in it, and count."""
    while count:
        block = blocks_for(first) - 1
        before = 0 if block == 0 else _FIRST_FRAMES + (block - 1) * _FRAMES
        room = (_FIRST_FRAMES if block == 0 else _FRAMES) - (first - before - 1)
        taken = min(count, room)
        yield block, first - before, taken
        first, count = first + taken, count - taken


def _forget_from(numbers: memoryview, slots: memoryview, start: int) -> None:
    """Remove the entries of a writer that never committed."""
    if start > 1 and not numbers[start - 1]:
        return
    found = np.frombuffer(slots, np.uint16)
    for slot in np.flatnonzero(found >= start).tolist():
        slots[slot] = 0
    for place in (np.flatnonzero(np.frombuffer(numbers, np.uint32)[start - 1 :]) + start - 1).tolist():
        numbers[place] = 0
