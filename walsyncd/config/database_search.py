"""Which databases the entries stand for on this disk, at this moment.

An entry is a path or a pattern. A path stands for its file whether or not it exists, since it may appear; a pattern
stands for what matches it, without SQLite's own ``-wal``, ``-shm`` and ``-journal``. SQLite finds these beside the
*resolved* path, and so do we. Symbolic links are followed in a path, and in the fixed part of a pattern: the operator
wrote those. Below the fixed part there are none.

| what can't be replicated | named in the configuration | a match of a pattern |
|---|---|---|
| a name that no replica can have | error | suspended |
| the same file twice: one replica would overwrite the other's history | error | suspended; who is followed stays |
| a network file system (``mounts``) | error | suspended |
| the state directory below its folder: our own writes would wake us | error | error |
| a link, a folder, a FIFO, somebody else's file, no file of SQLite's | tried again and again | suspended |

An error is for somebody who reads it: ``check``, a reload and a start fail by it. While the daemon runs, what becomes
wrong about a named path suspends that database alone.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from walsyncd.config.database_specs import DatabaseSpec, Found, Suspended
from walsyncd.config.links import Resolved, resolve
from walsyncd.config.mounts import NETWORK_HINT, network_mount, read_mounts
from walsyncd.config.patterns import Matches, NewNames, fixed_part, matches_of
from walsyncd.config.problem import Problem
from walsyncd.config.settings import DatabaseEntry, Settings
from walsyncd.core.stored.layout import check_name, default_name
from walsyncd.errors import UnresponsiveError, UsageError
from walsyncd.file_calls import FileCall

SUSPENDED_MAX = 1000  # rows that anybody would read; the last one says how many more there are

_COMPANIONS = ("-wal", "-shm", "-journal")
_LEFTOVER = re.compile(r"\.before-restore-|^\..*\.(partial|next)$")
_LINK_HINT = (
    "no link is followed below the fixed part of a pattern, where others may make them; "
    "name the database in a [[database]] of its own, or exclude it"
)
_EXCLUDE_HINT = "remove it, or exclude it"
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def _take_all(_path: Path) -> UsageError | None:
    return None


def _never() -> bool:
    return False


def expand(settings: Settings) -> list[DatabaseSpec]:
    """The databases on this disk now, in the order of the entries, a pattern's matches sorted.

    UsageError names every entry that can't be replicated and why; matches that can't be are left out.
    """
    return find_databases(settings).checked(settings)


def check_named(settings: Settings) -> None:
    """Raise UsageError if a path that the configuration names can't be replicated.

    Patterns are not searched: what they match is never an error of the configuration.
    """
    search = _Search(settings, _take_all, ())
    for number, entry in enumerate(settings.databases):
        if not entry.is_pattern:
            search.add_named(number, entry)
    search.found().checked(settings)


def find_databases(
    settings: Settings,
    *,
    examine: Callable[[Path], UsageError | None] = _take_all,
    followed: Collection[str] = (),
    is_stopped: Callable[[], bool] = _never,
) -> Found:
    """Look for all databases. ``examine`` says why a match is none, by its content and its owner.

    Who is ``followed`` already, by name, is not examined, and goes before other matches of the same file.
    SearchStoppedError as soon as ``is_stopped``.
    """
    search = _Search(settings, examine, followed)
    for number, entry in enumerate(settings.databases):
        if entry.is_pattern:
            search.add_matches(number, entry, matches_of(entry.path, entry.exclude, is_stopped=is_stopped))
        else:
            search.add_named(number, entry)
    return search.found()


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A database, if nothing speaks against it; ``number`` is its entry's, ``link`` the match's."""

    number: int
    spec: DatabaseSpec
    link: str = ""


def _resolved(folder: Path) -> Path:
    """Return where a folder is, or its name if its file system does not answer: then others report that."""
    try:
        with FileCall(folder, "resolve"):
            return Path(os.path.realpath(folder))
    except UnresponsiveError:
        return folder


