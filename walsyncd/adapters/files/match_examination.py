"""Examines through a descriptor whether a file that matches a pattern is a database that may be followed."""

from __future__ import annotations

from pathlib import Path

from walsyncd.adapters.files.source import open_file
from walsyncd.core.sqlite.match_check import PAGE_SIZE_MIN, is_no_database
from walsyncd.errors import UsageError, WalsyncdError


def examine_match(path: Path) -> UsageError | None:
    """Return why the file can't be followed, or None if it can.

    An unreadable file also gives None, since its follower reports that it is unreadable, and tries again.
    """
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
