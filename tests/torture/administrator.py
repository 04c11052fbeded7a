"""What administrators do to the files of a database: deletions, copies in place, renames, links, writes to pages.

Each act has a few steps. After each of them the database may be another one, or one that SQLite does not find sound.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias

SIDES = ("-wal", "-shm")

Steps: TypeAlias = list[Callable[[], object]]


def create_release(link: Path) -> None:
    """Create a folder, and a link to it: ``current -> releases/1``."""
    release = link.with_name(f"releases-of-{link.name}") / "1"
    release.mkdir(parents=True)
    link.symlink_to(release, target_is_directory=True)


class Administrator:
    """An administrator, who draws acts on one database by ``chance``. Only idle connections use the database."""

    def __init__(self, database: Path, folder: Path, chance: random.Random) -> None:
        self._database = database
        self._folder = folder / f"administrator-{database.stem}"
        self._chance = chance
        self._folder.mkdir()
        self._backup = self._folder / "backup.db"
        self._old_wal = self._folder / "old-wal"

    def back_up(self, content: bytes) -> None:
        """Keep a copy of the database, which has that content and is sound, and of its WAL."""
        self._backup.write_bytes(content)
        wal = self._side("-wal")
        if wal.exists():
            shutil.copyfile(wal, self._old_wal)

    def act(self) -> tuple[str, Steps]:
        """Draw an act, and return its name and its steps in order."""
        acts: dict[str, Callable[[], Steps]] = {
            "rm -f app.db-*": lambda: [partial(self._remove, *self._drawn(SIDES))],
            "rm app.db-wal": lambda: [partial(self._remove, "-wal")],
            "rm app.db-shm": lambda: [partial(self._remove, "-shm")],
            "cp over it": lambda: self._with_removal(self._copy_over),
            "cp over it through a hard link": lambda: self._with_removal(partial(self._copy_over, linked=True)),
            "mv over it": lambda: self._with_removal(self._rename_over),
            "dd of a page": lambda: [self._overwrite_page],
            "dd of a page through a hard link": lambda: [partial(self._overwrite_page, linked=True)],
            "truncate the WAL": lambda: [self._truncate_wal],
            "put an old WAL back": lambda: [self._put_wal_back],
        }
        if self._database.parent.is_symlink():
            acts["switch a link"] = lambda: [self._switch]
        name = self._chance.choice(sorted(acts))
        return name, acts[name]()

    def repair(self) -> Steps:
        """Replace the database by the backup, so that it is sound."""
        return [partial(self._remove, *SIDES), self._chance.choice([self._copy_over, self._rename_over])]

    # -- acts -------------------------------------------------------------------------------------------------------

    def _side(self, suffix: str) -> Path:
        return self._database.with_name(self._database.name + suffix)

    def _drawn(self, words: tuple[str, ...]) -> list[str]:
        return self._chance.sample(words, len(words))

    def _with_removal(self, step: Callable[[], object]) -> Steps:
        remove = partial(self._remove, *self._drawn(SIDES))
        return self._chance.choice([[step], [remove, step], [step, remove]])

    def _remove(self, *suffixes: str) -> None:
        for suffix in suffixes:
            self._side(suffix).unlink(missing_ok=True)

    def _target(self, *, linked: bool) -> Path:
        if not linked:
            return self._database
        link = self._folder / "link.db"
        link.unlink(missing_ok=True)
        os.link(self._database.resolve(), link)
        return link

    def _copy_over(self, *, linked: bool = False) -> None:
        target = self._target(linked=linked)
        if self._chance.random() < 0.5:
            shutil.copyfile(self._backup, target)
            return
        with target.open("r+b") as file:  # rsync --inplace does this, and cuts the file at the end
            file.write(self._backup.read_bytes())
            file.truncate()

    def _rename_over(self) -> None:
        copy = self._database.with_name(f"{self._database.name}.copy")
        shutil.copyfile(self._backup, copy)
        copy.rename(self._database)

    def _overwrite_page(self, *, linked: bool = False) -> None:
        content = self._backup.read_bytes()
        size = int.from_bytes(content[16:18], "big")
        size = 65536 if size == 1 else size
        at = self._chance.randrange(len(content) // size) * size
        with self._target(linked=linked).open("r+b") as file:
            file.seek(at)
            file.write(content[at : at + size])

    def _truncate_wal(self) -> None:
        wal = self._side("-wal")
        if wal.exists():
            size = wal.stat().st_size
            os.truncate(wal, self._chance.choice([0, size // 2, self._chance.randint(0, size)]))

    def _put_wal_back(self) -> None:
        if self._old_wal.exists():
            shutil.copyfile(self._old_wal, self._side("-wal"))

    def _switch(self) -> None:
        link = self._database.parent
        old = link.resolve()
        new = old.with_name(str(int(old.name) + 1))
        new.mkdir()
        shutil.copyfile(self._backup, new / self._database.name)
        fresh = link.with_name(f"{link.name}.new")
        fresh.symlink_to(new, target_is_directory=True)
        fresh.rename(link)
