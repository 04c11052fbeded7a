"""Tests of blocks of pages: what they hold and their entries are those of the file, whatever was read before."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from walsyncd.adapters.files.source import open_file
from walsyncd.core.content.page_entry import entries_of_pages
from walsyncd.engine.rollback.page_blocks import PageBlocks

PAGE = 512


@pytest.mark.parametrize("rest", [0, 100])
@pytest.mark.parametrize("seed", range(4))
def test_blocks_are_the_pages_of_the_file(tmp_path: Path, rest: int, seed: int) -> None:
    """Small and large blocks are read right, up to the end of the file and past it.

    An incomplete page at the end is no page.
    """
    path, rng = tmp_path / "app.db", random.Random(seed)
    content = rng.randbytes(100 * PAGE + rest)
    path.write_bytes(content)
    file = open_file(path)
    assert file is not None
    with file:
        blocks = PageBlocks(file, PAGE, bytes_max=20 * PAGE, small_bytes=4 * PAGE)
        for _ in range(60):
            first, count = rng.randint(1, 110), rng.randint(1, 20)
            block = blocks.read(first, count)
            expected = content[(first - 1) * PAGE : min(first - 1 + count, 100) * PAGE]
            assert bytes(block) == expected
            assert blocks.entries().tolist() == entries_of_pages(expected, PAGE).tolist()


def test_a_read_that_is_cut_short_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may return less than was asked for."""
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, views, offset: preadv(fd, [views[0][:700]], offset))
    path, content = tmp_path / "app.db", random.Random(1).randbytes(10 * PAGE)
    path.write_bytes(content)
    file = open_file(path)
    assert file is not None
    with file:
        blocks = PageBlocks(file, PAGE, bytes_max=20 * PAGE, small_bytes=4 * PAGE)
        assert bytes(blocks.read(2, 7)) == content[PAGE : 8 * PAGE]
        assert blocks.entries().tolist() == entries_of_pages(content[PAGE : 8 * PAGE], PAGE).tolist()
