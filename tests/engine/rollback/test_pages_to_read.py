"""Tests of walsyncd.engine.rollback.pages_to_read."""

from __future__ import annotations

from typing import Any

from walsyncd.engine.content.bridge_sources import runs_of
from walsyncd.engine.rollback.committed_moment import FileTimes, MomentStart
from walsyncd.engine.rollback.pages_to_read import AllPages, PagesToRead


def test_all_pages_are_every_page_of_the_file() -> None:
    """The file itself is the proof."""
    looks: Any = None
    pages: PagesToRead = AllPages()
    start = MomentStart(b"", FileTimes(0, 0, 0, settled=True), 0)
    assert pages.is_found_soon(start)
    assert runs_of(pages.at_moment(looks, start), 10, 4) == [(1, 4), (5, 8), (9, 10)]
    assert pages.are_complete()
