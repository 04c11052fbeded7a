"""Tests of how SQLite's errors are translated, by what somebody can do about them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from walsyncd.adapters.journal.journal_errors import translated
from walsyncd.errors import CorruptStateError, StateError

PATH = Path("/state/journal.db")


def error(code: int) -> sqlite3.OperationalError:
    made = sqlite3.OperationalError("what SQLite says")
    made.sqlite_errorcode = code
    return made


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_FULL, StateError),
        (sqlite3.SQLITE_IOERR_FSYNC, StateError),
        (sqlite3.SQLITE_CORRUPT, CorruptStateError),
        (sqlite3.SQLITE_NOTADB, CorruptStateError),
    ],
)
def test_the_disk_and_damage_are_told_apart(code: int, kind: type[Exception]) -> None:
    """Both errors name the file, what was being done, and a remedy."""
    with pytest.raises(kind) as caught, translated("write", PATH):
        raise error(code)
    assert str(caught.value).startswith("write journal /state/journal.db: what SQLite says")
    assert caught.value.hint  # type: ignore[attr-defined]


def test_a_bug_is_not_translated() -> None:
    """A violated constraint or a wrong statement is a bug, and not an error of the disk."""
    with pytest.raises(sqlite3.OperationalError), translated("write", PATH):
        raise error(sqlite3.SQLITE_CONSTRAINT)
