"""Finds the databases that the entries of a configuration select on this disk, at this moment.

An entry is a path or a pattern. A path selects its file even if the file does not exist yet, since it may appear. A
pattern selects the files that match it, without SQLite's own ``-wal``, ``-shm`` and ``-journal``. SQLite looks for
these side files beside the *resolved* path, and so does walsyncd. Symbolic links are followed in a path, and in the
fixed part of a pattern, because the operator wrote those. Below the fixed part no link is followed.

| what can't be replicated | named in the configuration | a match of a pattern |
|---|---|---|
| a name that no replica can have | error | suspended |
| the same file twice: one replica would overwrite the other's history | error | suspended; one that is followed stays |
| a network file system (``mounts``) | error | suspended |
| the state directory below its folder: our own writes would wake us | error | error |
| a link, a folder, a FIFO, somebody else's file, no file of SQLite's | tried again and again | suspended |

An error makes ``check``, a reload and a start fail, since somebody reads the answer of these commands. If a named path
becomes wrong while the daemon runs, only the database of that path is suspended.
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

SUSPENDED_MAX = 1000  # nobody reads more rows; the last row says how many more there are

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
    """Return the databases on this disk now, in the order of the entries, with a pattern's matches sorted.

    Raises UsageError with every entry that can't be replicated, and why. Matches that can't be replicated are left out.
    """
    return find_databases(settings).checked(settings)


def check_named(settings: Settings) -> None:
    """Raise UsageError if a path that the configuration names can't be replicated.

    Patterns are not searched, because a match is never an error of the configuration.
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
    """Look for all databases. ``examine`` returns why a match is not a database, judging by its content and owner.

    A database whose name is in ``followed`` is not examined, and takes precedence over other matches of the same file.
    Raises SearchStoppedError as soon as ``is_stopped`` returns True.
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
    """A file that may be a database.

    ``number`` is the number of its entry. ``link`` is the symbolic link that the match is, or that leads to the match.
    Without a link it is "".
    """

    number: int
    spec: DatabaseSpec
    link: str = ""


def _resolved(folder: Path) -> Path:
    """Return the resolved path of a folder, or the unresolved path if its file system does not answer."""
    try:
        with FileCall(folder, "resolve"):
            return Path(os.path.realpath(folder))
    except UnresponsiveError:
        return folder


class _Search:
    """Collects what the entries select, then decides about one candidate after the other."""

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
        """Add a path that the configuration names."""
        try:
            resolved = resolve(entry.path)
        except UnresponsiveError as error:  # the configuration is not at fault
            self._suspend(entry.key, entry.path, error.message, error.hint, name=entry.name or "")
            return
        self._watch_links(resolved)
        self._candidates.append(_Candidate(number, _spec(entry, entry.path, resolved.path)))

    def add_matches(self, number: int, entry: DatabaseEntry, matches: Matches) -> None:
        """Add the matches of a pattern."""
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
        """Return the result. Must be called after everything was added."""
        accepted = [candidate for candidate in self._ordered() if self._accept(candidate)]
        self._check_state_dir()
        specs = [each.spec for each in sorted(accepted, key=lambda each: (each.number, each.spec.configured_as))]
        watched = {folder: frozenset(names) for folder, names in self._watched.items()}
        return Found(specs, _cut(self._suspended), self._problems, watched)

    def _ordered(self) -> list[_Candidate]:
        """Return named paths, then followed databases, then the others. If two share a file or name, the first wins."""

        def rank(each: _Candidate) -> tuple[bool, bool]:
            return each.spec.is_match, each.spec.name not in self._followed

        return sorted(self._candidates, key=rank)

    def _accept(self, candidate: _Candidate) -> bool:
        spec = candidate.spec
        if spec.is_match and spec.path in self._taken:
            return False  # another entry already selects this file
        error = self._objection(candidate)
        if error is None:
            self._taken |= dict.fromkeys(_identities(spec), spec)
            return True
        self._suspend(spec.entry, spec.configured_as, error.message, error.hint, name=spec.name)
        if not spec.is_match:
            self._problems.append(_problem(spec, error.message, error.hint))
        return False

    def _objection(self, candidate: _Candidate) -> UsageError | None:
        """Return why a candidate can't be replicated, or None if it can."""
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
        """Return the error if no storage can have the name, or if the file system can't be watched."""
        try:
            check_name(spec.name, self._settings.storage_of(spec.storage).prefix)
        except UsageError as error:
            return error
        mount = network_mount(spec.path, self._mounts)
        return UsageError(f"is on a network file system ({mount})", hint=NETWORK_HINT) if mount else None

    def _of_twin(self, spec: DatabaseSpec) -> UsageError | None:
        """Return the error if another database has the same file or the same name."""
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
            name = f"{name} ({entry})"  # another database already has a row with that name
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
    """Return a path below a pattern's fixed part, with that part resolved."""
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
    """Yield what no two databases may share: the resolved path, the replica's folder, and the file behind the path."""
    yield spec.path
    yield spec.name
    try:
        with FileCall(spec.path, "look at"):
            status = spec.path.lstat()
    except (OSError, UnresponsiveError):
        return
    yield status.st_dev, status.st_ino


def _kind_of(path: Path) -> str:
    """Return in words what is at the path if it is not a regular file, or "" if it is one or is gone."""
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
    """Return the text as it can be printed and stored, with escapes for invalid UTF-8 and for control characters."""
    decoded = os.fsencode(text).decode("utf-8", "backslashreplace")
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in decoded)


def _problem(spec: DatabaseSpec, message: str, hint: str) -> Problem:
    return Problem(f"{spec.entry}.path", repr(spec.configured_as), message, hint)
