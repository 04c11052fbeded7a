"""The state directory after a power cut: bytes that were not fsynced are missing, torn, or on disk after all.

A recorder watches the spool. A file's bytes are safe once it was fsynced, its name once its folder was fsynced after
the rename; the journal is safe at every COMMIT (``synchronous=FULL``), which is SQLite's own promise. ``cut`` makes a
directory that could be found after a cut now. ``seed`` decides how much of it is lost.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import Deaths


class PowerCuts:
    """Records the spool of ``state_dir``."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self._spool = state_dir / "spool"
        self._safe_bytes: dict[int, int] = {}  # inode → how many bytes are on disk
        self._safe_names: dict[str, int] = {}  # name → inode, as the folder on disk has it
        self._note_folder()

    def trust_all(self) -> None:
        """Assume that all that exists now is on disk."""
        self._note_folder()
        for path in self._spool.iterdir():
            self._safe_bytes[path.stat().st_ino] = path.stat().st_size

    def synced(self, descriptor: int) -> None:
        """Note that an fsync has returned."""
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            self._note_folder()
        else:
            self._safe_bytes[status.st_ino] = status.st_size

    def _note_folder(self) -> None:
        if self._spool.exists():
            self._safe_names = {path.name: path.stat().st_ino for path in self._spool.iterdir()}

    def cut(self, target: Path, seed: int) -> None:
        """Make ``target`` the directory that is found after a power cut now."""
        chance = random.Random(seed)
        (target / "spool").mkdir(parents=True)
        for path in self.state_dir.glob("journal.db*"):
            if not path.name.endswith("-shm"):
                shutil.copyfile(path, target / path.name)
        for path in self._spool.iterdir():
            inode = path.stat().st_ino
            if self._safe_names.get(path.name) != inode and chance.random() < 0.5:
                continue  # its name never reached the disk
            body = path.read_bytes()
            safe = self._safe_bytes.get(inode, 0)
            if safe < len(body):
                body = body[:safe] + bytes(chance.randrange(len(body) - safe + 1))
            (target / "spool" / path.name).write_bytes(body)


@contextmanager
def deadly_files(monkeypatch: pytest.MonkeyPatch, deaths: Deaths, cuts: PowerCuts | None = None) -> Iterator[None]:
    """Within the block, every fsync, rename and removal of a file has a point before and one after it."""

    def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            deaths.point()
            answer = call(*arguments, **options)
            if cuts is not None and call is fsync:
                cuts.synced(arguments[0])
            deaths.point()
            return answer

        return called

    fsync = os.fsync
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", deadly(os.fsync))
        patch.setattr(Path, "rename", deadly(Path.rename))
        patch.setattr(Path, "unlink", deadly(Path.unlink))
        yield
