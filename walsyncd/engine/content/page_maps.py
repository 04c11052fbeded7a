"""The page maps of all databases. A map consists of its file and of the redo rows in the journal.

One thread writes the files. A file that is missing, torn or of another history is not used: a scan makes the map again.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from walsyncd.adapters.journal.journal import Journal
from walsyncd.adapters.journal.page_map_file import PageMapFile, PageMapWriter, open_page_map
from walsyncd.adapters.journal.page_map_table import PageMapRow
from walsyncd.core.content.page_entry import ABSENT, Entries
from walsyncd.core.content.redo import Redo, apply, combined
from walsyncd.core.limits import DEFAULT_LIMITS
from walsyncd.errors import CorruptError

_log = structlog.get_logger()


class PageMap:
    """The map of one database at the time when the map was opened. The caller must ``close`` it."""

    def __init__(self, file: PageMapFile, row: PageMapRow, redo: Redo) -> None:
        self.row = row
        self._file = file
        self._redo = redo

    @property
    def page_size(self) -> int:
        """The page size in bytes."""
        return self._file.page_size

    def entries(self, first: int, count: int) -> Entries:
        """Return the entries of ``count`` pages from number ``first`` on."""
        return apply(self._redo, self._file.read(first, count), first)

    def has_more(self, size: int) -> bool:
        """Whether the map has entries of pages past number ``size``. The lock page never has an entry."""
        return bool((self.entries(size + 1, 2) != ABSENT).any())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class PageMaps:
    """Opens, makes and writes maps. Only the scan thread may call the methods, except ``peek``.

    A file takes over ``redo_bytes`` of redo rows at a time, or ``redo_rows`` of them when the map is opened.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        redo_bytes: int = DEFAULT_LIMITS.map_redo_bytes,
        redo_rows: int = DEFAULT_LIMITS.map_redo_rows,
    ) -> None:
        self._journal = journal
        self._redo_bytes, self._redo_rows = redo_bytes, redo_rows
        self._folder = journal.folder / "maps"
        self.held: set[int] = set()
        """The databases whose map file takes no redo rows over, because a scrub needs the rows."""

    def open(self, database_id: int) -> PageMap | None:
        """Return the map at the journal's position, or None if there is none.

        If many redo rows wait, the file first takes over the rows of stored segments.
        """
        row, file = self._file(database_id)
        if row is None or file is None:
            return None
        try:
            rows = self._journal.redo_rows(database_id)
            if len(rows) >= self._redo_rows and database_id not in self.held and self._take_over(row, file):
                rows = self._journal.redo_rows(database_id)
            redo = combined(each.redo for each in rows)
        except BaseException:
            file.close()
            raise
        return PageMap(file, row, redo)

    def peek(self, database_id: int) -> PageMap | None:
        """Return the map that ``open`` would return, or None if the scan thread has to open it.

        Returns None if many rows wait, or if something is wrong with the map. Only the thread that adds the database's
        redo rows may call this, so no row is added meanwhile. The scan thread may let the file take rows over
        meanwhile. That does no harm, because these rows were read here and have the same entries as the file then. If
        another map is made meanwhile, the journal names another map than before, and this returns None.
        """
        row = self._journal.page_map(database_id)
        try:
            file = None if row is None else open_page_map(self._path(database_id))
        except CorruptError:
            return None
        if row is None or file is None:
            return None
        try:
            rows = self._journal.redo_rows(database_id)
            is_current = self._journal.page_map(database_id) == row and _is_of(row, file)
            if is_current and len(rows) < self._redo_rows:
                return PageMap(file, row, combined(each.redo for each in rows))
        except BaseException:
            file.close()
            raise
        file.close()
        return None

    def writer(self, database_id: int, page_size: int, *, suffix: str = ".part") -> PageMapWriter:
        """Return the context manager that makes a map. Its file's name ends with ``suffix`` until it is finished."""
        return PageMapWriter(self._path(database_id), page_size, suffix=suffix)

    def write(self, database_id: int) -> int:
        """Move the rows of stored segments into the file. Returns the number of these rows."""
        row, file = self._file(database_id)
        if row is None or file is None:
            return 0
        with file:
            return self._take_over(row, file)

    def write_due(self) -> None:
        """Write every map that has many redo rows waiting."""
        for database_id, size in self._journal.redo_waiting():
            if size >= self._redo_bytes and database_id not in self.held:
                self.write(database_id)

    def sweep(self) -> None:
        """Remove files that are not a map, and drop maps without a file. This is called before any map is used."""
        rows = {self._path(row.database_id).name for row in self._journal.page_maps() if self._is_there(row)}
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                if path.name not in rows:
                    with suppress(OSError):
                        path.unlink()

    def _is_there(self, row: PageMapRow) -> bool:
        _, file = self._file(row.database_id)
        if file is not None:
            file.close()
        return file is not None

    def _take_over(self, row: PageMapRow, file: PageMapFile) -> int:
        """See ``write``."""
        rows = self._journal.redo_rows(row.database_id, stored_only=True)
        if rows:
            file.take_over(combined(each.redo for each in rows), row.counter + 1)
            self._journal.page_map_written(row.database_id, row.map_id, file.counter, rows[-1].id)
        return len(rows)

    def _file(self, database_id: int) -> tuple[PageMapRow | None, PageMapFile | None]:
        row = self._journal.page_map(database_id)
        if row is None:
            return None, None
        try:
            file = open_page_map(self._path(database_id))
        except CorruptError as error:
            file, fault = None, error.message
        else:
            fault = "its file is gone"
            if file is not None and not _is_of(row, file):
                file.close()
                file, fault = None, "its file is of another history"
        if file is None:
            self._journal.page_map_lost(database_id)
            _log.warning("page_map_lost", path=str(self._path(database_id)), reason=fault)
        return row, file

    def _path(self, database_id: int) -> Path:
        return self._folder / f"{database_id}.map"


def _is_of(row: PageMapRow, file: PageMapFile) -> bool:
    """Whether the file is the map that the journal names, and is at most one write ahead of the journal."""
    return file.map_id == row.map_id and file.counter in (row.counter, row.counter + 1)
