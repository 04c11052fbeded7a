"""Has SQLite check by ``PRAGMA integrity_check`` whether a restored file is sound, if its pages can be read.

Nothing else uses the file, so it is opened read-only and ``immutable``: SQLite takes no lock and creates no -wal or
-shm. An encrypted database can't be read. A database that needs an extension (a tokenizer, a collation) can't be
checked without that extension. In both cases the result says so, and is no verdict on the replica.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from walsyncd.core.sqlite.dbheader import HEADER_SIZE, parse_database_header

MESSAGES_MAX = 10  # the number of SQLite's messages that are kept; more of them add nothing
STEPS_BETWEEN_QUESTIONS = 100_000  # steps of SQLite's virtual machine, a few milliseconds: the delay of a stop
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


@dataclass(frozen=True, slots=True)
class Integrity:
    """SQLite's verdict: what is wrong with a file, or why it can't be checked.

    Both texts are empty if the file is sound.
    """

    problems: tuple[str, ...] = ()
    unchecked: str = ""


def check_integrity(path: Path, *, is_stopped: Callable[[], bool] = lambda: False) -> Integrity:
    """Have SQLite read every page of a database file that nothing has open."""
    with path.open("rb") as file:
        header = parse_database_header(file.read(HEADER_SIZE))
    if header is None:
        return Integrity()  # an empty database
    if not header.magic_ok:
        return Integrity(unchecked="its pages can't be read: it is encrypted")
    uri = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        connection.set_progress_handler(is_stopped, STEPS_BETWEEN_QUESTIONS)
        try:
            rows = connection.execute(f"PRAGMA integrity_check({MESSAGES_MAX})").fetchall()
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF in _DAMAGE:
                return Integrity(problems=(str(error),))
            return Integrity(unchecked=f"SQLite can't check it here: {error}")
    return Integrity(problems=tuple(str(row[0]) for row in rows if row[0] != "ok"))
