"""What the engine gets to see of a configuration: frozen values, checked, in seconds and bytes.

Nothing here knows TOML, the environment or pydantic; ``loading`` makes these values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class StorageSettings:
    """Where the replicas are and how to get in.

    ``name`` is that of a ``[storage.NAME]``, empty for ``[storage]`` itself.
    ``url`` has no trailing slash: ``s3://bucket/prefix`` or ``file:///folder``. ``addressing_style`` is
    ``auto``, ``path`` or ``virtual``. Without ``access_key_id`` boto3 looks for credentials itself. Secrets
    stay out of the value's repr, and so out of logs and tracebacks. ``encryption_key`` is the 32 bytes of SSE-C.
    ``ca_file`` holds the certificates of the authorities to trust. ``timeout_s`` is how long nothing may move in a
    request: no block of a body, and no answer. Without ``delete`` nothing is ever removed; the store does that
    itself after ``expire_after_s``.
    """

    url: str
    name: str = ""
    endpoint_url: str | None = None
    region: str | None = None
    ca_file: str | None = None
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    profile: str | None = None
    role_arn: str | None = None
    role_external_id: str | None = field(default=None, repr=False)
    addressing_style: Literal["auto", "path", "virtual"] = "auto"
    storage_class: str | None = None
    encryption: Literal["sse-s3", "sse-kms", "sse-c"] | None = None
    kms_key_id: str | None = None
    encryption_key: bytes | None = field(default=None, repr=False)
    timeout_s: float = 20.0
    delete: bool = True
    expire_after_s: float | None = None

    @property
    def section(self) -> str:
        """How messages call the section that it comes from."""
        return f"storage.{self.name}" if self.name else "storage"

    @property
    def prefix(self) -> str:
        """The part of the bucket's keys that comes before a database's name, without slashes around it."""
        return self.url.removeprefix("s3://").partition("/")[2] if self.url.startswith("s3://") else ""


@dataclass(frozen=True, slots=True)
class DaemonSettings:
    """The daemon as a whole; ``spool_bytes_max`` bounds what waits on disk for storage.

    ``upload_bytes_per_second_max`` None: as fast as it goes.
    ``probe_interval_s`` None: an idle daemon asks nothing. ``metrics_listen`` is ``host:port``.
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
    """Whom the daemon tells how it goes; None: nobody. The URLs are secrets."""

    heartbeat_url: str | None = field(default=None, repr=False)
    heartbeat_interval_s: float = 60.0
    problem_url: str | None = field(default=None, repr=False)

    @property
    def is_wanted(self) -> bool:
        """Whether there is anybody to tell."""
        return self.heartbeat_url is not None or self.problem_url is not None


@dataclass(frozen=True, slots=True)
class Keep:
    """Of how many days, weeks and months older than the retention a base is kept."""

    daily: int = 0
    weekly: int = 0
    monthly: int = 0


@dataclass(frozen=True, slots=True)
class DatabaseEntry:
    """One ``[[database]]`` as configured: ``path`` is absolute and may be a pattern.

    ``key`` is how messages call the entry, ``database[2]``, counted from 1. ``storage`` is the name of a
    ``[storage.NAME]``, empty for ``[storage]``. ``verify_interval_s`` None: no drills.
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
    storage: str = ""

    @property
    def is_pattern(self) -> bool:
        """Whether ``path`` stands for every file that matches it."""
        return any(character in self.path for character in "*?[")


@dataclass(frozen=True, slots=True)
class Settings:
    """A whole configuration, with the file that it came from; ``others`` are the ``[storage.NAME]``."""

    file: Path
    storage: StorageSettings
    daemon: DaemonSettings
    databases: tuple[DatabaseEntry, ...]
    others: tuple[StorageSettings, ...] = ()
    notify: NotifySettings = field(default_factory=NotifySettings)

    @property
    def storages(self) -> tuple[StorageSettings, ...]:
        """All storages, ``[storage]`` first; no two have one url."""
        return (self.storage, *self.others)

    def storage_of(self, name: str) -> StorageSettings:
        """The storage of a database whose entry names it so; the caller has the name from this configuration."""
        return next(each for each in self.storages if each.name == name)
