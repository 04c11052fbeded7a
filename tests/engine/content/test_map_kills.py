"""Tests of page maps when the machine dies before or after each write while one is made, filled and deleted.

A power cut may lose what was written since the last fsync, and a rename since the last fsync of the folder.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.engine.content.gaps import Gaps
from tests.fakes import Deaths, Killed
from walsyncd.adapters.journal.journal import Journal
from walsyncd.core.content.page_entry import ABSENT, differs, entries_of_pages

PAGE_SIZE = 1024


class UnsafeFolder:
    """The folder of the maps, with a point of death before and after each call that changes it or a file in it."""

    def __init__(self, folder: Path, deaths: Deaths, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.deaths = deaths
        self._safe: dict[int, bytes] = {}  # by inode: what an fsync has made safe
        self._writes: dict[int, list[tuple[bytes | None, int]]] = {}
        self._renamed: list[tuple[Path, Path]] = []
        for name in ("open", "pwrite", "ftruncate", "fsync"):
            patch.setattr(os, name, self._watched(name, getattr(os, name)))
        for name in ("rename", "unlink"):
            patch.setattr(Path, name, self._watched(name, getattr(Path, name)))
        for name in ("page_maps_made", "page_map_written", "page_map_lost", "redo_forgotten", "note_cipher", "stored"):
            patch.setattr(Journal, name, self._watched(name, getattr(Journal, name)))

    def _watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(first: Any, *arguments: Any, **named: Any) -> Any:
            if not self._is_ours(first) or (name == "open" and not arguments[0] & os.O_CREAT):
                return call(first, *arguments, **named)
            if self.deaths.is_dead and name == "unlink":  # cleaning up after a death has no effect
                return None
            inode = os.fstat(first).st_ino if isinstance(first, int) else 0
            self.deaths.point()
            result = call(first, *arguments, **named)
            if name == "pwrite":
                self._writes.setdefault(inode, []).append((bytes(arguments[0]), arguments[1]))
            elif name == "ftruncate":
                self._writes.setdefault(inode, []).append((None, arguments[0]))
            elif name == "fsync" and inode == self.folder.stat().st_ino:
                self._renamed.clear()
            elif name == "fsync":
                self._safe[inode], self._writes[inode] = Path(f"/proc/self/fd/{first}").read_bytes(), []
            elif name == "rename":
                self._renamed.append((first, arguments[0]))
            try:
                self.deaths.point()
            except Killed:
                if name == "open":
                    os.close(result)
                raise
            return result

        return watched

    def _is_ours(self, first: object) -> bool:
        if isinstance(first, Journal):
            return True
        path = Path(f"/proc/self/fd/{first}").readlink() if isinstance(first, int) else Path(str(first))
        return self.folder in {path, path.parent}

    def cut(self, chance: random.Random) -> None:
        """Make the folder what is found after a power cut now."""
        for before, after in self._renamed:
            if after.exists() and chance.random() < 0.5:
                after.rename(before)
        for path in self.folder.iterdir():
            inode = path.stat().st_ino
            content = bytearray(self._safe.get(inode, b""))
            for data, at in self._writes.get(inode, []):
                if chance.random() < 0.4:
                    continue
                if data is None:
                    del content[at:]
                    continue
                content.extend(bytes(max(0, at + len(data) - len(content))))
                content[at : at + len(data)] = data
            path.write_bytes(content)
            self._safe[inode] = bytes(content)
        self._writes.clear()
        self._renamed.clear()


def check_map(gaps: Gaps) -> None:
    """Assert that the map is what a restore of the stored position gives, page by page."""
    content = gaps.restored()
    pages = entries_of_pages(content, PAGE_SIZE)
    page_map = gaps.maps.open(gaps.row_id)
    assert page_map is not None
    with page_map:
        entries = page_map.entries(1, len(pages) + 10)
    assert not differs(entries[: len(pages)], pages).any()
    assert (entries[len(pages) :] == ABSENT).all()


@pytest.mark.slow
# A process that is killed closes its files. One that only pretends to be dead does not.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_whenever_the_machine_dies_the_map_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine dies at each write in turn, until it succeeds. The next gap is bridged in the same generation."""
    deaths = Deaths(0)
    with closing(Gaps(tmp_path, page_size=PAGE_SIZE, auto_vacuum=1)) as gaps:
        gaps.sql("INSERT INTO t (y) VALUES " + ", ".join("(randomblob(900))" for _ in range(60)))
        gaps.settle()
        folder = UnsafeFolder(gaps.journal.folder / "maps", deaths, monkeypatch)
        for at in itertools.count(1):
            gaps.die()
            (folder.folder / f"{gaps.row_id}.map").unlink()
            deaths.passed, deaths.at = 0, at
            try:
                gaps.open()
                gaps.settle()
                gaps.sql(f"UPDATE t SET y = randomblob(900) WHERE x % 9 = {at % 9}", "DELETE FROM t WHERE x > 70")
                gaps.settle()
                gaps.maps.write(gaps.row_id)
            except Killed:
                gaps.die()
                deaths.is_dead, deaths.at = False, 0
                folder.cut(random.Random(at))
                gaps.open()
                gaps.settle()
            else:
                break
            check_map(gaps)
            gaps.die()
            gaps.sql(f"INSERT INTO t (y) VALUES (randomblob({at * 20}))", "PRAGMA wal_checkpoint(TRUNCATE)")
            gaps.sql("UPDATE t SET y = y WHERE x = 1", "PRAGMA wal_checkpoint(TRUNCATE)")
            gaps.open()
            gaps.settle()
            check_map(gaps)
            gaps.check()
        assert at > 20
        assert gaps.generations == 1
