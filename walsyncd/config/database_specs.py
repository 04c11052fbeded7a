"""The databases that a configuration selects on this disk, and the matches that can't be replicated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from walsyncd.config.patterns import NewNames
from walsyncd.config.problem import Problem, error_of
from walsyncd.config.settings import WAL_BYTES_MAX, Keep, Settings


@dataclass(frozen=True, slots=True)
class DatabaseSpec:
    """One database to replicate. ``configured_as`` is the path as configured; ``path`` is the same path, resolved.

    ``name`` is the folder of the replica in ``storage`` (the name of a ``[storage.NAME]``, empty for ``[storage]``).
    ``entry`` is the name of the entry in messages (``database[2]``).
    """

    path: Path
    name: str
    configured_as: str
    entry: str
    upload_interval_s: float
    snapshot_interval_s: float
    retention_s: float
    presence: bool
    snapshot_wal_ratio: float = 1.0
    keep: Keep = field(default_factory=Keep)
    verify_interval_s: float | None = None
    scrub_interval_s: float | None = None
    is_match: bool = False
    """Whether a pattern matched the file, so that the configuration does not name this particular file."""
    storage: str = ""
    backpressure: bool = False
    wal_bytes_max: int = WAL_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Suspended:
    """A configured path that can't be replicated, and the reason. ``name`` and ``path`` are safe to print.

    ``since_ms`` (since 1970) is when the file last changed. The reason has existed since then at most. ``since_ms`` is
    0 if the time is not known.
    """

    name: str
    path: str
    entry: str
    cause: str
    remedy: str
    since_ms: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """What the entries select now. ``problems`` are about named paths only, which are in ``suspended`` too."""

    specs: list[DatabaseSpec]
    suspended: list[Suspended]
    problems: list[Problem]
    watched: Mapping[Path, frozenset[NewNames]]
    """The folders to watch, with new names. If such a name appears in its folder, paths or matches have changed."""

    def checked(self, settings: Settings) -> list[DatabaseSpec]:
        """Return the databases. Raises UsageError if a path that the configuration names can't be replicated."""
        if self.problems:
            raise error_of(settings.file, self.problems)
        return self.specs
