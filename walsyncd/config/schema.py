"""The configuration file's schema: sections, keys, defaults and limits.

The file is TOML, and the environment overrides it: ``WALSYNCD_STORAGE__URL`` is ``url`` of ``[storage]``. The sections
and their keys are the classes below. A key that no class has is an error, since a misspelt ``retention`` must not
silently mean the default.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from walsyncd.config.settings import WAL_BYTES_MAX
from walsyncd.config.units import parse_duration, parse_size
from walsyncd.errors import UsageError

ENVIRONMENT_PREFIX = "WALSYNCD_"

# A century. Anything longer may exceed the range of dates, and means "for ever" anyway.
DURATION_MAX_S = 36_525 * 86_400.0

# One frame with a page of the largest size (65536 bytes) has to fit, with a margin.
SPOOL_BYTES_MIN = 128 << 10

# SQLite's own checkpoint comes after 1000 pages, which are 4 MiB. So backpressure would never hold a smaller WAL.
WAL_BYTES_MIN = 4 << 20

# In bytes a second: enough for one page, the smallest commit, every four seconds.
UPLOAD_RATE_MIN = 1 << 10

# Probing more often is not worth the requests.
PROBE_INTERVAL_MIN_S = 1.0
PORT_MAX = 65_535

# Receivers of heartbeats count in minutes, and some refuse requests that come too often.
HEARTBEAT_INTERVAL_MIN_S = 10.0

# Each upload is a thread and a connection; more uploads than this only queue in the kernel.
UPLOADS_MAX = 256

# About a century of days.
KEEP_MAX = 36_525

# Below the minimum, most of the stored bytes would be bases. Above the maximum, a restore would read too much WAL.
WAL_RATIO_MIN, WAL_RATIO_MAX = 0.1, 1000.0

# A small request that is under way when the daemon begins to stop has to end in this time. Connecting adds up to 5 s.
STORE_TIMEOUT_MIN_S, STORE_TIMEOUT_MAX_S = 1.0, 25.0

# Storage classes whose objects have to be thawed for minutes or hours before the objects can be read.
_ARCHIVES = ("GLACIER", "DEEP_ARCHIVE", "SNOW", "COLD_ARCHIVE")
_STORAGE_CLASS_PATTERN = re.compile("[A-Z][A-Z0-9_-]{1,63}")
_ROLE_ARN_PATTERN = re.compile(r"arn:[a-z0-9-]*:(iam|sts):[a-z0-9-]*:[0-9A-Za-z-]*:.*[^/]")


def _refuse(message: str, hint: str) -> PydanticCustomError:
    """Return an error that pydantic collects together with other errors instead of stopping at the first."""
    return PydanticCustomError("walsyncd", "{message}", {"message": message, "hint": hint})


def _duration(value: object, other: str = "") -> float:
    """Return the seconds of a duration. ``other`` adds to the hint which other values the key accepts."""
    try:
        seconds = parse_duration(str(value))
    except UsageError as error:
        raise _refuse("is not a duration", f"{error.hint}{other}") from None
    if not 0 < seconds <= DURATION_MAX_S:
        raise _refuse("must be longer than 0 and at most a hundred years", 'for example "1s" or "7d"')
    return seconds


def _probe_interval(value: object) -> float | None:
    """Return the seconds of a duration, or None for ``off``."""
    if value == "off":
        return None
    seconds = _duration(value, '; or "off"')
    if seconds < PROBE_INTERVAL_MIN_S:
        raise _refuse("is too often to ask", 'at least "1s"; the default is "1m", "off" never asks')
    return seconds


def _listen(value: object) -> str:
    address = str(value)
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) <= PORT_MAX:
        raise _refuse("is not an address and a port", 'for example "127.0.0.1:9187"')
    return address


def _spool_size(value: object) -> int:
    try:
        size = parse_size(str(value))
    except UsageError as error:
        raise _refuse("is not a size", error.hint) from None
    if size < SPOOL_BYTES_MIN:
        raise _refuse("is too small to hold a transaction", 'at least "128KiB"; the default is "4GiB"')
    return size


def _wal_size(value: object) -> int:
    try:
        size = parse_size(str(value))
    except UsageError as error:
        raise _refuse("is not a size", error.hint) from None
    if size < WAL_BYTES_MIN:
        raise _refuse("is less than the WAL of many applications", 'at least "4MiB"; the default is "256MiB"')
    return size


def _upload_rate(value: object) -> int:
    try:
        size = parse_size(str(value))
    except UsageError as error:
        raise _refuse("is not a size", error.hint) from None
    if size < UPLOAD_RATE_MIN:
        raise _refuse("is too slow to keep up with anything", 'at least "1KiB"; leave it out for no limit')
    return size


def _verify_interval(value: object) -> float:
    """Return the seconds of a duration, or 0 for ``off``."""
    return 0.0 if value == "off" else _duration(value, '; or "off"')


def _absolute(path: str) -> str:
    if "\0" in path:
        raise _refuse("has a NUL byte in it", "no file has such a path")
    if not path.startswith("/"):
        raise _refuse("is a relative path", "write the whole path, from / on")
    return path


def _http(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise _refuse("is not an http:// or https:// URL", 'for example "https://s3.example.com"')
    return url


def _hook_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_complete = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_complete = False
    if not is_complete or any(character <= " " for character in url):
        raise _refuse("is not an http:// or https:// URL", 'for example "https://hc-ping.com/…"')
    return url


def _heartbeat_interval(value: object) -> float:
    seconds = _duration(value)
    if seconds < HEARTBEAT_INTERVAL_MIN_S:
        raise _refuse("is too often to ask", 'at least "10s"; the default is "1m"')
    return seconds


def _store_timeout(value: object) -> float:
    seconds = _duration(value)
    if not STORE_TIMEOUT_MIN_S <= seconds <= STORE_TIMEOUT_MAX_S:
        raise _refuse("must be from 1s to 25s", "a stop waits 30 s for what is under way")
    return seconds


def _storage_class(name: str) -> str:
    if not _STORAGE_CLASS_PATTERN.fullmatch(name):
        raise _refuse("is not the name of a storage class", 'as in the API: "STANDARD_IA", "INTELLIGENT_TIERING"')
    if any(name.startswith(archive) and name != "GLACIER_IR" for archive in _ARCHIVES):
        raise _refuse("is an archive: a restore could not read it at once", '"GLACIER_IR" is the cheapest that can')
    return name


def _role_arn(arn: str) -> str:
    if not _ROLE_ARN_PATTERN.fullmatch(arn):
        raise _refuse("is not the ARN of a role", 'for example "arn:aws:iam::123456789012:role/walsyncd"')
    return arn


Duration = Annotated[float, BeforeValidator(_duration)]
VerifyInterval = Annotated[float, BeforeValidator(_verify_interval)]
SpoolSize = Annotated[int, BeforeValidator(_spool_size)]
WalSize = Annotated[int, BeforeValidator(_wal_size)]
UploadRate = Annotated[int, BeforeValidator(_upload_rate)]
AbsolutePath = Annotated[str, AfterValidator(_absolute)]
KeepCount = Annotated[int, Field(ge=0, le=KEEP_MAX)]
WalRatio = Annotated[float, Field(ge=WAL_RATIO_MIN, le=WAL_RATIO_MAX)]
Text = Annotated[str, Field(min_length=1)]
Endpoint = Annotated[str, AfterValidator(_http)]
StoreTimeout = Annotated[float, BeforeValidator(_store_timeout)]
ProbeInterval = Annotated[float | None, BeforeValidator(_probe_interval)]
HookUrl = Annotated[str, AfterValidator(_hook_url)]
HeartbeatInterval = Annotated[float, BeforeValidator(_heartbeat_interval)]
Listen = Annotated[str, BeforeValidator(_listen)]
StorageClass = Annotated[str, AfterValidator(_storage_class)]
RoleArn = Annotated[str, AfterValidator(_role_arn)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class DestinationSection(_Section):
    """``[storage.NAME]``: one storage."""

    url: Text
    endpoint_url: Endpoint | None = None
    region: Text | None = None
    ca_file: AbsolutePath | None = None
    access_key_id: Text | None = None
    secret_access_key: Text | None = None
    session_token: Text | None = None
    profile: Text | None = None
    role_arn: RoleArn | None = None
    role_external_id: Text | None = None
    addressing_style: Literal["auto", "path", "virtual"] = "auto"
    storage_class: StorageClass | None = None
    encryption: Literal["sse-s3", "sse-kms", "sse-c"] | None = None
    kms_key_id: Text | None = None
    sse_c_key_file: AbsolutePath | None = None
    timeout: StoreTimeout = 20.0
    delete: bool = True
    expire_after: Duration | None = None


class StorageSection(DestinationSection):
    """``[storage]``: the storage of every database that selects no other. A table in it is a ``[storage.NAME]``."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, DestinationSection] = Field(init=False)

    @property
    def named(self) -> dict[str, DestinationSection]:
        """The other storages, by name."""
        return self.__pydantic_extra__


