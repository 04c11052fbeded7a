"""Looks for the sign of an application that uses the database by another path (``core.follow.other_path``)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from walsyncd.adapters.files.source import Role, open_file, posix_lock_holder, read_header, side_path


@dataclass(frozen=True, slots=True)
class OtherPathSign:
    """What was seen of a database.

    ``is_bare`` means that the header says WAL mode, but there is no -wal and no -journal. ``is_locked`` means that a
    process holds a lock on the database.
    """

    is_bare: bool
    is_locked: bool


def other_path_sign(path: Path, *, own_only: bool = False) -> OtherPathSign:
    """Look at the database, and look for its side files. Raises the same errors as ``open_file`` does."""
    file = open_file(path, own_only=own_only)
    if file is None:
        return OtherPathSign(is_bare=False, is_locked=False)
    with file:
        header = read_header(file)
        is_locked = posix_lock_holder(file) is not None
        for role in (Role.WAL, Role.JOURNAL):
            side = open_file(side_path(path, role), own_only=own_only)
            if side is not None:
                side.close()
                return OtherPathSign(is_bare=False, is_locked=is_locked)
        is_bare = header is not None and header.wal_mode and file.still_named()
        return OtherPathSign(is_bare=is_bare, is_locked=is_locked)
