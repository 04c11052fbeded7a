"""The folders in which a new file or folder can make a pattern match more than now.

For ``/srv/tenants/*/data.db`` these are ``/srv/tenants`` (a tenant may be added) and every folder in it (its
``data.db`` may be created).
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from pathlib import Path

from walsyncd.config.settings import Settings


def glob_folders(settings: Settings) -> list[Path]:
    """Return the existing folders to watch for new matches of all patterns of the configuration, sorted."""
    folders = {folder for entry in settings.databases if entry.is_pattern for folder in _folders(entry.path)}
    return sorted(folders)


def _folders(pattern: str) -> Iterator[Path]:
    parts = Path(pattern).parts
    first = next(at for at, part in enumerate(parts) if glob.has_magic(part))
    for at in range(first, len(parts)):
        parent = Path(*parts[:at])
        if not glob.has_magic(str(parent)):
            yield parent
            continue
        for match in glob.glob(f"{parent}/", recursive=True):  # noqa: PTH207 - Path.glob takes no absolute pattern
            yield Path(match)