class DaemonSection(_Section):
    """``[daemon]``."""

    state_dir: AbsolutePath = "/var/lib/walsyncd"
    spool_bytes_max: SpoolSize = 4 << 30
    uploads_max: Annotated[int, Field(ge=1, le=UPLOADS_MAX)] = 8
    upload_bytes_per_second_max: UploadRate | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "journal"] = "auto"
    probe_interval: ProbeInterval = 60.0
    stop_timeout: Duration = 30.0
    metrics_listen: Listen | None = None
    metrics_textfile: AbsolutePath | None = None


class DefaultsSection(_Section):
    """``[defaults]``."""

    storage: Text | None = None
    upload_interval: Duration = 1.0
    snapshot_interval: Duration = 86_400.0
    snapshot_wal_ratio: WalRatio = 1.0
    retention: Duration = 7 * 86_400.0
    keep_daily: KeepCount = 0
    keep_weekly: KeepCount = 0
    keep_monthly: KeepCount = 0
    presence: bool = False
    backpressure: bool = False
    wal_bytes_max: WalSize = WAL_BYTES_MAX
    verify_interval: VerifyInterval = 0.0
    scrub_interval: VerifyInterval = 86_400.0


class DatabaseSection(_Section):
    """One ``[[database]]``. The values of omitted keys come from ``[defaults]``."""

    path: AbsolutePath
    exclude: list[AbsolutePath] = Field(default_factory=list)
    name: str | None = None
    storage: Text | None = None
    upload_interval: Duration | None = None
    snapshot_interval: Duration | None = None
    snapshot_wal_ratio: WalRatio | None = None
    retention: Duration | None = None
    keep_daily: KeepCount | None = None
    keep_weekly: KeepCount | None = None
    keep_monthly: KeepCount | None = None
    presence: bool | None = None
    backpressure: bool | None = None
    wal_bytes_max: WalSize | None = None
    verify_interval: VerifyInterval | None = None
    scrub_interval: VerifyInterval | None = None


class NotifySection(_Section):
    """``[notify]``."""

    heartbeat_url: HookUrl | None = None
    heartbeat_interval: HeartbeatInterval = 60.0
    problem_url: HookUrl | None = None


class ConfigFile(BaseSettings):
    """The whole file, given as keyword arguments. The environment overrides it."""

    model_config = SettingsConfigDict(extra="forbid", env_prefix=ENVIRONMENT_PREFIX, env_nested_delimiter="__")

    storage: StorageSection
    daemon: DaemonSection = DaemonSection()
    defaults: DefaultsSection = DefaultsSection()
    database: list[DatabaseSection] = Field(default_factory=list)
    notify: NotifySection = NotifySection()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return only the environment, then the file. pydantic's other sources (.env, secrets folder) are not used."""
        return env_settings, init_settings


SECTIONS: dict[str, type[BaseModel]] = {
    "storage": StorageSection,
    "daemon": DaemonSection,
    "defaults": DefaultsSection,
    "database": DatabaseSection,
    "notify": NotifySection,
}
