"""Finds the files that a pattern matches, and for each folder the names that would match if they appeared there.

``*``, ``?`` and ``[…]`` stand for characters of one name, ``**`` for folders of any depth. As in a shell, a name that
begins with a dot is matched only by a part that begins with a dot. For ``/srv/tenants/*/data.db`` the folders to watch
are ``/srv/tenants`` (another tenant may appear) and every folder in it (a ``data.db`` may appear there).

Below the fixed part, ``/srv/tenants``, tenants may do as they like. So no symbolic link there is followed, because a
link may lead elsewhere, or back to a folder above it. A link that matches is reported as a match that can't be used.
A search looks at no more than ``ENTRIES_MAX`` names, and ``exclude`` cuts off whole folders.
"""

from __future__ import annotations

import fnmatch
import functools
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from walsyncd.errors import UnresponsiveError
from walsyncd.file_calls import FileCall

ENTRIES_MAX = 1_000_000  # names that are looked at for one pattern: some seconds of one core
_MAGIC = re.compile(r"[*?[]")
_ANY_FOLDERS = "**"
_SKIPPED = "lost+found"  # every ext file system has one, which only root can list


class SearchStoppedError(Exception):
    """The caller no longer waits for the answer."""


@dataclass(frozen=True, slots=True)
class NewNames:
    """The new names in ``folder`` that matter. ``names`` match anything, ``folders`` match only folders."""

    folder: str
    names: frozenset[str]
    folders: frozenset[str] = frozenset()
    exclude: tuple[str, ...] = ()

    def wants(self, name: str, *, is_folder: bool) -> bool:
        """Whether something of that name is worth looking at."""
        parts = self.names | self.folders if is_folder else self.names
        return any(matches_part(name, part) for part in parts) and not is_excluded(
            _join(self.folder, name), self.exclude
        )


@dataclass(frozen=True, slots=True)
class Match:
    """One match. ``link`` is the symbolic link that the match is, or that leads to it, or "" if there is none."""

    path: str
    link: str = ""


@dataclass(slots=True)
class Matches:
    """All that a pattern matches. ``unlisted`` has the folders that could not be listed, each with the reason."""

    found: list[Match] = field(default_factory=list)
    watched: list[NewNames] = field(default_factory=list)
    unlisted: dict[str, str] = field(default_factory=dict)
    is_cut: bool = False
    """Whether the search stopped after ``ENTRIES_MAX`` names, though there are more."""


def is_pattern(path: str) -> bool:
    """Whether a path stands for every file that matches it."""
    return _MAGIC.search(path) is not None


def fixed_part(pattern: str) -> str:
    """Return the folder that contains the pattern's first part with a wildcard."""
    return _split(pattern)[0]


def matches_part(name: str, part: str) -> bool:
    """Whether one name is matched by one part of a pattern."""
    if name.startswith(".") and not part.startswith("."):
        return False
    return part == _ANY_FOLDERS or _compiled(part)(name) is not None


def is_excluded(path: str, exclude: Sequence[str]) -> bool:
    """Whether one of these patterns matches the path, or a folder above the path."""
    return any(_matches_parts(path.split("/")[1:], pattern.split("/")[1:]) for pattern in exclude)


def matches_of(
    pattern: str, exclude: Sequence[str] = (), *, entries_max: int = ENTRIES_MAX, is_stopped: Callable[[], bool]
) -> Matches:
    """Look for everything that matches. Raises SearchStoppedError as soon as ``is_stopped`` returns True."""
    walk = _Walk(pattern, tuple(exclude), entries_max, is_stopped)
    walk.run()
    walk.matches.found.sort(key=lambda match: match.path)
    return walk.matches


