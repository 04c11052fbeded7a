"""The configuration as the engine sees it: frozen values, checked, in seconds and bytes.

Nothing here knows TOML, the environment or pydantic. ``loading`` makes these values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from walsyncd.config.patterns import is_pattern

WAL_BYTES_MAX = 256 << 20  # with this limit a gap is bridged in seconds, and one WAL does not fill a small disk


@dataclass(frozen=True, slots=True)
class StorageSettings:
    """A storage: where replicas are, and how to access them.

    ``name`` is the NAME of ``[storage.NAME]``, and empty for ``[storage]`` itself. ``url`` has no trailing slash:
    ``s3://bucket/prefix`` or ``file:///folder``. Without ``delete`` walsyncd removes nothing. Then the store removes
    objects itself after ``expire_after_s``.

    Only the backend of the URL's scheme reads ``options``, and it declares what they mean (``s3.s3_settings``). Some
    options are secrets, so ``repr`` omits all options. So they do not get into logs and tracebacks either.
    """

    url: str
    name: str = ""
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    delete: bool = True
    expire_after_s: float | None = None

    @property
    def section(self) -> str:
        """The name that messages use for the section which configures this storage."""
        return f"storage.{self.name}" if self.name else "storage"

    @property
    def prefix(self) -> str:
        """The part of the bucket's keys that comes before a database's name, without slashes around it."""
        return self.url.removeprefix("s3://").partition("/")[2] if self.url.startswith("s3://") else ""


@dataclass(frozen=True, slots=True)
class DaemonSettings:
    """Settings of the daemon as a whole. ``spool_bytes_max`` limits how many bytes wait on disk for storage.

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
    """The URLs to which the daemon reports its state. An unused URL is None. The URLs are secrets."""

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

    ``key`` is the name of the entry in messages, for example ``database[2]``, counted from 1. ``storage`` is the NAME
    of a ``[storage.NAME]``, and empty for ``[storage]``. ``verify_interval_s`` is None if there are no drills.
    ``scrub_interval_s`` is None if only the command ``scrub`` compares.
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
    """If ``path`` is a pattern, files and folders that match one of these patterns are left out."""
    backpressure: bool = False
    wal_bytes_max: int = WAL_BYTES_MAX

    @property
    def is_pattern(self) -> bool:
        """Whether ``path`` stands for every file that matches it."""
        return is_pattern(self.path)


@dataclass(frozen=True, slots=True)
class Settings:
    """A whole configuration, and the file that it was read from. ``others`` are the ``[storage.NAME]`` sections."""

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
        """Return the storage called ``name``, which must come from an entry of this configuration."""
        return next(each for each in self.storages if each.name == name)
