"""What a configured path leads to, and the symbolic links on the way.

A path is followed, not the file that it once named: whoever watches the folder of each of these links hears when one
of them is switched.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from walsyncd.file_calls import FileCall

LINKS_MAX = 40  # as the kernel's (path_resolution(7)); more are a circle, which leads nowhere


@dataclass(frozen=True, slots=True)
class Resolved:
    """``path`` holds no link (but in a circle); ``links`` are where links were found, by their resolved paths."""

    path: Path
    links: tuple[Path, ...]


def resolve(path: str) -> Resolved:
    """Follow each link of an absolute path, whether or not anything is there.

    Raises UnresponsiveError if a file system on the way does not answer.
    """
    waiting = path.split("/")[::-1]
    reached, links = "/", list[Path]()
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
        if target.startswith("/"):
            reached = "/"
        waiting += target.split("/")[::-1]
    return Resolved(Path(reached), tuple(links))


def _target(path: str) -> str | None:
    try:
        with FileCall(path, "resolve"):
            return str(Path(path).readlink())
    except OSError:  # no link, or nothing that can be read
        return None
