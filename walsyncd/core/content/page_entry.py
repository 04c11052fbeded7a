"""The entries of a page map: one number for each page, a hash of the content that a restore would produce.

An entry has 64 bits:

    0            there is no entry: the page does not exist in the replica, or its content is not known
    bits 1 … 63  bits 1 … 63 of the XXH3 of the page (64 bits, no seed)
    bit 0        1 if the content came with a frame, 0 if it was read from the database file

Bit 0 matters only where pages are encrypted again when a checkpoint copies them (SQLite3 Multiple Ciphers with its
default cipher, among others). The file never has the frame's bytes then, so an entry that came with a frame does not
describe the file. ``differs`` ignores bit 0, and ``is_from_frame`` reads it.

The page of SQLite's lock bytes never holds content, so it never has an entry (sqlite.org/fileformat2.html, 1.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import xxhash

from walsyncd.core.sqlite.arrays import NDArray, np
from walsyncd.core.sqlite.checksum import Buffer
from walsyncd.core.sqlite.wal import FRAME_HEADER_SIZE

Entries: TypeAlias = "NDArray[np.uint64]"
PageNumbers: TypeAlias = "NDArray[np.uint32]"

ENTRY_SIZE = 8  # bytes of an entry in the map file
ABSENT = 0
LOCK_BYTE = 0x40000000

_FROM_FRAME = 1
_SMALLEST = 2  # the entry of a page whose hash has no bit set except perhaps bit 0, since 0 means "no entry"


def lock_page(page_size: int) -> int:
    """Return the number of the page of SQLite's lock bytes."""
    return LOCK_BYTE // page_size + 1


def entries_of_pages(pages: Buffer, page_size: int) -> Entries:
    """Return the entries of whole pages that were read from the database file."""
    return entries_of_each(each_page(pages, page_size))


def each_page(pages: Buffer, page_size: int) -> list[memoryview]:
    """Return a view of each page in ``pages``, which are whole pages."""
    assert len(pages) % page_size == 0, f"{len(pages)} bytes are not whole pages of {page_size}"
    view = memoryview(pages)
    return [view[at : at + page_size] for at in range(0, len(pages), page_size)]


def entries_of_each(pages: Sequence[memoryview]) -> Entries:
    """Return the entries of these pages, which were read from the database file."""
    return _entries(list(map(xxhash.xxh3_64_intdigest, pages)), from_frame=False)


def entries_of_frames(frames: Buffer, page_size: int, rows: NDArray[np.intp]) -> Entries:
    """Return the entries of the pages in some frames. ``rows`` are their indices in ``frames``, from 0."""
    view = memoryview(frames)
    size = FRAME_HEADER_SIZE + page_size
    digest = xxhash.xxh3_64_intdigest
    hashes = [digest(view[row * size + FRAME_HEADER_SIZE : (row + 1) * size]) for row in rows.tolist()]
    return _entries(hashes, from_frame=True)


def _entries(hashes: list[int], *, from_frame: bool) -> Entries:
    entries = np.array(hashes, np.uint64)
    entries &= np.uint64(~_FROM_FRAME & 0xFFFF_FFFF_FFFF_FFFF)
    entries[entries == ABSENT] = _SMALLEST
    return entries | np.uint64(_FROM_FRAME) if from_frame else entries


def differs(expected: Entries, found: Entries) -> NDArray[np.bool_]:
    """Return where the content differs, or where one of the two has no entry."""
    both: NDArray[np.bool_] = (expected != ABSENT) & (found != ABSENT)
    other: NDArray[np.bool_] = (expected | np.uint64(_FROM_FRAME)) != (found | np.uint64(_FROM_FRAME))
    return ~both | other


def is_from_frame(entries: Entries) -> NDArray[np.bool_]:
    """Return where the content came with a frame."""
    by_frame: NDArray[np.bool_] = (entries & np.uint64(_FROM_FRAME)) != 0
    return by_frame