class _Search:
    """Collects what the entries stand for, then decides on one after the other."""

    def __init__(
        self, settings: Settings, examine: Callable[[Path], UsageError | None], followed: Collection[str]
    ) -> None:
        self._settings = settings
        self._state_dir = _resolved(settings.daemon.state_dir)
        self._configured_state_dir = settings.daemon.state_dir
        self._examine = examine
        self._followed = followed
        self._mounts = read_mounts()
        self._candidates: list[_Candidate] = []
        self._watched: dict[Path, set[NewNames]] = {}
        self._suspended: list[Suspended] = []
        self._problems: list[Problem] = []
        self._taken: dict[object, DatabaseSpec] = {}

    def add_named(self, number: int, entry: DatabaseEntry) -> None:
        """A path that the configuration names."""
        try:
            resolved = resolve(entry.path)
        except UnresponsiveError as error:  # nothing is wrong with the configuration
            self._suspend(entry.key, entry.path, error.message, error.hint, name=entry.name or "")
            return
        self._watch_links(resolved)
        self._candidates.append(_Candidate(number, _spec(entry, entry.path, resolved.path)))

    def add_matches(self, number: int, entry: DatabaseEntry, matches: Matches) -> None:
        """What a pattern matches."""
        fixed = fixed_part(entry.path)
        try:
            resolved = resolve(fixed)
        except UnresponsiveError as error:
            self._suspend(entry.key, entry.path, error.message, error.hint)
            return
        self._watch_links(resolved)
        for names in matches.watched:
            self._watch(_below(resolved.path, fixed, names.folder), names)
        for match in matches.found:
            if not match.path.endswith(_COMPANIONS):
                spec = _spec(entry, match.path, _below(resolved.path, fixed, match.path))
                self._candidates.append(_Candidate(number, spec, match.link))
        for folder, reason in matches.unlisted.items():
            hint = "let the daemon list it, or exclude it"
            self._suspend(entry.key, folder, f"what is in it can't be listed: {reason}", hint)
        if matches.is_cut:
            hint = "narrow it, or exclude what it need not look at"
            self._suspend(entry.key, entry.path, "the pattern has too many names to look at; not all were", hint)

    def found(self) -> Found:
        """The answer."""
        accepted = [candidate for candidate in self._ordered() if self._accept(candidate)]
        self._check_state_dir()
        specs = [each.spec for each in sorted(accepted, key=lambda each: (each.number, each.spec.configured_as))]
        watched = {folder: frozenset(names) for folder, names in self._watched.items()}
        return Found(specs, _cut(self._suspended), self._problems, watched)

    def _ordered(self) -> list[_Candidate]:
        """Who comes first has the file, and the name: named paths, then who is followed, then the others."""

        def rank(each: _Candidate) -> tuple[bool, bool]:
            return each.spec.is_match, each.spec.name not in self._followed

        return sorted(self._candidates, key=rank)

    def _accept(self, candidate: _Candidate) -> bool:
        spec = candidate.spec
        if spec.is_match and spec.path in self._taken:
            return False  # another entry says how it is replicated
        error = self._objection(candidate)
        if error is None:
            self._taken |= dict.fromkeys(_identities(spec), spec)
            return True
        self._suspend(spec.entry, spec.configured_as, error.message, error.hint, name=spec.name)
        if not spec.is_match:
            self._problems.append(_problem(spec, error.message, error.hint))
        return False

    def _objection(self, candidate: _Candidate) -> UsageError | None:
        """Why it can't be replicated, if so."""
        spec = candidate.spec
        objections = (self._of_match(candidate) if spec.is_match else None, self._of_place(spec), self._of_twin(spec))
        return next((error for error in objections if error is not None), None)

    def _of_match(self, candidate: _Candidate) -> UsageError | None:
        spec = candidate.spec
        if candidate.link:
            what = (
                "is a symbolic link" if candidate.link == spec.configured_as else f"is behind {candidate.link}, a link"
            )
            return UsageError(what, hint=_LINK_HINT)
        if _LEFTOVER.search(spec.path.name):
            return UsageError("was left there by a restore", hint=_EXCLUDE_HINT)
        kind = _kind_of(spec.path)
        if kind:
            return UsageError(f"is {kind}, no file", hint=_EXCLUDE_HINT)
        if self._state_dir.is_relative_to(spec.path.parent):
            hint = "exclude it, or choose another state_dir"
            return UsageError(f"the state directory {self._configured_state_dir} is below its folder", hint=hint)
        return None if spec.name in self._followed else self._examine(spec.path)

    def _of_place(self, spec: DatabaseSpec) -> UsageError | None:
        """A name that storage can't take, and a file system that can't be watched."""
        try:
            check_name(spec.name, self._settings.storage_of(spec.storage).prefix)
        except UsageError as error:
            return error
        mount = network_mount(spec.path, self._mounts)
        return UsageError(f"is on a network file system ({mount})", hint=NETWORK_HINT) if mount else None

    def _of_twin(self, spec: DatabaseSpec) -> UsageError | None:
        """Another database for the same file, or of the same name."""
        first = next((self._taken[each] for each in _identities(spec) if each in self._taken), None)
        if first is None:
            return None
        if spec.name == first.name and spec.path != first.path:
            message, hint = f"has the name {spec.name!r} of", "give one of the two another name"
        else:
            message, hint = "is the same file as", "remove one of the two, or narrow the pattern"
        return UsageError(f"{message} {first.entry} ({first.configured_as})", hint=hint)

    def _check_state_dir(self) -> None:
        shown = repr(str(self._configured_state_dir))
        named = {spec.path.parent: spec for spec in self._taken.values() if not spec.is_match}
        around = next((named[each] for each in (self._state_dir, *self._state_dir.parents) if each in named), None)
        if around is not None:
            message = f"is inside {around.path.parent}, the folder of {around.entry} ({around.configured_as})"
            hint = "choose a folder outside every folder that holds a database"
            self._problems.append(Problem("daemon.state_dir", shown, message, hint))
        mount = network_mount(self._state_dir, self._mounts)
        if mount:
            message = f"is on a network file system ({mount})"
            self._problems.append(Problem("daemon.state_dir", shown, message, "choose a folder on a local disk"))

    def _suspend(self, entry: str, path: str, cause: str, remedy: str, *, name: str = "") -> None:
        shown = _printable(path)
        name = _printable(name) or default_name(shown)
        if name in self._taken:
            name = f"{name} ({entry})"  # the row of that name is the other's
        self._suspended.append(Suspended(name, shown, entry, cause, remedy, _changed_ms(path)))

    def _watch_links(self, resolved: Resolved) -> None:
        for link in resolved.links:
            self._watch(link.parent, NewNames(str(link.parent), frozenset({link.name})))

    def _watch(self, folder: Path, names: NewNames) -> None:
        self._watched.setdefault(folder, set()).add(names)