class _Walk:
    """One search: a list of folders, each with the part of the pattern that its names are compared with."""

    def __init__(
        self, pattern: str, exclude: tuple[str, ...], entries_max: int, is_stopped: Callable[[], bool]
    ) -> None:
        self.matches = Matches()
        fixed, self._parts = _split(pattern)
        self._exclude = exclude
        self._left = entries_max
        self._is_stopped = is_stopped
        self._waiting: list[tuple[str, int]] = [(fixed, 0)]
        self._seen: set[tuple[str, int]] = set()
        self._matched: set[str] = set()

    def run(self) -> None:
        while self._waiting and not self.matches.is_cut:
            if self._is_stopped():
                raise SearchStoppedError
            step = self._waiting.pop()
            if step not in self._seen:
                self._seen.add(step)
                self._visit(*step)

    def _visit(self, folder: str, at: int) -> None:
        part, is_last = self._parts[at], at == len(self._parts) - 1
        names, folders = (frozenset({part}), frozenset[str]()) if is_last else (frozenset[str](), frozenset({part}))
        if part == _ANY_FOLDERS and is_last:
            folders = frozenset({part})
        self.matches.watched.append(NewNames(folder, names, folders, self._exclude))
        if part == _ANY_FOLDERS and not is_last:
            self._waiting.append((folder, at + 1))  # `**` also matches zero folders
        for path, mode in self._entries(folder, part):
            if is_excluded(path, self._exclude):
                continue
            if part == _ANY_FOLDERS and stat.S_ISDIR(mode):
                self._waiting.append((path, at))
            elif is_last:
                self._match(path, path if stat.S_ISLNK(mode) else "")
            elif part == _ANY_FOLDERS:
                continue
            elif stat.S_ISDIR(mode):
                self._waiting.append((path, at + 1))
            elif stat.S_ISLNK(mode):
                self._behind(path, at + 1)

    def _behind(self, link: str, at: int) -> None:
        """Report a link that is in the place of a folder, if following the link would give a match."""
        rest = self._parts[at:]
        path = _join(link, *rest) if not any(map(is_pattern, rest)) else link
        with suppress(UnresponsiveError), FileCall(path, "look at"):
            if os.path.lexists(path) if path != link else Path(link).is_dir():
                self._match(path, link)

    def _match(self, path: str, link: str) -> None:
        if path not in self._matched:
            self._matched.add(path)
            self.matches.found.append(Match(path, link))

    def _entries(self, folder: str, part: str) -> Iterator[tuple[str, int]]:
        """Yield path and kind (as a mode) of each entry of ``folder`` whose name matches ``part``."""
        try:
            if not is_pattern(part):
                self._count()
                path = _join(folder, part)
                with FileCall(path, "look at"):
                    mode = os.lstat(path).st_mode
                yield path, mode
                return
            with FileCall(folder, "list"):
                listed = list(self._listed(folder, part))
            yield from listed
        except UnresponsiveError as error:
            self.matches.unlisted[folder] = error.message
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            if not folder.endswith(f"/{_SKIPPED}"):
                self.matches.unlisted[folder] = error.strerror or str(error)

    def _listed(self, folder: str, part: str) -> Iterator[tuple[str, int]]:
        with os.scandir(folder) as entries:
            for entry in entries:
                self._count()
                if self.matches.is_cut:
                    return
                if matches_part(entry.name, part) and entry.name != _SKIPPED:
                    yield entry.path, _kind(entry)

    def _count(self) -> None:
        self._left -= 1
        self.matches.is_cut = self._left < 0


def _kind(entry: os.DirEntry[str]) -> int:
    if entry.is_symlink():
        return stat.S_IFLNK
    return stat.S_IFDIR if entry.is_dir(follow_symlinks=False) else stat.S_IFREG


def _join(folder: str, *names: str) -> str:
    return "/".join([folder.rstrip("/"), *names])


def _split(pattern: str) -> tuple[str, list[str]]:
    parts = pattern.split("/")[1:]
    first = next(at for at, part in enumerate(parts) if is_pattern(part))
    return "/" + "/".join(parts[:first]), parts[first:]


def _matches_parts(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether the parts match all names, or only the first ones, because an excluded folder excludes its content."""
    if not parts:
        return True
    if parts[0] == _ANY_FOLDERS:
        return any(_matches_parts(names[at:], parts[1:]) for at in range(len(names) + 1))
    return bool(names) and _compiled(parts[0])(names[0]) is not None and _matches_parts(names[1:], parts[1:])


@functools.lru_cache(maxsize=4096)
def _compiled(part: str) -> Callable[[str], re.Match[str] | None]:
    return re.compile(fnmatch.translate(part)).match
