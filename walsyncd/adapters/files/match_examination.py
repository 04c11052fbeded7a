"""Why a match of a pattern is no database that may be followed, by what a descriptor of it shows."""

from __future__ import annotations

from pathlib import Path

from walsyncd.adapters.files.source import open_file
from walsyncd.core.sqlite.match_check import PAGE_SIZE_MIN, is_no_database
from walsyncd.errors import UsageError, WalsyncdError


def examine_match(path: Path) -> UsageError | None:
    """Why it can't be followed; None if it can, or if it can't be read: its follower says so, and tries again."""
    try:
        file = open_file(path, own_only=True)
        if file is None:
            return None
        with file:
            head, size = file.pread(0, PAGE_SIZE_MIN), file.size()
    except UsageError as error:
        return error
    except WalsyncdError:
        return None
    if is_no_database(head, size):
        return UsageError("is no SQLite database", hint="remove it, or exclude it")
    return None
