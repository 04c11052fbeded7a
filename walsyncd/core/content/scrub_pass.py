"""Compares one reading of a database file with the page map, except for the pages that frames explain.

Let S be the point before frame 1 of the WAL's current incarnation when the first byte is read. Let N be the position of
a look that begins after the last byte is read. A page that a frame from S through N holds is explained, and so is a
page past the database's size at N. Every other page must have the map's entry.

Pages whose entry came with a frame are kept apart: they always differ if a cipher encrypts each copied page again
(``comparison``), and only at the end is it known whether the file has such a cipher.
"""

from __future__ import annotations

from dataclasses import dataclass

from walsyncd.core.content.comparison import Cipher, PageTally, cipher_of
from walsyncd.core.content.page_entry import ABSENT, Entries, PageNumbers, differs, is_from_frame, lock_page
from walsyncd.core.sqlite.arrays import np
from walsyncd.core.sqlite.dbheader import parse_database_header


@dataclass(frozen=True, slots=True, eq=False)
class ScrubFinding:
    """The result of a pass. ``pages`` contradict the map and are not explained. ``compared`` pages were compared.

    ``cipher`` is what the comparison has shown of the file's cipher.
    """

    pages: PageNumbers
    compared: int
    cipher: Cipher


class ScrubPass:
    """Takes the blocks of the file as they are read. It holds four bytes for each page that differs."""

    def __init__(self, page_size: int) -> None:
        self._page_size = page_size
        self._same = PageTally()
        self._by_frame: list[PageNumbers] = []
        self._by_file: list[PageNumbers] = []
        self._unknown: list[PageNumbers] = []
        self._taken = 0

    def take(self, numbers: PageNumbers, expected: Entries, found: Entries) -> None:
        """Take the pages of one block: ``expected`` are their entries in the map, ``found`` are those of the file."""
        other, by_frame, there = differs(expected, found), is_from_frame(expected), expected != ABSENT
        self._by_frame.append(numbers[there & other & by_frame])
        self._by_file.append(numbers[there & other & ~by_frame])
        self._unknown.append(numbers[~there])
        same = there & ~other
        self._same += PageTally(
            frame_same=int(np.count_nonzero(same & by_frame)), file_same=int(np.count_nonzero(same & ~by_frame))
        )
        self._taken += int(np.count_nonzero(there))

    def lacks(self, numbers: PageNumbers) -> None:
        """Take in that the file ends before these pages, which the database has."""
        self._by_file.append(numbers)
        self._taken += len(numbers)

    def end(self, explained: PageNumbers, size: int | None, cipher: Cipher, page_1: bytes) -> ScrubFinding:
        """Return the finding after all blocks were taken. ``explained`` are the pages in frames from S through N.

        ``size`` is the size of the database at N in pages. If it is None, the size is not known, and the pages of the
        map are compared.
        """

        def unexplained(parts: list[PageNumbers]) -> PageNumbers:
            numbers = np.concatenate([np.empty(0, np.uint32), *parts]).astype(np.uint32)
            kept = ~np.isin(numbers, explained) & (numbers != lock_page(self._page_size))
            if size is not None:
                kept &= numbers <= size
            content: PageNumbers = numbers[kept]
            return content

        by_frame, by_file = unexplained(self._by_frame), unexplained(self._by_file)
        if size is not None:  # a page that the database has but the map lacks
            by_file = np.union1d(by_file, unexplained(self._unknown)).astype(np.uint32)
        tally = self._same + PageTally(frame_other=len(by_frame), file_other=len(by_file))
        cipher = cipher_of(cipher, tally, page_1)
        pages = np.union1d(by_frame, by_file).astype(np.uint32) if cipher is Cipher.STABLE else by_file
        return ScrubFinding(pages, self._taken, cipher)


def believed_size(page_1: bytes) -> int | None:
    """Return the size in pages that page 1 of a database without frames states, or None if it can't be believed."""
    header = parse_database_header(page_1)
    if header is None or not header.magic_ok or header.version_valid_for != header.change_counter:
        return None
    return header.page_count or None
