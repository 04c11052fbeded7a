"""Resolves a configured path, and finds the symbolic links on the way.

walsyncd follows the path, not the file that the path once named. A watch on the folder of each of these links reports
when a link is switched to another file.

The operator wrote the path, but perhaps not every link on it. A link that only root or walsyncd's own user can have
made is followed wherever it leads. A link of another user is followed only to a file of the same user, who can read the
file anyway, or to a name in a folder of the same user, who could as well move the folder's content to the link's place.
So the user who deploys may make the links, and the application's user the database. Without this rule the owner of a
folder could have any file of the system copied to a replica, and get the file back by a restore. A link that breaks the
rule stays in the resolved path, and nothing follows it there (``adapters.files.safe_open``).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from walsyncd.file_calls import FileCall

NOBODY = -1  # the owner of a name that does not exist; no link has this owner
_HERE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
LINKS_MAX = 40  # the kernel's limit (path_resolution(7)); more links are a circle, which leads nowhere


@dataclass(frozen=True, slots=True)
class Resolved:
    """A resolved path. ``path`` contains no link that may be followed, unless the links form a circle.

    ``links`` are the links that were found, each as a resolved path.
    """

    path: Path
    links: tuple[Path, ...]


def resolve(path: str) -> Resolved:
    """Follow each link of an absolute path, whether or not anything is there.

    Raises UnresponsiveError if a file system on the way does not answer.
    """
    waiting = path.split("/")[::-1]
    reached, links, foreign = "/", list[Path](), dict[int, str]()
    while waiting:
        part = waiting.pop()
        if part in {"", "."}:
            continue
        if part == "..":
            reached = reached.rpartition("/")[0] or "/"
            continue
        here = f"{reached.rstrip('/')}/{part}"
        link = _link(here) if len(links) < LINKS_MAX else None
        if link is None:
            reached = here
            continue
        target, owner = link
        links.append(Path(here))
        if owner not in {0, os.geteuid()}:
            foreign.setdefault(owner, "/".join([here, *(each for each in reversed(waiting) if each)]))
        if target.startswith("/"):
            reached = "/"
        waiting += target.split("/")[::-1]
    may_lead = {_owner(reached), _owner(reached.rpartition("/")[0] or "/")} if foreign else set()
    refused = next((unfollowed for owner, unfollowed in foreign.items() if owner not in may_lead), reached)
    return Resolved(Path(refused), tuple(links))


def _owner(path: str) -> int:
    try:
        with FileCall(path, "resolve"):
            return os.lstat(path).st_uid
    except OSError:
        return NOBODY


def _link(path: str) -> tuple[str, int] | None:
    """Return what a link leads to, and the link's owner, or None if there is no link.

    Both are read through one descriptor, which is opened without following a link. With two look-ups the owner of a
    folder on the way could put a file of root's in the link's place between the two, or a link in a folder's place.
    """
    try:
        with FileCall(path, "resolve"):
            os.readlink(path)  # noqa: PTH115  most components are no links, and cost one call
            descriptor = _descriptor(path)
            try:
                return os.readlink("", dir_fd=descriptor), os.fstat(descriptor).st_uid
            finally:
                os.close(descriptor)
    except OSError:  # it is not a link, or it can't be read
        return None


def _descriptor(path: str) -> int:
    """Return a descriptor (O_PATH) of what is at an absolute path. A link before the last part raises ENOTDIR."""
    descriptor = os.open("/", _HERE)
    for part in path.split("/")[1:]:
        above = descriptor
        try:
            descriptor = os.open(part, _HERE, dir_fd=above)
        finally:
            os.close(above)
    return descriptor
