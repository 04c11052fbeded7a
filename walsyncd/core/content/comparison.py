"""Compares what was read from a database file with the page map, block by block.

A page that differs is a finding only if nothing explains the difference. A difference is explained for the pages that
frames wrote while the file was read, for the pages past the database's size at the end, and for the page of SQLite's
lock bytes. Nothing else explains a difference.

Some ciphers encrypt a page again when a checkpoint copies it. Then every page whose entry came with a frame differs
from the frame's bytes, and no page whose entry was read from the file differs. ``PageTally`` counts both kinds,
so that such a database is recognised by its pages and not by its header. A plain database whose pages have no reserved
bytes (byte 20 of the header) is never treated as such: a cipher of this kind needs room for a nonce in each page.

A bridge carries every page that differs. So the bridge of such a database carries each page that came with a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from walsyncd.core.content.page_entry import Entries, PageNumbers, differs, is_from_frame, lock_page
from walsyncd.core.sqlite.arrays import NDArray, np
from walsyncd.core.sqlite.dbheader import HEADER_SIZE, parse_database_header

_RESERVED_AT = 20  # the header's byte with the number of bytes at the end of each page that SQLite does not use


class Cipher(StrEnum):
    """Whether the file holds the bytes of the frames that were copied into it."""

    UNKNOWN = "unknown"
    RESTORED = "restored"  # not known, for example after a gap: a restored file holds the frames' own bytes
    STABLE = "stable"  # the file holds the frames' bytes, whether it is encrypted or not
    ANEW = "anew"  # each copy of a page is encrypted again


@dataclass(frozen=True, slots=True)
class PageTally:
    """Counts of the compared pages that no frame explains, by the source of their entry and the result."""

    frame_same: int = 0
    frame_other: int = 0
    file_same: int = 0
    file_other: int = 0

    def __add__(self, other: PageTally) -> PageTally:
        return PageTally(
            self.frame_same + other.frame_same,
            self.frame_other + other.frame_other,
            self.file_same + other.file_same,
            self.file_other + other.file_other,
        )


def cipher_of(known: Cipher, tally: PageTally, page_1: bytes) -> Cipher:
    """Return what a scan shows of the cipher. ``page_1`` is the start of the file. An earlier definite result stays.

    A page that equals its frame proves something only if a checkpoint, and not a restore, copied that page.
    """
    if known in {Cipher.STABLE, Cipher.ANEW}:
        return known
    if is_plain(page_1) or (tally.frame_same and known is Cipher.UNKNOWN):
        return Cipher.STABLE
    return Cipher.ANEW if tally.frame_other and not tally.file_other else known


def is_plain(page_1: bytes) -> bool:
    """Whether page 1 shows that no cipher encrypts the pages again: there is no room for a nonce."""
    header = parse_database_header(page_1[:HEADER_SIZE])
    return header is not None and header.magic_ok and page_1[_RESERVED_AT] == 0


def unexplained(expected: Entries, found: Entries, first: int, page_size: int, cipher: Cipher) -> PageNumbers:
    """Return the pages of a block from page ``first`` on that contradict the map, even if something explains them."""
    other = differs(expected, found)
    if cipher is Cipher.ANEW:
        other &= ~is_from_frame(expected)
    return _numbers(other, first, page_size)


def _numbers(flags: NDArray[np.bool_], first: int, page_size: int) -> PageNumbers:
    numbers: PageNumbers = (np.flatnonzero(flags) + first).astype(np.uint32)
    content: PageNumbers = numbers[numbers != lock_page(page_size)]
    return content
