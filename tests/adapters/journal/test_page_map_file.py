"""Tests of walsyncd.adapters.journal.page_map_file: one entry for each page, and what is on disk after a write."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest

from walsyncd.adapters.journal.page_map_file import ENTRIES_AT, PageMapFile, PageMapWriter, open_page_map
from walsyncd.core.content.redo import SIZE_MAX, Redo
from walsyncd.errors import CorruptError, StateError


def redo_of(entries: dict[int, int], *, size_min: int = SIZE_MAX, size: int = 10_000) -> Redo:
    pages = sorted(entries)
    return Redo(np.array(pages, np.uint32), np.array([entries[page] for page in pages], np.uint64), size_min, size)


def opened(path: Path) -> PageMapFile:
    file = open_page_map(path)
    assert file is not None
    return file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "maps" / "1.map"
    with PageMapWriter(path, 4096) as writer:
        writer.add(np.arange(2, 1002, dtype=np.uint64))
        writer.add(np.arange(1002, 2002, dtype=np.uint64))
        writer.finish(1500)
    return path


def test_what_was_written_is_read(path: Path) -> None:
    """Any number of entries can be read from any page on. There are no entries past the size."""
    with opened(path) as file:
        assert (file.counter, file.page_size, file.pages()) == (0, 4096, 1500)
        assert file.read(1, 3).tolist() == [2, 3, 4]
        assert file.read(999, 4).tolist() == [1000, 1001, 1002, 1003]
        assert file.read(1499, 4).tolist() == [1500, 1501, 0, 0]
        assert file.read(5000, 2).tolist() == [0, 0]
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["1.map"]


@pytest.mark.parametrize("seed", range(20))
def test_rows_are_taken_over(path: Path, seed: int) -> None:
    """Sizes may fall and rise, and pages may be far past the end. The counter grows with each row."""
    chance = random.Random(seed)
    model = {page: page + 1 for page in range(1, 1501)}
    for count in range(1, 8):
        size_min = chance.choice([SIZE_MAX, chance.randint(0, 3000)])
        entries = {chance.randint(1, 3000): chance.randint(2, 2**63) for _ in range(chance.randint(0, 50))}
        model = {page: entry for page, entry in model.items() if page <= size_min} | entries
        with opened(path) as file:
            file.take_over(redo_of(entries, size_min=size_min), count)
        with opened(path) as file:
            assert file.counter == count
            assert file.read(1, 3001).tolist() == [model.get(page, 0) for page in range(1, 3002)]


def test_a_map_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    """An existing map stays as it was."""
    with PageMapWriter(tmp_path / "1.map", 512) as writer:
        writer.add(np.arange(2, 12, dtype=np.uint64))
    assert list(tmp_path.iterdir()) == []
    assert open_page_map(tmp_path / "1.map") is None


def test_every_damage_of_the_header_is_seen(path: Path) -> None:
    """Each flipped bit and each wrong length is noticed."""
    content = path.read_bytes()
    for bit in range(40 * 8):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(CorruptError, match="header is damaged"):
            open_page_map(path)
    for length in range(40):
        path.write_bytes(content[:length])
        with pytest.raises(CorruptError, match="header is damaged"):
            open_page_map(path)


def test_the_entries_are_safe_before_the_caller_goes_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write is followed by fsync, and the counter is among the writes."""
    steps: list[str] = []
    pwrite, fsync, ftruncate = os.pwrite, os.fsync, os.ftruncate

    def noted_write(descriptor: int, data: bytes, offset: int) -> int:
        steps.append("head" if offset < ENTRIES_AT else "entries")
        return pwrite(descriptor, data, offset)

    def noted_sync(descriptor: int) -> None:
        steps.append("fsync")
        fsync(descriptor)

    def noted_truncate(descriptor: int, length: int) -> None:
        steps.append("truncate")
        ftruncate(descriptor, length)

    monkeypatch.setattr(os, "pwrite", noted_write)
    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "ftruncate", noted_truncate)
    with opened(path) as file:
        file.take_over(redo_of({3: 7, 1400: 9}, size_min=1000), 1)
    assert steps == ["truncate", "entries", "entries", "head", "fsync"]


def test_a_new_map_is_safe_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power cut the whole file has its name, or there is none. The folder is safe when the call returns."""
    steps: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def noted_sync(descriptor: int) -> None:
        steps.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def noted_rename(path: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    with PageMapWriter(tmp_path / "maps" / "1.map", 4096) as writer:
        writer.add(np.arange(2, 1002, dtype=np.uint64))
        writer.finish(500)
    assert steps == ["fsync 1.map.part", "rename", "fsync maps"]


def test_a_disk_that_refuses_is_our_own(tmp_path: Path) -> None:
    """The error names the map, and says what to do."""
    (tmp_path / "maps").write_text("not a folder")
    with pytest.raises(StateError, match=r"write page map .*1\.map"):
        PageMapWriter(tmp_path / "maps" / "1.map", 512)
