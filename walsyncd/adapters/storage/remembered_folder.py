"""Remembers that a storage folder was in use, to notice later that its disk is not mounted.

A writer of objects creates ``<folder>/.walsyncd`` first. Once ``.walsyncd`` was seen there, a folder without it is
probably a mount point without its disk, and not an empty replica. So nothing is read from such a folder or created in
it. To know this after a restart, a file of the state directory lists the paths of the folders, one per line.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from walsyncd.adapters.files.durable_file import reading, writing
from walsyncd.adapters.storage.folder_tree import FolderTree
from walsyncd.errors import MissingError, TransientError


class RememberedFolder:
    """A storage folder. ``mark`` is what a writer creates first in ``root``.

    ``memory`` is the file that remembers the folder across restarts. Without the file, only this object remembers it.
    """

    def __init__(self, root: Path, mark: Path, memory: Path | None) -> None:
        self._root = root
        self._mark = mark
        self._memory = memory
        self._lock = threading.Lock()
        self._was_seen = False
        self._is_asked = False

    def require(self) -> None:
        """Raise TransientError if the folder existed once and is absent now.

        A failing disk raises the same errors as ``reading``.
        """
        with reading("look at storage folder", self._root):
            is_there = self._mark.is_dir()
        if is_there:
            if not self._was_seen:
                self._note()
        elif self._was_seen or self._is_remembered():
            raise TransientError(
                f"storage folder {self._root} is away: it was there, and now has no {self._mark.name} in it",
                hint=f"mount its disk; if an empty folder is intended: mkdir -p {self._mark}",
            )

    def _note(self) -> None:
        with self._lock:
            if self._memory is not None and self._memory.parent.is_dir() and not self._is_remembered():
                lines = "".join(f"{path}\n" for path in [*self._known(), self._line])
                with writing("note the storage folder in", self._memory):
                    state = FolderTree(self._memory.parent)
                    state.publish(state.write("", lambda file: file.write(os.fsencode(lines))), self._memory.name)
            self._was_seen = True

    def _is_remembered(self) -> bool:
        if not self._is_asked:
            self._was_seen = self._was_seen or self._line in self._known()
            self._is_asked = True
        return self._was_seen

    def _known(self) -> list[str]:
        if self._memory is None:
            return []
        try:
            with reading("read", self._memory):
                return os.fsdecode(self._memory.read_bytes()).splitlines()
        except MissingError:
            return []

    @property
    def _line(self) -> str:
        return repr(str(self._root))[1:-1]  # on one line, whatever characters the name has
