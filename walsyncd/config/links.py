"""What a configured path leads to, and the symbolic links on the way.

A path is followed, not the file that it once named: whoever watches the folder of each of these links hears when one
of them is switched.

The operator wrote the path, and not every link on it. A link that only root or walsyncd's own user can have made is
followed wherever it leads. One of anybody else is followed only to a file of that same user, who can read it anyway.
Otherwise the owner of a folder could have any file of the system copied to a replica, and get it back by a restore.
Such a link stays in the resolved path, where nobody follows it (``adapters.files.safe_open``).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from walsyncd.file_calls import FileCall

NOBODY = -1
LINKS_MAX = 40  # as the kernel's (path_resolution(7)); more are a circle, which leads nowhere


@dataclass(frozen=True, slots=True)
class Resolved:
    """``path`` holds no link that may be followed (but in a circle).

    ``links`` are where links were found, by their resolved paths.
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
        target = _target(here) if len(links) < LINKS_MAX else None
        if target is None:
            reached = here
            continue
        links.append(Path(here))
        owner = _owner(here)
        if owner not in {0, os.geteuid()}:
            foreign.setdefault(owner, "/".join([here, *(each for each in reversed(waiting) if each)]))
        if target.startswith("/"):
            reached = "/"
        waiting += target.split("/")[::-1]
    goal = _owner(reached) if foreign else NOBODY
    refused = next((unfollowed for owner, unfollowed in foreign.items() if owner == NOBODY or owner != goal), reached)
    return Resolved(Path(refused), tuple(links))


def _owner(path: str) -> int:
    try:
        with FileCall(path, "resolve"):
            return os.lstat(path).st_uid
    except OSError:
        return NOBODY


def _target(path: str) -> str | None:
    try:
        with FileCall(path, "resolve"):
            return str(Path(path).readlink())
    except OSError:  # no link, or nothing that can be read
        return None
