"""Tests of walsyncd.engine.content.base_entries."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from walsyncd.adapters.journal.page_map_file import PageMapWriter
from walsyncd.core.content.page_entry import ABSENT, entries_of_pages
from walsyncd.engine.content.base_entries import BaseEntries
from walsyncd.errors import TransientError

SIZE = 512


def test_the_entries_are_those_of_what_was_copied_however_it_was_cut(tmp_path: Path) -> None:
    """Ranges may end within a page. An incomplete page at the end has no entry."""
    content = os.urandom(20 * SIZE + 100)
    for cut in (1, SIZE, 3 * SIZE + 7, len(content)):
        entries = BaseEntries(PageMapWriter(tmp_path / "m" / "1.map", SIZE), SIZE)
        for at in range(0, len(content), cut):
            entries.took(at, content[at : at + cut])
        assert np.array_equal(entries.entries(1, 20), entries_of_pages(content[: 20 * SIZE], SIZE))
        assert entries.entries(21, 1)[0] == ABSENT
        entries.drop()
    assert not list((tmp_path / "m").iterdir())


def test_a_range_that_is_read_again_is_refused(tmp_path: Path) -> None:
    """The range's content may differ from what was uploaded first."""
    entries = BaseEntries(PageMapWriter(tmp_path / "m" / "1.map", SIZE), SIZE)
    entries.took(0, bytes(4 * SIZE))
    with pytest.raises(TransientError):
        entries.took(0, bytes(4 * SIZE))
    entries.drop()


def test_a_scan_that_has_taken_them_over_keeps_them(tmp_path: Path) -> None:
    """The base's thread may end before the scan does. Entries that it has dropped before can't be taken over."""
    entries = BaseEntries(PageMapWriter(tmp_path / "m" / "1.map", SIZE), SIZE)
    entries.took(0, bytes(SIZE))
    assert entries.take_over()
    entries.drop()
    assert np.array_equal(entries.entries(1, 1), entries_of_pages(bytes(SIZE), SIZE))
    entries.release()
    assert not list((tmp_path / "m").iterdir())
    dropped = BaseEntries(PageMapWriter(tmp_path / "m" / "1.map", SIZE), SIZE)
    dropped.drop()
    assert not dropped.take_over()
    dropped.drop()
