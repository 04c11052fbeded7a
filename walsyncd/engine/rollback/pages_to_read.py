"""Which pages of the file a scan reads: all of them, or those that a proof names.

A scan asks its ``PagesToRead`` three times. Pages that are read before the moment may be torn; what differs is taken,
and read again at the moment, because the last version of a page in a transaction counts.
"""

from __future__ import annotations

from typing import Protocol

from walsyncd.core.content.bridge_passes import PageList, all_pages
from walsyncd.engine.rollback.committed_moment import MomentStart


class PagesToRead(Protocol):
    """For the scan thread, in this order."""

    def before_moment(self) -> PageList | None:
        """Return what to read in whatever state it is, or None if nothing is to be read before the moment."""

    def at_moment(self, start: MomentStart) -> PageList:
        """Return what to read while nobody writes. All other pages are as they were when they were compared last."""

    def are_complete(self) -> bool:
        """Whether, now that the moment has ended, the pages that ``at_moment`` named are all that may have changed."""


class AllPages:
    """Every page, at the moment. The file itself is the proof."""

    def before_moment(self) -> None:
        """See ``PagesToRead``."""

    def at_moment(self, _start: MomentStart) -> PageList:
        """See ``PagesToRead``."""
        return all_pages()

    def are_complete(self) -> bool:
        """See ``PagesToRead``."""
        return True
