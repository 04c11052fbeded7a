"""Only the owner and the group may read what walsyncd keeps: its state, its spool and the objects in a folder.

New files are created with these modes, whatever the umask is. ``tighten`` is for files of older versions.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from urllib.parse import unquote, urlsplit

NEW_FILE_MODE = 0o640
NEW_FOLDER_MODE = 0o750
OTHERS = 0o007
UMASK = 0o027

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def keep_private() -> None:
    """Have this process create nothing that others may read, or that the group may write."""
    os.umask(os.umask(0o077) | UMASK)


def tighten(root: Path) -> int:
    """Remove all rights of others to ``root`` and what is below it.

    Returns how many files and folders gave others rights. Links are not followed. What belongs to another user, or
    vanishes meanwhile, is left as it is.
    """
    changed = 0
    if not root.is_dir():
        return changed
    for _, _, names, descriptor in os.fwalk(root, follow_symlinks=False):
        changed += _tighten_one(descriptor)
        changed += sum(_tighten_named(name, descriptor) for name in names)
    return changed


def folder_of_url(url: str) -> Path | None:
    """Return the folder that a ``file://`` URL names, or None for another URL."""
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def _tighten_named(name: str, folder: int) -> bool:
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode) or not status.st_mode & OTHERS:
            return False
        descriptor = os.open(name, _OPEN, dir_fd=folder)
    except OSError:
        return False
    try:
        return _tighten_one(descriptor)
    finally:
        os.close(descriptor)


def _tighten_one(descriptor: int) -> bool:
    status = os.fstat(descriptor)
    if not status.st_mode & OTHERS or status.st_uid != os.geteuid():
        return False
    os.fchmod(descriptor, stat.S_IMODE(status.st_mode) & ~OTHERS)
    return True
