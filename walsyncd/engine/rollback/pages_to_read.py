"""Chooses the pages of the file that a scan reads: all of them, or those that a proof names.

A scan of all pages of a large file may not fit between two commits. Then it continues as a rolling scan, if it can.
Pages that are read while the file is written may be torn. A torn page is taken if it differs, and is read again by the
last moment. That is safe because only the last version of a page in a transaction counts.
"""

from __future__ import annotations

from typing import Protocol

from walsyncd.core.content.bridge_passes import PageList, all_pages
from walsyncd.engine.rollback.committed_moment import FileLooks, MomentStart
from walsyncd.engine.rollback.rolling_moments import RollingMoments


class PagesToRead(Protocol):
    """The pages that one scan reads. The thread that scans calls the methods, in this order."""

    def is_found_soon(self, start: MomentStart) -> bool:
        """Whether ``at_moment`` reads little, so that any thread may call it."""

    def at_moment(self, looks: FileLooks, start: MomentStart) -> PageList:
        """Return the pages to read while nobody writes. All other pages are unchanged since they were last compared."""

    def rolling(self, looks: FileLooks, start: MomentStart) -> RollingMoments | None:
        """Return the moments of a rolling scan from ``start`` on, or None if the scan can't become a rolling scan."""

    def are_complete(self) -> bool:
        """Whether ``at_moment`` named all pages that may have changed. This is asked when the moment has ended."""


class AllPages:
    """Every page of the file at the moment. No other proof than the file is needed."""

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
