"""Chooses the pages of the file that a scan reads: all of them, or those that a proof names.

A scan of all pages of a large file may not fit between two commits. It goes on as a rolling scan then, if it can. Pages
that are read while the file is written may be torn; what differs is taken, and read again at the last moment, because
the last version of a page in a transaction counts.
"""

from __future__ import annotations

from typing import Protocol

from walsyncd.core.content.bridge_passes import PageList, all_pages
from walsyncd.engine.rollback.committed_moment import FileLooks, MomentStart
from walsyncd.engine.rollback.rolling_moments import RollingMoments


class PagesToRead(Protocol):
    """For the thread that scans, in this order."""

    def is_found_soon(self, start: MomentStart) -> bool:
        """Whether ``at_moment`` reads little, so that any thread may call it."""

    def at_moment(self, looks: FileLooks, start: MomentStart) -> PageList:
        """Return what to read while nobody writes. All other pages are as they were when they were compared last."""

    def rolling(self, looks: FileLooks, start: MomentStart) -> RollingMoments | None:
        """Return the moments of a rolling scan that begins at ``start``, or None if the scan can't go on after that."""

    def are_complete(self) -> bool:
        """Whether, now that the moment has ended, the pages that ``at_moment`` named are all that may have changed."""


class AllPages:
    """Every page, at the moment. The file itself is the proof."""

    def is_found_soon(self, _start: MomentStart) -> bool:
        """See ``PagesToRead``."""
        return True

    def at_moment(self, _looks: FileLooks, _start: MomentStart) -> PageList:
        """See ``PagesToRead``."""
        return all_pages()

    def rolling(self, _looks: FileLooks, _start: MomentStart) -> None:
        """See ``PagesToRead``."""

    def are_complete(self) -> bool:
        """See ``PagesToRead``."""
        return True
