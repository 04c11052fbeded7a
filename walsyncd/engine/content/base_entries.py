"""The entries of the pages that a base has copied, so that the file need not be read again for them.

A base is copied while writers write, so it may hold parts of several states. There is one entry for each page, computed
from the bytes that were uploaded.

- *Without a WAL* the scan that closes the base ships every page whose content at a committed moment differs from the
  copied content. Let S be the base's start, and N the position after that scan. Applying the frames from S to N to the
  base gives the database at N. A base that has to read a range again is given up. If an earlier run of the daemon
  began the base, the file is read from its first byte again, and a part that the store has is kept only if its content
  is still the same.
- *With a WAL* the entries become the database's page map, if it has none (``base_maps``).
"""

from __future__ import annotations

import threading

from walsyncd.adapters.journal.page_map_file import PageMapWriter
from walsyncd.core.content.page_entry import ABSENT, Entries, entries_of_pages, lock_page
from walsyncd.core.sqlite.checksum import Buffer
from walsyncd.errors import TransientError


class BaseEntries:
    """The entries of one base under way. The base's thread writes them, and the scan thread reads them afterwards.

    The base's thread drops the entries when it ends, unless a scan has taken them over. The thread may end before that,
    because the daemon stops.
    """

    def __init__(self, writer: PageMapWriter, page_size: int) -> None:
        self.writer = writer
        self.reached = 0
        """The number of bytes of the file that were taken in so far."""
        self._page_size = page_size
        self._rest = b""
        self._lock = threading.Lock()
        self._is_taken = self._is_dropped = False

    @property
    def page_size(self) -> int:
        """The page size in bytes."""
        return self._page_size

    def took(self, offset: int, content: Buffer) -> None:
        """Take in the bytes that were copied from ``offset`` on.

        Raises TransientError if they do not directly follow the bytes taken in before.
        """
        if offset != self.reached:
            raise TransientError("a part of the base was to be read again, and the database may have changed since")
        self.reached += len(content)
        pages = self._rest + bytes(content)
        whole = len(pages) // self._page_size * self._page_size
        self._rest = pages[whole:]
        entries = entries_of_pages(memoryview(pages)[:whole], self._page_size)
        first = (offset + len(content) - len(pages)) // self._page_size + 1
        if first <= (lock := lock_page(self._page_size)) < first + len(entries):
            entries[lock - first] = ABSENT
        self.writer.add(entries)

    def entries(self, first: int, count: int) -> Entries:
        """Return the entries of ``count`` pages from number ``first`` on."""
        return self.writer.read(first, count)

    def has_more(self, size: int) -> bool:
        """Whether the base has pages past number ``size``."""
        return bool(self.writer.read(size + 1, 1)[0])

    def close(self) -> None:
        """Do nothing: the entries are kept until ``drop``."""

    def take_over(self) -> bool:
        """Keep the entries until ``release``. Returns False if the entries were dropped before."""
        with self._lock:
            self._is_taken = not self._is_dropped
            return self._is_taken

    def drop(self) -> None:
        """Remove the entries, unless a scan has taken them over."""
        with self._lock:
            if self._is_taken:
                return
            self._is_dropped = True
        self.writer.close()

    def release(self) -> None:
        """Remove the entries that were taken over."""
        self.writer.close()
