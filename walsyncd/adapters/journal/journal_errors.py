"""Translates SQLite's errors about the journal to errors of walsyncd."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from walsyncd.errors import CorruptStateError, StateError

_AWAY = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
    }
)
_BROKEN = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


@contextmanager
def translated(doing: str, path: Path) -> Iterator[None]:
    """Translate SQLite's refusals to walsyncd's errors. Constraint and syntax errors are bugs, and not translated."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _BROKEN:
            raise CorruptStateError(
                f"{doing} journal {path}: {error}",
                hint=f"move {path} away; every database then begins a new generation",
            ) from error
        if code in _AWAY:
            raise StateError(
                f"{doing} journal {path}: {error}", hint="check the state directory: room, permissions"
            ) from error
        raise
