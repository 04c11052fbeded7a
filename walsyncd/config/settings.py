"""The configuration as the engine sees it: frozen values, checked, in seconds and bytes.

Nothing here knows TOML, the environment or pydantic. ``loading`` makes these values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from walsyncd.config.patterns import is_pattern

WAL_BYTES_MAX = 256 << 20  # with it, a gap is bridged in seconds, and no small disk is filled by one WAL


@dataclass(frozen=True, slots=True)
class StorageSettings:
    """A storage: where replicas are, and how to access them.

    ``name`` is that of a ``[storage.NAME]``, empty for ``[storage]`` itself. ``url`` has no trailing slash:
    ``s3://bucket/prefix`` or ``file:///folder``. Without ``delete`` walsyncd removes nothing. The store does that
    itself after ``expire_after_s``.

    ``options`` are for the backend of the URL's scheme alone, which declares what they mean (``s3.s3_settings``). Some
    are secrets, so they are not in the value's repr, and so not in logs and tracebacks.
    """

    url: str
    name: str = ""
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    delete: bool = True
    expire_after_s: float | None = None

    @property
    def section(self) -> str:
        """The name, in messages, of the section that it comes from."""
        return f"storage.{self.name}" if self.name else "storage"

    @property
    def prefix(self) -> str:
        """The part of the bucket's keys that comes before a database's name, without slashes around it."""
        return self.url.removeprefix("s3://").partition("/")[2] if self.url.startswith("s3://") else ""


@dataclass(frozen=True, slots=True)
class DaemonSettings:
    """The daemon as a whole. ``spool_bytes_max`` limits what waits on disk for storage.

    ``upload_bytes_per_second_max`` is None if there is no limit. ``probe_interval_s`` is None if an idle daemon makes
    no requests. ``metrics_listen`` is ``host:port``.
    """

    state_dir: Path
    spool_bytes_max: int
    uploads_max: int
    log_level: str
    upload_bytes_per_second_max: int | None = None
    log_format: Literal["auto", "json", "journal"] = "auto"
    probe_interval_s: float | None = 60.0
    stop_timeout_s: float = 30.0
    metrics_listen: str | None = None
    metrics_textfile: Path | None = None


@dataclass(frozen=True, slots=True)
class NotifySettings:
    """The URLs to which the daemon reports its state. A URL is None if nothing is sent there. The URLs are secrets."""

    heartbeat_url: str | None = field(default=None, repr=False)
    heartbeat_interval_s: float = 60.0
    problem_url: str | None = field(default=None, repr=False)

    @property
    def is_wanted(self) -> bool:
        """Whether there is a URL to report to."""
        return self.heartbeat_url is not None or self.problem_url is not None


@dataclass(frozen=True, slots=True)
class Keep:
    """For how many days, weeks and months that are older than the retention a base is kept."""

    daily: int = 0
    weekly: int = 0
    monthly: int = 0


@dataclass(frozen=True, slots=True)
class DatabaseEntry:
    """One ``[[database]]`` as configured. ``path`` is absolute and may be a pattern.

    ``key`` is the name of the entry in messages, ``database[2]``, counted from 1. ``storage`` is the name of a
    ``[storage.NAME]``, empty for ``[storage]``. ``verify_interval_s`` is None if there are no drills.
    ``scrub_interval_s`` is None if nothing is scrubbed unless asked for.
    """

    key: str
    path: str
    name: str | None
    upload_interval_s: float
    snapshot_interval_s: float
    retention_s: float
    presence: bool
    snapshot_wal_ratio: float = 1.0
    keep: Keep = field(default_factory=Keep)
    verify_interval_s: float | None = None
    scrub_interval_s: float | None = None
    storage: str = ""
    exclude: tuple[str, ...] = ()
    """Patterns of what ``path``, a pattern, is not to match."""
    backpressure: bool = False
    wal_bytes_max: int = WAL_BYTES_MAX

    @property
    def is_pattern(self) -> bool:
        """Whether ``path`` stands for every file that matches it."""
        return is_pattern(self.path)


@dataclass(frozen=True, slots=True)
class Settings:
    """A whole configuration, with the file that it came from. ``others`` are the ``[storage.NAME]``."""

    file: Path
    storage: StorageSettings
    daemon: DaemonSettings
    databases: tuple[DatabaseEntry, ...]
    others: tuple[StorageSettings, ...] = ()
    notify: NotifySettings = field(default_factory=NotifySettings)

    @property
    def storages(self) -> tuple[StorageSettings, ...]:
        """All storages, ``[storage]`` first. No two have the same url."""
        return (self.storage, *self.others)

    def storage_of(self, name: str) -> StorageSettings:
        """Return the storage of that name, which must be from an entry of this configuration."""
        return next(each for each in self.storages if each.name == name)
