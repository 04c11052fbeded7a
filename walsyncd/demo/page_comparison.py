"""Compares a restored database with the original: page by page, by the application's counter, by SQLite's check."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

PAGES_SHOWN_MAX = 5


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of comparing a restored database with the expected one.

    ``pages_differing`` are counted from 1, as SQLite does. A page that only one of the two databases has counts as
    different. ``integrity`` is the result of SQLite's integrity check.
    """

    what: str
    pages: int
    pages_differing: tuple[int, ...]
    counter_expected: int
    counter: int
    integrity: str

    @property
    def is_equal(self) -> bool:
        """Whether everything that was compared is as expected."""
        return not self.faults

    @property
    def faults(self) -> list[str]:
        """The differences from what was expected."""
        faults = []
        if self.pages_differing:
            shown = ", ".join(map(str, self.pages_differing[:PAGES_SHOWN_MAX]))
            more = ", …" if len(self.pages_differing) > PAGES_SHOWN_MAX else ""
            faults.append(f"{len(self.pages_differing)} of {self.pages} pages differ ({shown}{more})")
        if self.counter != self.counter_expected:
            faults.append(f"it is commit {self.counter}, not {self.counter_expected}")
        if self.integrity != "ok":
            faults.append(f"integrity: {self.integrity}")
        return faults

    def __str__(self) -> str:
        equal = f"{self.pages} pages equal, commit {self.counter}, integrity ok"
        return f"{self.what}: {'; '.join(self.faults) or equal}"


def settled_copy(database: Path, target: Path) -> Path:
    """Copy a database, checkpoint the copy's WAL into the copy, and return the copy. The original is only read.

    Connections to the original may be open, but nothing may be written to it meanwhile.
    """
    target.write_bytes(database.read_bytes())
    wal = Path(f"{database}-wal")
    if wal.exists():
        Path(f"{target}-wal").write_bytes(wal.read_bytes())
    with closing(sqlite3.connect(target)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return target


def compare(what: str, restored: Path, expected: Path, counter_expected: int) -> Comparison:
    """Compare a restored file with a settled copy. SQLite opens the restored file only after its pages are read."""
    pages = list(zip_longest(_pages(restored), _pages(expected)))
    differing = tuple(number for number, (left, right) in enumerate(pages, 1) if left != right)
    counter, integrity = _ask(restored)
    return Comparison(what, len(pages), differing, counter_expected, counter, integrity)


def _pages(path: Path) -> list[bytes]:
    content = path.read_bytes()
    page_size = int.from_bytes(content[16:18], "big")
    page_size = 65536 if page_size == 1 else page_size
    return [content[offset : offset + page_size] for offset in range(0, len(content), page_size or 4096)]


def _ask(path: Path) -> tuple[int, str]:
    """Return the counter (or -1 if the counter can't be read), and the result of the integrity check."""
    try:
        with closing(sqlite3.connect(path)) as connection:
            lines = [line for (line,) in connection.execute("PRAGMA integrity_check")]
            (counter,) = connection.execute("SELECT value FROM counter").fetchone()
    except sqlite3.DatabaseError as error:
        return -1, str(error)
    return counter, "; ".join(lines)
