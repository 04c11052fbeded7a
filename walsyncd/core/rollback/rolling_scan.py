"""Reads a large database file while transactions change it, until the pages that were read are one committed state.

A scan of a large file does not fit between two commits. So the file is read in passes, as a bridge reads it:

1. At a quiet moment the first pass begins. It reads all pages of the database, whatever writers do meanwhile.
2. At each later quiet moment, the pages that changed since the previous quiet moment are collected (``changed_pages``).
3. The next pass begins at a quiet moment. It reads the pages that changed since the previous pass began.
4. When few enough pages are left, they are read within one quiet moment. The last version that was read of each page
   then belongs to the state of that moment.

The scan needs the journal of every transaction from the first moment on. That includes transactions that were rolled
back, because a page may have been read while it had content that was never committed. If a journal is missing, the scan
begins again.

The pages past the size that the database had when the first pass began are among the pages that changed.
"""

from __future__ import annotations

from walsyncd.core.rollback.changed_pages import ChangedPages, PageNumbers
from walsyncd.core.sqlite.arrays import np


class RollingScan:
    """The pages of a scan that are left to be read.

    The scan begins at a quiet moment, with the size and the change counter of that moment.
    """

    def __init__(self, counter: int, page_count: int) -> None:
        self.counter = counter
        """The change counter of the last quiet moment."""
        self.page_count = page_count
        """The size of the database at the last quiet moment."""
        self.passes = 0
        """The number of passes that have begun."""
        self._changed: PageNumbers = np.arange(1, page_count + 1, dtype=np.uint32)

    def add(self, changed: ChangedPages) -> bool:
        """Take in what changed up to a quiet moment.

        Returns False if ``changed`` does not begin at the previous quiet moment.
        """
        if changed.counter_before != self.counter:
            return False
        self.counter, self.page_count = changed.counter, changed.page_count
        joined: PageNumbers = np.union1d(self._changed, changed.numbers).astype(np.uint32)
        self._changed = joined[joined <= changed.page_count]
        return True

    def left(self) -> PageNumbers:
        """Return the pages, ascending, whose last reading may be older than the last quiet moment."""
        return self._changed

    def begin_pass(self) -> PageNumbers:
        """Begin a pass at the last quiet moment. Returns the pages that it reads, ascending.

        Every page must have been read when the next pass begins, or when the pages that are ``left`` are read.
        """
        numbers, self._changed = self._changed, np.empty(0, np.uint32)
        self.passes += 1
        return numbers
