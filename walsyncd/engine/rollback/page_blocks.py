"""Reads the pages of a database file in blocks, with the entry of each page.

Large blocks are read into the same memory each time. Using new memory for each block, and cutting that memory into
pages again, would cost up to a third of the time for reading and hashing the block (measured). That matters when a file
of a gigabyte is read from the page cache because one journal was missed.
"""

from __future__ import annotations

import os

from walsyncd.adapters.files.source import OpenFile, file_access
from walsyncd.core.content.page_entry import Entries, each_page, entries_of_each
from walsyncd.core.sqlite.checksum import Buffer


class PageBlocks:
    """The blocks of ``file``, of at most ``bytes_max`` bytes. Only one thread at a time may use this.

    A block of at most ``small_bytes`` has memory of its own, because most scans read only such blocks.
    """

    def __init__(self, file: OpenFile, page_size: int, *, bytes_max: int, small_bytes: int) -> None:
        self._file = file
        self._page_size = page_size
        self._bytes_max, self._small_bytes = bytes_max, small_bytes
        self._memory = memoryview(b"")
        self._pages: list[memoryview] = []
        self._read: list[memoryview] = []

    def read(self, first: int, count: int) -> Buffer:
        """Return ``count`` pages from number ``first`` on, or fewer at the end of the file.

        The returned pages are valid until the next call.
        """
        offset, length = (first - 1) * self._page_size, count * self._page_size
        if length <= self._small_bytes or length > self._bytes_max:
            block = self._file.pread(offset, length)
            block = block[: len(block) // self._page_size * self._page_size]
            self._read = each_page(block, self._page_size)
            return block
        if not self._pages:
            self._memory = memoryview(bytearray(self._bytes_max // self._page_size * self._page_size))
            self._pages = each_page(self._memory, self._page_size)
        whole = self._fill(offset, length) // self._page_size
        self._read = self._pages[:whole]
        return self._memory[: whole * self._page_size]

    def entries(self) -> Entries:
        """Return the entries of the pages that were read last."""
        return entries_of_each(self._read)

    def _fill(self, offset: int, length: int) -> int:
        """Read ``length`` bytes from ``offset`` into the memory. Returns how many bytes the file has there."""
        filled = 0
        with file_access(f"read {length} bytes at {offset} of", self._file.path):
            while filled < length:
                count = os.preadv(self._file.fileno(), [self._memory[filled:length]], offset + filled)
                if not count:
                    break
                filled += count
        return filled