def _cut(suspended: list[Suspended]) -> list[Suspended]:
    if len(suspended) <= SUSPENDED_MAX:
        return suspended
    first, left = suspended[: SUSPENDED_MAX - 1], len(suspended) - SUSPENDED_MAX + 1
    cause = f"{left} more matches can't be replicated, for reasons like those"
    return [*first, Suspended("(others)", "", suspended[-1].entry, cause, "narrow the pattern, or exclude them")]


def _below(resolved: Path, fixed: str, path: str) -> Path:
    """A path below a pattern's fixed part, with that part resolved."""
    return resolved / path.removeprefix(fixed).lstrip("/")


def _spec(entry: DatabaseEntry, path: str, resolved: Path) -> DatabaseSpec:
    return DatabaseSpec(
        path=resolved,
        name=entry.name if entry.name is not None else default_name(path),
        configured_as=path,
        entry=entry.key,
        upload_interval_s=entry.upload_interval_s,
        snapshot_interval_s=entry.snapshot_interval_s,
        retention_s=entry.retention_s,
        presence=entry.presence,
        snapshot_wal_ratio=entry.snapshot_wal_ratio,
        keep=entry.keep,
        verify_interval_s=entry.verify_interval_s,
        scrub_interval_s=entry.scrub_interval_s,
        is_match=entry.is_pattern,
        storage=entry.storage,
        backpressure=entry.backpressure,
        wal_bytes_max=entry.wal_bytes_max,
    )


def _identities(spec: DatabaseSpec) -> Iterator[object]:
    """What no two databases may share: the resolved path, the replica's folder, the file behind the path."""
    yield spec.path
    yield spec.name
    try:
        with FileCall(spec.path, "look at"):
            status = spec.path.lstat()
    except (OSError, UnresponsiveError):
        return
    yield status.st_dev, status.st_ino


def _kind_of(path: Path) -> str:
    """What else than a file it is; "" also if it is gone again."""
    try:
        with FileCall(path, "look at"):
            mode = path.lstat().st_mode
    except (OSError, UnresponsiveError):
        return ""
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), "")


def _changed_ms(path: str) -> int:
    try:
        with FileCall(path, "look at"):
            return os.lstat(path).st_ctime_ns // 1_000_000
    except (OSError, UnresponsiveError):
        return 0


def _printable(text: str) -> str:
    """As it can be printed and stored: what is no UTF-8, and what a terminal would obey, as an escape."""
    decoded = os.fsencode(text).decode("utf-8", "backslashreplace")
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in decoded)


def _problem(spec: DatabaseSpec, message: str, hint: str) -> Problem:
    return Problem(f"{spec.entry}.path", repr(spec.configured_as), message, hint)
